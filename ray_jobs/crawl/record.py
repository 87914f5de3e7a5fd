"""A record of an archive, and what the readers of both formats (`records`, `arc`) have in common."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from ray_jobs.files.streams import Openable, Stream

DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
HTTP_HEADER_BYTES = 1 << 16
"""What a block may hold beyond its payload."""

# Records that describe others and hold no document.
NOT_DOCUMENTS = frozenset({"warcinfo", "request", "metadata"})


@dataclass(slots=True)
class Record:
    """One record, read whole."""

    offset: int
    """Where it begins in the archive, in bytes as they are stored. Rises from record to record: where a file is
    compressed as a whole, records have no place of their own in it, and get the least offset that is left."""
    type: str
    """warcinfo, request, response, resource, metadata, revisit, conversion, continuation or unknown."""
    url: str
    content_type: str
    block: bytes
    """Content, with its HTTP headers; empty where `fault` is set or the type holds no document."""
    fault: str | None = None
    """Why the record cannot be used: too_large, record_truncated, record_damaged or record_length_wrong."""
    date: str = ""
    """When it was fetched, as YYYY-MM-DDThh:mm:ssZ; empty where the archive does not say."""


class End(Enum):
    """How a pass over the archive ended."""

    AT_END = auto()
    WITHIN_RECORD = auto()
    IN_RECORD_DAMAGE = auto()
    AFTER_RECORD_DAMAGE = auto()
    LENGTH_WRONG = auto()
    """The last record does not end where it says."""


class Pass(ABC):
    """Iterates over records from `start` until the end or the first damage, then says in `end` which it was."""

    def __init__(self, archive: Openable, start: int, max_bytes: int, last_offset: int):
        self._archive, self._start = archive, start
        self._max_block = max_bytes + HTTP_HEADER_BYTES
        self._last_offset = last_offset
        self.end = End.AT_END

    @abstractmethod
    def __iter__(self) -> Iterator[Record]:
        """Records, up to the end or the damage."""

    def _rising(self, offset: int) -> int:
        """The offset, or the least one that is left."""
        self._last_offset = max(offset, self._last_offset + 1)
        return self._last_offset


class Source:
    """An archive's bytes, whose own failure to come is told apart from damage in them."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self.failure: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._stream.read(size)
        except BaseException as error:
            self.failure = error
            raise

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def close(self) -> None:
        self._stream.close()


def clean_url(url: str) -> str:
    """wget writes <http://…>; NULs would end the URL in some readers of the table."""
    return url.strip().strip("<>").replace("\0", "")


def clean_date(date: str) -> str:
    """To the second: WARC 1.1 allows fractions. What is no date is none."""
    return date[:19] + "Z" if DATE.match(date) else ""
