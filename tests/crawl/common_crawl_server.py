"""An HTTP server on 127.0.0.1 with Common Crawl's layout and Common Crawl's moods."""

import gzip
import hashlib
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep

CRAWL = "CC-MAIN-2026-43"


@dataclass(frozen=True)
class Answer:
    """What the next request for a path gets in place of the file."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Break:
    """The file, cut off after so many bytes of the answer's body: by a reset, or by an orderly close."""

    after: int
    reset: bool = True


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None


class CommonCrawlServer:
    """Files by path; `moods[path]` is played one a request before the file itself is served."""

    def __init__(self, files: Mapping[str, bytes]):
        self.files = dict(files)
        self.moods: dict[str, deque[Answer | Break]] = {}
        self.requests: list[Request] = []
        self.knows_ranges = True
        self.knows_head = True
        self.seconds_a_request = 0.0
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self.url = ""

    def play(self, path: str, *moods: Answer | Break) -> None:
        self.moods[path] = deque(moods)

    def asked_for(self, path: str, method: str = "GET") -> list[Request]:
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def think(self) -> None:
        """Takes its time over a request, counting how many it has before it."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        sleep(self.seconds_a_request)
        with self._lock:  # before the answer, after which the client may ask again
            self._at_once -= 1


def etag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    crawl: CommonCrawlServer

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.crawl.think()
        path = self.path.lstrip("/")
        self.crawl.requests.append(Request(self.command, path, self.headers.get("Range")))
        moods = self.crawl.moods.get(path)
        mood = moods.popleft() if moods else None
        if isinstance(mood, Answer):
            return self._answer(mood.status, b"", mood.headers)
        if self.command == "HEAD" and not self.crawl.knows_head:
            return self._answer(405, b"", {})
        data = self.crawl.files.get(path)
        if data is None:
            return self._answer(404, b"no such key", {})
        headers = {"ETag": etag_of(data), "Content-Type": "application/octet-stream"}
        wanted, status = self.headers.get("Range"), 200
        if self.headers.get("If-Match") not in {None, etag_of(data)}:
            return self._answer(412, b"", {})
        if wanted is not None and self.crawl.knows_ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1 if last else len(data), len(data))
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            data, status = data[int(first) : end], 206
        return self._answer(status, data, headers, mood)

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str], cut: Break | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body if cut is None else body[: cut.after])
        if cut is not None:
            self.wfile.flush()
            if cut.reset:
                sleep(0.2)  # a reset throws away what the other side has not read yet
                # SO_LINGER with no time makes close() send RST.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # clients go away: that is what is tested
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[CommonCrawlServer]:
    crawl = CommonCrawlServer(files)
    handler = type("Handler", (_Handler,), {"crawl": crawl})
    with _Server(("127.0.0.1", 0), handler) as server:
        crawl.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield crawl
        finally:
            server.shutdown()


def crawl_layout(archives: Mapping[str, Path], format: str) -> dict[str, bytes]:
    """The archives below crawl-data/<crawl>/segments/, and the listing that names them."""
    folder = f"crawl-data/{CRAWL}/segments/1730000000000.00/{format}"
    files = {f"{folder}/{name}": path.read_bytes() for name, path in archives.items()}
    listing = "".join(f"{name}\n" for name in files).encode()
    return {f"crawl-data/{CRAWL}/{format}.paths.gz": gzip.compress(listing, mtime=0), **files}
