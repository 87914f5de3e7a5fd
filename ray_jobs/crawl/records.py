"""The records of an archive, in spite of what is wrong with it.

fastwarc reads gzip, zstd, lz4 and plain archives, fast, and stops at the first damage: it raises OSError where a member
does not decompress or a header does not parse, and where an archive breaks off it gives a shorter record without a
word. Here reading goes on at the next record that can be read, and every loss is a record with its offset and reason.

ARC, the format before WARC, is not read: fastwarc does not know it, and its archives are counted as `not_warc`.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from fastwarc import ArchiveIterator, WarcRecord

from ray_jobs.files.streams import Openable, Stream

# Where a record may begin: a member of gzip, zstd or lz4, or a plain record's version line after a record's end.
RECORD_START = re.compile(
    rb"\x1f\x8b\x08|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18|(?<=\r\n\r\n)WARC/[01]\.|(?<=\n\n)WARC/[01]\."
)
SCAN_BYTES = 1 << 20
PROBE_BYTES = 1 << 17
"""A record's headers, at most 32 KiB of them, decompress from fewer."""
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


@dataclass
class Faults:
    """What was wrong with the archive as a whole."""

    truncated: int = 0
    """It ends within a record."""
    damaged: int = 0
    """Places where reading failed and went on further along, or could not."""
    not_warc: int = 0
    """Nothing in it can be read as a WARC record."""
    empty: int = 0


class _End(Enum):
    """How a pass over the archive ended."""

    AT_END = auto()
    WITHIN_RECORD = auto()
    IN_RECORD_DAMAGE = auto()
    AFTER_RECORD_DAMAGE = auto()


def read_records(archive: Openable, max_bytes: int, faults: Faults) -> Iterator[Record]:
    """All records, in order, also those that cannot be used; `faults` is filled in on the way.

    A stretch that is too damaged to tell its records apart is one record of the type "unknown" with the fault
    `record_damaged`.

    Args:
        max_bytes: longer blocks are not read, but reported as `too_large`.

    Raises:
        whatever the archive's stream raises: a lost connection is no damage.
    """
    start, offset, num_read = 0, -1, 0
    while True:
        reading = _Pass(archive, start, max_bytes, offset)
        # The last record is held back: only how the pass ends tells whether it is sound.
        last: Record | None = None
        for record in reading:
            if last is not None:
                yield last
            last, offset = record, record.offset
            num_read += 1
        if reading.end is _End.AT_END:
            if last is not None:
                yield last
            faults.empty += num_read == 0
            return
        following = _find_record(archive, offset + 1 if last is not None else start + 1)
        if num_read == 0 and following is None:
            faults.not_warc += 1
            return
        if last is not None:
            _judge(last, reading.end, following)
            yield last
        if reading.end is _End.WITHIN_RECORD and following is None:
            faults.truncated += 1
        else:
            faults.damaged += 1
        if reading.end is _End.AFTER_RECORD_DAMAGE and (last is None or last.fault != "record_length_wrong"):
            offset = max(offset + 1, start if last is None else 0)
            num_read += 1
            yield Record(offset, "unknown", "", "", b"", "record_damaged")
        if following is None:
            return
        start = following


def _judge(last: Record, end: _End, following: int | None) -> None:
    """Gives the last record before a fault the reason why it cannot be used, if it cannot."""
    if end is _End.IN_RECORD_DAMAGE:
        fault = "record_damaged"
    elif end is _End.WITHIN_RECORD:
        # Its length reaches beyond records that follow it, or beyond the archive.
        fault = "record_truncated" if following is None else "record_length_wrong"
    elif re.search(rb"\n\r?\nWARC/[01]\.", last.block):
        fault = "record_length_wrong"
    else:
        return
    last.fault, last.block = fault, b""


class _Pass:
    """Iterates over records from `start` until the end or the first damage, then says in `end` which it was."""

    def __init__(self, archive: Openable, start: int, max_bytes: int, last_offset: int):
        self._archive, self._start, self._max_bytes = archive, start, max_bytes
        self._last_offset = last_offset
        self.end = _End.AT_END

    def __iter__(self) -> Iterator[Record]:
        source = _Source(self._archive.open(self._start))
        try:
            yield from self._records(source)
        except OSError:
            if source.failure is not None:
                raise source.failure from None
            self.end = _End.AFTER_RECORD_DAMAGE
        finally:
            source.close()

    def _records(self, source: "_Source") -> Iterator[Record]:
        limit = self._max_bytes + HTTP_HEADER_BYTES
        for warc in ArchiveIterator(source, parse_http=False):
            record = self._describe(warc)
            declared = warc.content_length
            try:
                if record.type in NOT_DOCUMENTS:
                    received = warc.reader.consume()
                elif declared > limit:
                    record.fault = "too_large"
                    received = warc.reader.consume()
                else:
                    record.block = warc.reader.read()
                    received = len(record.block)
            except OSError:
                if source.failure is not None:
                    raise
                self.end = _End.IN_RECORD_DAMAGE
                yield record
                return
            if received < declared:
                self.end = _End.WITHIN_RECORD
                yield record
                return
            yield record

    def _describe(self, warc: WarcRecord) -> Record:
        self._last_offset = max(warc.stream_pos, self._last_offset + 1)
        headers = warc.headers
        # wget writes <http://…>; NULs would end the URL in some readers of the table.
        url = (headers.get("WARC-Target-URI") or "").strip().strip("<>").replace("\0", "")
        content_type = (headers.get("Content-Type") or "").lower()
        return Record(self._last_offset, str(warc.record_type), url, content_type, b"")


class _Source:
    """The archive's bytes for fastwarc, which reports errors of Python's streams and damage alike as OSError."""

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


def _find_record(archive: Openable, start: int) -> int | None:
    """Offset of the first record at or after `start` whose header can be read, or None."""
    stream = archive.open(start)
    try:
        # A few bytes before the scanned part let a version line see the empty line before it; as many after it as a
        # probe needs let the last candidate be tried.
        window, base, at_end = b"", start, False
        searched = 0
        while True:
            while not at_end and len(window) < searched + SCAN_BYTES + PROBE_BYTES:
                part = stream.read(SCAN_BYTES)
                at_end = not part
                window += part
            scan_end = len(window) if at_end else len(window) - PROBE_BYTES
            for match in RECORD_START.finditer(window, searched, scan_end):
                if _is_record(window[match.start() : match.start() + PROBE_BYTES]):
                    return base + match.start()
            if at_end:
                return None
            dropped = scan_end - 16
            window, base, searched = window[dropped:], base + dropped, 8
    finally:
        stream.close()


def _is_record(window: bytes) -> bool:
    try:
        first = next(iter(ArchiveIterator(io.BytesIO(window), parse_http=False)), None)
    except OSError:
        return False
    return first is not None
