"""Where things are when nobody says: environment variables, then the embedded defaults under ./.headrace."""

import os

from tasks.local import home


def store_url() -> str:
    """HEADRACE_STORE, or a folder in HEADRACE_HOME."""
    return os.environ.get("HEADRACE_STORE") or (home() / "store").as_uri()


def ray_address() -> str | None:
    """HEADRACE_RAY_ADDRESS (http://head:8265), or None for the embedded head."""
    return os.environ.get("HEADRACE_RAY_ADDRESS") or None
