"""ARC, the Internet Archive's format before WARC: versions 1 and 2, plain or gzipped.

A record is a line, the document as it was fetched with its HTTP headers, and a newline:

    version 1   URL IP-address date content-type length
    version 2   URL IP-address date content-type status checksum location offset filename length

The first record of a file, `filedesc://…`, says which version it is; the lines show it themselves, so that reading can
begin at any record. URLs hold spaces at times. In `.arc.gz` each record is as a rule a gzip member of its own.

Source: M. Burner and B. Kahle, Arc File Format, Internet Archive 1996
(https://archive.org/web/researcher/ArcFileFormat.php).
"""

import contextlib
import re
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from ray_jobs.crawl.record import NOT_DOCUMENTS, End, Pass, Record, Source, clean_url

GZIP_MAGIC = b"\x1f\x8b"
READ_BYTES = 1 << 18
LINE_BYTES = 1 << 16
"""Longest line of a record that is looked for: the format sets no limit, URLs of servers end at some KiB."""
SALVAGED_BYTES = 32

# The URL is what stands before an address and a date; what comes after the content type differs by version.
_LINE = (
    rb"(?P<url>[A-Za-z][A-Za-z0-9+.-]*:[^\r\n]*?) (?P<address>[0-9A-Fa-f.:]+|-) (?P<date>\d{8,18}) (?P<rest>[^\r\n]*)"
)
LINE = re.compile(_LINE + rb"\r?\n?")
_ADDRESS_AND_DATE = rb" \d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3} \d{8,18} [^\r\n]*\d\r?\n"
RECORD_START = re.compile(rb"\x1f\x8b\x08|(?<=\n)[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\r\n]{0,8192}?" + _ADDRESS_AND_DATE)
HEADER_IN_BLOCK = re.compile(rb"\n[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\r\n]{0,8192}?" + _ADDRESS_AND_DATE)

_NUM_FIELDS = (2, 7)
"""Of version 1 and of version 2, after the date."""


@dataclass(frozen=True, slots=True)
class Header:
    """A record's line."""

    url: str
    date: str
    """As in `Record`."""
    content_type: str
    length: int | None
    """None where what stands there is no length."""

    @property
    def record_type(self) -> str:
        if self.url.startswith("filedesc:"):
            return "warcinfo"
        # Of dns: and the like there is no HTTP response.
        return "response" if self.url[:5].lower() in {"http:", "https"} else "resource"


def parse_header(line: bytes) -> Header | None:
    """None where this is no record's line."""
    match = LINE.fullmatch(line)
    fields = match["rest"].decode("utf-8", "replace").split() if match is not None else []
    if match is None or len(fields) < min(_NUM_FIELDS):
        return None
    length = int(fields[-1]) if fields[-1].isascii() and fields[-1].isdigit() and len(fields[-1]) < 19 else None
    # Content types such as "text/html; charset=x" are written with the space: fields are counted from the end.
    num_after = 1 if len(fields) < max(_NUM_FIELDS) else max(_NUM_FIELDS) - 1
    content_type = " ".join(fields[:-num_after]).lower()
    return Header(clean_url(match["url"].decode("utf-8", "replace")), _iso_date(match["date"]), content_type, length)


def _iso_date(digits: bytes) -> str:
    """From YYYYMMDDhhmmss; older archives write the day alone."""
    if len(digits) not in {8, 12, 14}:
        return ""
    padded = digits.decode().ljust(14, "0")
    year, month, day, hour, minute, second = padded[:4], *(padded[at : at + 2] for at in range(4, 14, 2))
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}Z"


def is_record(window: bytes) -> bool:
    """Whether a record begins where these bytes do."""
    if window.startswith(GZIP_MAGIC):
        window = _salvaged(zlib.decompressobj(zlib.MAX_WBITS | 16), window, LINE_BYTES)
    line = window[:LINE_BYTES].lstrip(b"\r\n").partition(b"\n")[0]
    return parse_header(line) is not None


class ArcPass(Pass):
    def __iter__(self) -> Iterator[Record]:
        source = Source(self._archive.open(self._start))
        try:
            yield from self._records(_Content(source, self._start))
        finally:
            source.close()

    def _records(self, content: "_Content") -> Iterator[Record]:
        while True:
            self.end = End.AFTER_RECORD_DAMAGE
            try:
                while content.skip_newline():
                    pass
                if content.is_at_end():
                    if not content.is_cut:
                        self.end = End.AT_END
                    return
                offset, header = content.offset(), parse_header(content.line())
            except zlib.error:
                return
            if header is None:
                return
            record = Record(self._rising(offset), header.record_type, header.url, header.content_type, b"")
            record.date = header.date
            fault = self._read_block(record, header.length, content)
            if fault is not None:
                self.end = fault
                yield record
                return
            yield record

    def _read_block(self, record: Record, length: int | None, content: "_Content") -> End | None:
        """What is wrong with it, if anything is."""
        if length is None:
            return End.IN_RECORD_DAMAGE
        is_kept = record.type not in NOT_DOCUMENTS and length <= self._max_block
        if not is_kept and record.type not in NOT_DOCUMENTS:
            record.fault = "too_large"
        try:
            if is_kept:
                record.block = content.take(length)
                received = len(record.block)
            else:
                received = content.skip(length)
            if received < length:
                return End.WITHIN_RECORD
            content.skip_newline()
            return content.end_of_record()
        except zlib.error:
            return End.IN_RECORD_DAMAGE


class _Content:
    """The archive's bytes from `start`, decompressed a piece at a time where they begin as gzip.

    What can be decompressed before damage is read first; then the methods raise zlib.error.
    """

    def __init__(self, source: Source, start: int):
        self._source = source
        self._raw, self._raw_offset = b"", start
        self._buffer, self._at, self._position = b"", 0, 0
        self._is_gzip: bool | None = None
        self._decoder: zlib._Decompress | None = None
        self._damage: zlib.error | None = None
        self._members: deque[tuple[int, int]] = deque()
        """Position here, and offset in the archive, of the member that is read and of those that are ready."""
        self._after_newline = False
        self.is_cut = False
        """The archive ends within a member."""

    def offset(self) -> int:
        """Where the record that begins here is stored; where it lies within a member, that of the member."""
        if not self._is_gzip:
            return self._raw_offset - (len(self._buffer) - self._at)
        return self._member()[1]

    def is_at_end(self) -> bool:
        return not self._has(1)

    def end_of_record(self) -> End | None:
        """What is wrong here, after a block and its newline; None where a record may begin, or nothing follows."""
        if self._fill(1):
            is_between = self._after_newline or (bool(self._is_gzip) and self._member()[0] == self._position + self._at)
            return None if is_between else End.LENGTH_WRONG
        # zlib gives all of a member before it finds that its checksum is wrong or missing. A later one is another's.
        if not self._members or self._members[-1][0] == self._position + self._at:
            return None
        if self._damage is not None:
            return End.IN_RECORD_DAMAGE
        return End.WITHIN_RECORD if self.is_cut else None

    def skip_newline(self) -> bool:
        self._after_newline = self._fill(1) and self._buffer[self._at] in b"\r\n"
        self._at += self._after_newline
        return self._after_newline

    def line(self) -> bytes:
        """Up to the newline, without it; what comes within `LINE_BYTES` where there is none."""
        size = 1 << 12
        while True:
            is_filled = self._fill(size)
            end = self._buffer.find(b"\n", self._at)
            if end >= 0 or not is_filled or size >= LINE_BYTES:
                break
            size *= 4
        if end < 0:
            self._has(LINE_BYTES)
            end = min(len(self._buffer), self._at + LINE_BYTES)
        line, self._at = self._buffer[self._at : end], min(len(self._buffer), end + 1)
        return line

    def take(self, size: int) -> bytes:
        """So many bytes, fewer at the end."""
        self._has(size)
        taken = self._buffer[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def skip(self, size: int) -> int:
        """Passes over so many bytes without holding them; says how many there were."""
        left = size
        while left and self._has(1):
            passed = min(left, len(self._buffer) - self._at)
            self._at += passed
            left -= passed
        return size - left

    def _has(self, size: int) -> bool:
        """As `_fill`, but where damage is why there are fewer it raises."""
        is_filled = self._fill(size)
        if not is_filled and self._damage is not None:
            raise self._damage
        return is_filled

    def _member(self) -> tuple[int, int]:
        """The one that holds the next byte."""
        while len(self._members) > 1 and self._members[1][0] <= self._position + self._at:
            self._members.popleft()
        return self._members[0]

    def _fill(self, size: int) -> bool:
        """Has so many bytes ready in the buffer, or says that there are not as many."""
        ready = len(self._buffer) - self._at
        if ready >= size:
            return True
        parts = [self._buffer[self._at :]]
        self._position += self._at
        while ready < size and (part := self._next(self._position + ready)) is not None:
            parts.append(part)
            ready += len(part)
        self._buffer, self._at = b"".join(parts), 0
        return ready >= size

    def _next(self, position: int) -> bytes | None:
        """Some more bytes (at times none), or None at the end or at damage."""
        if self._damage is not None:
            return None
        if not self._raw and not self._read_raw():
            self.is_cut = self._decoder is not None
            return None
        if self._is_gzip is None:
            if len(self._raw) < len(GZIP_MAGIC):
                self._read_raw()
            self._is_gzip = self._raw.startswith(GZIP_MAGIC)
        if not self._is_gzip:
            part, self._raw = self._raw, b""
            self._raw_offset += len(part)
            return part
        if self._decoder is None:
            self._members.append((position, self._raw_offset))
            self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
        before = self._decoder.copy()
        try:
            part = self._decoder.decompress(self._raw, READ_BYTES)
        except zlib.error as error:
            self._damage = error
            return _salvaged(before, self._raw, READ_BYTES)
        left = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
        self._raw_offset += len(self._raw) - len(left)
        self._raw = left
        if self._decoder.eof:
            self._decoder = None
        return part

    def _read_raw(self) -> bool:
        more = self._source.read(READ_BYTES)
        self._raw += more
        return bool(more)


def _salvaged(decoder: "zlib._Decompress", data: bytes, size: int) -> bytes:
    """What comes out before damage, which zlib gives only if it is asked in small pieces; at least `size`, if so."""
    parts, ready = [], 0
    with contextlib.suppress(zlib.error):
        for start in range(0, len(data), SALVAGED_BYTES):
            parts.append(decoder.decompress(data[start : start + SALVAGED_BYTES]))
            ready += len(parts[-1])
            if ready >= size:
                break
    return b"".join(parts)
