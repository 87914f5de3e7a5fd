"""Which code computed a node: recorded in manifests, compared by the plan (DRIFT)."""

import functools
import hashlib
import os
import platform
from pathlib import Path

from ray_jobs.checkpoint.manifest import Code

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def room_digest(room: str) -> str:
    """sha256 over the sources of ray_jobs/<room>/ and configs/<room>.py."""
    digest = hashlib.sha256()
    files = [*sorted((ROOT / "ray_jobs" / room).rglob("*.py")), ROOT / "configs" / f"{room}.py"]
    for file in files:
        if file.exists():
            digest.update(file.relative_to(ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def git_revision() -> str | None:
    """The checkout's commit, read without starting git; HEADRACE_GIT_REVISION where code is shipped without .git."""
    given = os.environ.get("HEADRACE_GIT_REVISION")
    head = ROOT / ".git" / "HEAD"
    if given or not head.is_file():
        return given
    text = head.read_text().strip()
    if not text.startswith("ref: "):
        return text
    ref = ROOT / ".git" / text.removeprefix("ref: ")
    if ref.is_file():
        return ref.read_text().strip()
    packed = ROOT / ".git" / "packed-refs"
    for line in packed.read_text().splitlines() if packed.is_file() else []:
        if line.endswith(text.removeprefix("ref: ")):
            return line.split()[0]
    return None


@functools.cache
def lock_digest() -> str | None:
    lock = ROOT / "requirements.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None


def code_of(room: str, version: int) -> Code:
    return Code(
        version=version,
        digest=room_digest(room),
        git_revision=git_revision(),
        lock_digest=lock_digest(),
        python=platform.python_version(),
    )
