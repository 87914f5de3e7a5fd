"""Writing WARC 1.0 (ISO 28500), a gzip member a record, so that the same exchange always gives the same bytes.

Record ids are UUIDs (version 5) of what the record is, dates are fixed, and gzip members carry no time.
"""

import base64
import hashlib
import uuid
import zlib

GZIP_WBITS = 31
COMPRESSION_LEVEL = 6


class WarcWriter:
    """Collects one archive in memory.

    Args:
        filename: the archive's name, written into its warcinfo record; part of all record ids.
        date: WARC-Date of every record, such as 2024-01-01T00:00:00Z.
        info: fields of the warcinfo record.
    """

    def __init__(self, filename: str, date: str, info: dict[str, str]):
        self._filename, self._date = filename, date
        self._members: list[bytes] = []
        self._info_id = self._record_id("warcinfo", filename)
        body = "".join(f"{name}: {value}\r\n" for name, value in info.items()).encode()
        self._add(
            [
                ("WARC-Type", "warcinfo"),
                ("WARC-Record-ID", self._info_id),
                ("WARC-Filename", filename),
                ("Content-Type", "application/warc-fields"),
            ],
            body,
        )

    def add_exchange(self, url: str, address: str, request: bytes, response_head: bytes, payload: bytes) -> None:
        """A request record and its response record.

        Args:
            address: IP address of the server.
            request, response_head: as they went over the wire, with the empty line that ends them.
            payload: the response's body, its content encodings kept.
        """
        request_id, response_id = self._record_id("request", url), self._record_id("response", url)
        shared = [("WARC-Target-URI", url), ("WARC-IP-Address", address), ("WARC-Warcinfo-ID", self._info_id)]
        self._add(
            [
                ("WARC-Type", "request"),
                ("WARC-Record-ID", request_id),
                *shared,
                ("WARC-Concurrent-To", response_id),
                ("Content-Type", "application/http; msgtype=request"),
            ],
            request,
        )
        self._add(
            [
                ("WARC-Type", "response"),
                ("WARC-Record-ID", response_id),
                *shared,
                ("WARC-Payload-Digest", digest(payload)),
                ("Content-Type", "application/http; msgtype=response"),
            ],
            response_head + payload,
        )

    def finish(self) -> bytes:
        """The whole archive."""
        return b"".join(self._members)

    def _record_id(self, kind: str, name: str) -> str:
        return f"<{uuid.uuid5(uuid.NAMESPACE_URL, f'{self._filename} {kind} {name}').urn}>"

    def _add(self, headers: list[tuple[str, str]], block: bytes) -> None:
        headers += [
            ("WARC-Date", self._date),
            ("WARC-Block-Digest", digest(block)),
            ("Content-Length", str(len(block))),
        ]
        head = "WARC/1.0\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
        compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, GZIP_WBITS)
        record = head.encode() + block + b"\r\n\r\n"
        self._members.append(compressor.compress(record) + compressor.flush())


def digest(data: bytes) -> str:
    """SHA-1 in base 32, the form that crawlers write."""
    return "sha1:" + base64.b32encode(hashlib.sha1(data, usedforsecurity=False).digest()).decode()
