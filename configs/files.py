"""Files of the world outside: by which URLs they are named, and by what they are known again."""

from pydantic import Field, field_validator

from configs.base import Spec

URL_SCHEMES = ("http", "https", "s3", "file")
"""Nothing else is ever opened: other fsspec schemes can reach a machine's local services."""


def check_url(url: str) -> str:
    """The URL, or a ValueError where its scheme is not one that we open. A path without a scheme is a file's."""
    scheme, separator, _ = url.partition("://")
    if separator and scheme not in URL_SCHEMES:
        raise ValueError(f"{url!r} has the scheme {scheme!r}: use one of {', '.join(URL_SCHEMES)}, or a file path")
    return url


class PinnedFile(Spec):
    """One file, and by what we know that it is still the same one."""

    url: str
    size: int = Field(ge=0)
    """In bytes."""
    etag: str | None = None
    """The server's entity tag, as it wrote it. Files have none."""
    sha256: str | None = None
    """Of local files, which have no etag."""

    _url = field_validator("url")(check_url)
