"""Files from outside that a spec names by URL and sha256: fetched once a machine, checked, then read from its cache."""

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from configs.classifier import PinnedUrl
from ray_jobs.checkpoint.checkpoint import cache_folder
from ray_jobs.cluster.fan_out import UserError

PIECE_BYTES = 1 << 20
MAX_BYTES = 16 << 30
TIMEOUT_S = 60.0


def fetched(file: PinnedUrl) -> Path:
    """A local file with the content that was pinned.

    Raises:
        UserError: it is not there, or has another checksum.
        ConnectionError: the server did not answer.
    """
    target = cache_folder() / "pinned" / file.sha256
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    digest, size = hashlib.sha256(), 0
    try:
        with temporary.open("wb") as written:
            for piece in _pieces(file.url):
                size += len(piece)
                if size > MAX_BYTES:
                    raise UserError(f"{file.url} is larger than {MAX_BYTES >> 30} GiB: give a smaller file")
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


def _pieces(url: str) -> Iterator[bytes]:
    scheme = url.partition("://")[0] if "://" in url else "file"
    if scheme == "file":
        path = Path(unquote(urlsplit(url).path) if "://" in url else url).expanduser()
        if not path.is_file():
            raise UserError(f"{path} is not a file: check the path")
        with path.open("rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
    elif scheme == "s3":
        import s3fs

        with s3fs.S3FileSystem(skip_instance_cache=True).open(url, "rb") as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
    else:
        yield from _http_pieces(url)


def _http_pieces(url: str) -> Iterator[bytes]:
    import httpx

    # What a redirect leads to cannot matter: the checksum is that of what was wanted.
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=TIMEOUT_S) as response:
            if response.status_code != 200:
                raise UserError(f"{url} was answered with {response.status_code}: check the URL, and access to it")
            yield from response.iter_bytes(PIECE_BYTES)
    except httpx.TransportError as error:
        raise ConnectionError(f"{url} could not be read ({type(error).__name__}): run again") from error
