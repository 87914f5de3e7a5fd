"""Files from outside that a spec names by URL and sha256: fetched once a machine, checked, then read from its cache."""

import contextlib
import hashlib
import secrets
from pathlib import Path

from configs.classifier import PinnedUrl
from ray_jobs.checkpoint.checkpoint import cache_folder
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.files.pins import describe
from ray_jobs.files.streams import CheckedFile

PIECE_BYTES = 1 << 20


def fetched(file: PinnedUrl) -> Path:
    """A local file with the content that was pinned.

    Raises:
        ValueError: it is not there, may not be read, or has another checksum.
        ConnectionError: the server did not answer within the client's patience.
    """
    target = cache_folder() / "pinned" / file.sha256
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    standing = describe(file.url, file.allowed_hosts)
    try:
        with (
            temporary.open("wb") as written,
            contextlib.closing(CheckedFile(standing, file.allowed_hosts).open()) as source,
        ):
            while piece := source.read(PIECE_BYTES):
                digest.update(piece)
                written.write(piece)
        if digest.hexdigest() != file.sha256:
            raise UserError(
                f"{file.url} has the sha256 {digest.hexdigest()}, and the recipe says {file.sha256}: if the file is "
                "what you want, write its own into the recipe"
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return target
