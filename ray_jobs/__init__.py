"""The work. `python -m ray_jobs NODE SPEC_URL` is the one entry point of every job."""

import hashlib
import os
from pathlib import Path


def _kernel_cache() -> Path:
    """Where numba keeps compiled kernels: a folder for each state of the sources that have any.

    numba itself looks only at the time of the file that a kernel stands in. After an update of another file, from
    which the kernel takes functions, it would go on with what it compiled from the old one.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*/*.py")):
        source = path.read_bytes()
        if b"numba" in source:
            digest.update(source)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "headrace" / "kernels" / digest.hexdigest()[:16]


# Before anything imports numba, which reads it once. Older folders may be deleted; each holds some 10 MB.
os.environ.setdefault("NUMBA_CACHE_DIR", str(_kernel_cache()))
