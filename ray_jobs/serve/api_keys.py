"""Who may ask: keys from a file or the environment, compared without telling by time how much of one was right."""

import hashlib
import hmac
import os
from pathlib import Path

VARIABLE = "HEADRACE_API_KEYS"


class ApiKeys:
    """Digests of the keys; without any everybody may ask."""

    def __init__(self, keys: list[str]):
        self._digests = [_digest(key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def allows(self, authorization: str | None) -> bool:
        """authorization: the header's value, `Bearer KEY`."""
        if not self._digests:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        given = _digest(key.strip())
        # Every key is compared, whichever was right.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def read_keys(file: str | None) -> list[str]:
    """The keys in the file, a line each, or those in HEADRACE_API_KEYS between commas.

    Raises:
        ValueError: the file is not there, or holds none.
    """
    if file is None:
        return [key.strip() for key in os.environ.get(VARIABLE, "").split(",") if key.strip()]
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no file of API keys {path}: write a line a key into it")
    lines = [line.strip() for line in path.read_text().splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise ValueError(f"{path} holds no API key, so that nobody could ask: write a line a key into it")
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
