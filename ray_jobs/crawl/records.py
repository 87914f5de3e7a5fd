"""The records of an archive, in spite of what is wrong with it.

fastwarc reads gzip, zstd, lz4 and plain archives, fast, and stops at the first damage: it raises OSError where a member
does not decompress or a header does not parse, and where an archive breaks off it gives a shorter record without a
word. Here reading goes on at the next record that can be read, and every loss is a record with its offset and reason.

ARC, the format before WARC, fastwarc does not know: an archive that begins as one is read by `arc`.
"""

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from fastwarc import ArchiveIterator, WarcRecord

from ray_jobs.crawl import arc
from ray_jobs.crawl.record import NOT_DOCUMENTS, End, Pass, Record, Source, clean_date, clean_url
from ray_jobs.files.streams import Openable

__all__ = ["NOT_DOCUMENTS", "Faults", "Record", "read_records"]

# Where a record may begin: a member of gzip, zstd or lz4, or a plain record's version line after a record's end.
RECORD_START = re.compile(
    rb"\x1f\x8b\x08|\x28\xb5\x2f\xfd|\x04\x22\x4d\x18|(?<=\r\n\r\n)WARC/[01]\.|(?<=\n\n)WARC/[01]\."
)
HEADER_IN_BLOCK = re.compile(rb"\n\r?\nWARC/[01]\.")
SCAN_BYTES = 1 << 20
PROBE_BYTES = 1 << 17
"""A record's headers, at most 32 KiB of them, decompress from fewer."""


@dataclass
class Faults:
    """What was wrong with the archive as a whole."""

    truncated: int = 0
    """It ends within a record."""
    damaged: int = 0
    """Places where reading failed and went on further along, or could not."""
    not_warc: int = 0
    """Nothing in it can be read as a record of WARC or ARC."""
    empty: int = 0


@dataclass(frozen=True)
class Format:
    """How one kind of archive is read."""

    reading: Callable[[Openable, int, int, int], Pass]
    record_start: re.Pattern[bytes]
    """Where a record may begin, in the bytes as they are stored."""
    is_record: Callable[[bytes], bool]
    """Whether one does begin where these bytes do."""
    header_in_block: re.Pattern[bytes]
    """What shows in a block that reaches into the next record."""


def read_records(archive: Openable, max_bytes: int, faults: Faults) -> Iterator[Record]:
    """All records, in order, also those that cannot be used; `faults` is filled in on the way.

    A stretch that is too damaged to tell its records apart is one record of the type "unknown" with the fault
    `record_damaged`.

    Args:
        max_bytes: longer blocks are not read, but reported as `too_large`.

    Raises:
        whatever the archive's stream raises: a lost connection is no damage.
    """
    kind, start, offset, num_read = WARC, 0, -1, 0
    while True:
        reading = kind.reading(archive, start, max_bytes, offset)
        # The last record is held back: only how the pass ends tells whether it is sound.
        last: Record | None = None
        for record in reading:
            if last is not None:
                yield last
            last, offset = record, record.offset
            num_read += 1
        if reading.end is End.AT_END:
            if last is not None:
                yield last
            faults.empty += num_read == 0
            return
        if kind is WARC and num_read == 0 and start == 0 and _begins_as_arc(archive):
            kind = ARC
            continue
        following = _find_record(archive, offset + 1 if last is not None else start + 1, kind)
        if num_read == 0 and following is None:
            faults.not_warc += 1
            return
        if last is not None:
            _judge(last, reading.end, following, kind)
            yield last
        if reading.end is End.WITHIN_RECORD and following is None:
            faults.truncated += 1
        else:
            faults.damaged += 1
        if reading.end is End.AFTER_RECORD_DAMAGE and (last is None or last.fault != "record_length_wrong"):
            offset = max(offset + 1, start if last is None else 0)
            num_read += 1
            yield Record(offset, "unknown", "", "", b"", "record_damaged")
        if following is None:
            return
        start = following


def _judge(last: Record, end: End, following: int | None, kind: Format) -> None:
    """Gives the last record before a fault the reason why it cannot be used, if it cannot."""
    if end is End.IN_RECORD_DAMAGE:
        fault = "record_damaged"
    elif end is End.WITHIN_RECORD:
        # Its length reaches beyond records that follow it, or beyond the archive.
        fault = "record_truncated" if following is None else "record_length_wrong"
    elif end is End.LENGTH_WRONG or kind.header_in_block.search(last.block):
        fault = "record_length_wrong"
    else:
        return
    last.fault, last.block = fault, b""


class _WarcPass(Pass):
    """What fastwarc reads. Errors of Python's streams and damage alike it raises as OSError."""

    def __iter__(self) -> Iterator[Record]:
        source = Source(self._archive.open(self._start))
        try:
            yield from self._records(source)
        except OSError:
            if source.failure is not None:
                raise source.failure from None
            self.end = End.AFTER_RECORD_DAMAGE
        finally:
            source.close()

    def _records(self, source: Source) -> Iterator[Record]:
        for warc in ArchiveIterator(source, parse_http=False):
            record = self._describe(warc)
            declared = warc.content_length
            try:
                if record.type in NOT_DOCUMENTS:
                    received = warc.reader.consume()
                elif declared > self._max_block:
                    record.fault = "too_large"
                    received = warc.reader.consume()
                else:
                    record.block = warc.reader.read()
                    received = len(record.block)
            except OSError:
                if source.failure is not None:
                    raise
                self.end = End.IN_RECORD_DAMAGE
                yield record
                return
            if received < declared:
                self.end = End.WITHIN_RECORD
                yield record
                return
            yield record

    def _describe(self, warc: WarcRecord) -> Record:
        headers = warc.headers
        url = clean_url(headers.get("WARC-Target-URI") or "")
        content_type = (headers.get("Content-Type") or "").lower()
        offset, date = self._rising(warc.stream_pos), clean_date(headers.get("WARC-Date") or "")
        return Record(offset, str(warc.record_type), url, content_type, b"", date=date)


def _begins_as_arc(archive: Openable) -> bool:
    stream = archive.open()
    try:
        return arc.is_record(stream.read(PROBE_BYTES))
    finally:
        stream.close()


def _find_record(archive: Openable, start: int, kind: Format) -> int | None:
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
            for match in kind.record_start.finditer(window, searched, scan_end):
                if kind.is_record(window[match.start() : match.start() + PROBE_BYTES]):
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


WARC = Format(_WarcPass, RECORD_START, _is_record, HEADER_IN_BLOCK)
ARC = Format(arc.ArcPass, arc.RECORD_START, arc.is_record, arc.HEADER_IN_BLOCK)
