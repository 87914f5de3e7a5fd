"""From a record's block to HTML or text: HTTP headers, transfer and content encodings, characters.

Servers and crawlers lie: bodies are called chunked or gzipped that are not (or no longer), and lengths are wrong. What
the bytes themselves show is believed before what the headers say. Decoding stops at a limit, so that a body which
unfolds to gigabytes costs no more than that.
"""

import io
import re
import zlib
from dataclasses import dataclass

from fastwarc.stream_io import BrotliReader, ZstdReader
from resiliparse.parse.encoding import bytes_to_str, detect_encoding, detect_mime, map_encoding_to_html5

STATUS_LINE = re.compile(rb"(?:HTTP/\d+(?:\.\d+)?|ICY) +(\d{3})\b")
HEADER_END = re.compile(rb"\r?\n\r?\n")
CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)")

HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# PDF, PNG, GIF, JPEG, ZIP (and office files): often served as text/html.
BINARY_MAGIC = (b"%PDF-", b"\x89PNG", b"GIF8", b"\xff\xd8\xff", b"PK\x03\x04")
DETECTED_BYTES = 1 << 16
"""Of a page whose encoding nobody names, so many bytes are looked at."""


class Undecodable(Exception):
    """The body cannot become a page; `reason` is what the audit counts."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class HttpResponse:
    status: int | None
    """None where there is no status line."""
    headers: dict[str, str]
    """Names in lower case; of repeated ones the last."""
    body: bytes


def parse_http(block: bytes) -> HttpResponse:
    """Splits a block into status, headers and body, as leniently as a browser.

    A block without a status line is all body: some crawlers store pages that way.
    """
    status = STATUS_LINE.match(block)
    if status is None:
        return HttpResponse(None, {}, block)
    end = HEADER_END.search(block)
    head, body = (block, b"") if end is None else (block[: end.start()], block[end.end() :])
    headers: dict[str, str] = {}
    name = ""
    for line in head.decode("latin-1").splitlines()[1:]:
        if line[:1] in " \t" and name:  # a folded line goes on with the value before it
            headers[name] += " " + line.strip()
            continue
        name, _, value = line.partition(":")
        name = name.strip().lower()
        headers[name] = value.strip()
    return HttpResponse(int(status.group(1)), headers, body)


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_html(content_type: str, body: bytes) -> bool:
    """Whether the body is HTML, by what it is called; by its first bytes where it is called nothing."""
    if body.startswith(BINARY_MAGIC):
        return False
    named = media_type(content_type)
    return named in HTML_TYPES or (not named and detect_mime(body[:1024]) == "text/html")


def decode_body(body: bytes, headers: dict[str, str], max_bytes: int) -> bytes:
    """Undoes transfer and content encodings.

    Raises:
        Undecodable: `too_large` beyond `max_bytes`, `encoding_damaged` where nothing can be decoded.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = join_chunks(body)
    encodings = headers.get("content-encoding", "").lower().split(",")
    for encoding in reversed(encodings):
        body = _decode(body, encoding.strip(), max_bytes)
    if len(body) > max_bytes:
        raise Undecodable("too_large")
    return body


def join_chunks(body: bytes) -> bytes:
    """The content of a chunked body (RFC 9112, 7.1).

    A body that does not begin with a chunk is returned as it is: a crawler joined its chunks and left the header. A
    body whose chunks go wrong later ends there.
    """
    parts, position = [], 0
    while size := CHUNK_SIZE.match(body, position):
        length = int(size.group(1), 16)
        if length == 0:
            break
        parts.append(body[size.end() : size.end() + length])
        position = size.end() + length
        position += 2 if body[position : position + 2] == b"\r\n" else body[position : position + 1] == b"\n"
    return b"".join(parts) if position else body


def _decode(body: bytes, encoding: str, max_bytes: int) -> bytes:
    if encoding in {"gzip", "x-gzip"}:
        return _inflate(body, zlib.MAX_WBITS | 16, max_bytes) if body.startswith(GZIP_MAGIC) else body
    if encoding == "deflate":
        # RFC 9110 means zlib's format; some servers send raw deflate.
        wbits = zlib.MAX_WBITS if len(body) > 1 and (body[0] * 256 + body[1]) % 31 == 0 else -zlib.MAX_WBITS
        return body if _looks_like_text(body) else _inflate(body, wbits, max_bytes)
    if encoding == "br":
        return body if _looks_like_text(body) else _read(BrotliReader(io.BytesIO(body)), max_bytes)
    if encoding == "zstd":
        return _read(ZstdReader(io.BytesIO(body)), max_bytes) if body.startswith(ZSTD_MAGIC) else body
    return body  # identity, or a name that means nothing, such as "utf-8"


def _looks_like_text(body: bytes) -> bool:
    return body[:256].lstrip().startswith(b"<")


def _inflate(body: bytes, wbits: int, max_bytes: int) -> bytes:
    """What zlib can make of the body: all its members, up to damage or an early end."""
    parts, size = [], 0
    while body:
        decoder = zlib.decompressobj(wbits)
        try:
            part = decoder.decompress(body, max_bytes + 1 - size)
        except zlib.error:
            break
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise Undecodable("too_large")
        # gzip allows members one after another; zeros or anything else behind the last one are padding.
        body = decoder.unused_data if decoder.unused_data.startswith(GZIP_MAGIC) else b""
    if size == 0:
        raise Undecodable("encoding_damaged")
    return b"".join(parts)


def _read(reader: BrotliReader | ZstdReader, max_bytes: int) -> bytes:
    try:
        body = reader.read(max_bytes + 1)
    except OSError as error:
        raise Undecodable("encoding_damaged") from error
    if len(body) > max_bytes:
        raise Undecodable("too_large")
    return body


def decode_text(body: bytes, content_type: str) -> str:
    """The body's characters, NULs removed; bytes that are none become U+FFFD.

    Valid UTF-8 is UTF-8, whatever it is called: text in another encoding is practically never valid by chance. Else
    the byte order mark, the Content-Type, the page's <meta> and its statistics are asked, in this order.
    """
    if b"\0" in body and not body.startswith((b"\xff\xfe", b"\xfe\xff")) and "utf-16" not in content_type.lower():
        body = body.replace(b"\0", b"")
    if b"\x1b" not in body:  # ISO-2022 encodings are ASCII with escapes
        try:
            return body.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    encoding = _encoding_of(body, content_type)
    return bytes_to_str(body, encoding, errors="replace", fallback_encodings=()).replace("\0", "")


def _encoding_of(body: bytes, content_type: str) -> str:
    if body.startswith(b"\xff\xfe"):
        return "utf-16-le"
    if body.startswith(b"\xfe\xff"):
        return "utf-16-be"
    named = CHARSET.search(content_type.lower())
    if named is not None:
        encoding = map_encoding_to_html5(named.group(1), fallback_utf8=False)
        if encoding is not None:
            return encoding
    encoding = detect_encoding(body, max_len=DETECTED_BYTES, from_html_meta=True) or "utf-8"
    if encoding == "utf-8" and detect_encoding(body, DETECTED_BYTES, html5_compatible=False) == "mac-cyrillic":
        # Which the web does not use: the detector takes Russian in windows-1251 for it, whose small letters are the
        # same, and replaces it by UTF-8 for browsers' sake.
        return "cp1251"
    return encoding
