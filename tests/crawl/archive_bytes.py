"""Archives made for tests, byte by byte."""

import gzip
from pathlib import Path

from ray_jobs.crawl.records import Faults, Record, read_records
from ray_jobs.files.streams import LocalFile

PROSE = "The river carries the water of many small streams down to the mill and turns its wheel all day long. "
MAX_BYTES = 1 << 20


def page(text: str = PROSE * 12) -> bytes:
    return f"<!DOCTYPE html><html><head><title>t</title></head><body><main><p>{text}</p></main></body></html>".encode()


def http(body: bytes, *headers: str, status: str = "200 OK", content_type: str | None = "text/html") -> bytes:
    lines = [f"HTTP/1.1 {status}", *([f"Content-Type: {content_type}"] if content_type else []), *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def record(
    block: bytes,
    url: str = "http://a.example/",
    kind: str | None = "response",
    length: int | str | None = None,
    content_type: str = "application/http; msgtype=response",
) -> bytes:
    lines = ["WARC/1.0"]
    if kind is not None:
        lines.append(f"WARC-Type: {kind}")
    lines += [f"WARC-Target-URI: {url}", f"Content-Type: {content_type}"]
    lines.append(f"Content-Length: {len(block) if length is None else length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + block + b"\r\n\r\n"


def members(*records: bytes) -> bytes:
    return b"".join(gzip.compress(one, mtime=0) for one in records)


def numbered(count: int) -> list[bytes]:
    return [record(http(page(f"{index} {PROSE}")), f"http://a.example/{index}") for index in range(count)]


def read(tmp_path: Path, data: bytes, max_bytes: int = MAX_BYTES) -> tuple[list[Record], Faults]:
    path = tmp_path / "archive"
    path.write_bytes(data)
    faults = Faults()
    return list(read_records(LocalFile(path), max_bytes, faults)), faults


def urls(records: list[Record]) -> list[str]:
    """Last path segments of the records that can be used."""
    return [one.url.rpartition("/")[2] for one in records if one.fault is None]


def faulty(records: list[Record]) -> list[str]:
    return [one.fault for one in records if one.fault is not None]
