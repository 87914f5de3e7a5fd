"""A proxy before a real S3 server that loses answers, cuts bodies and refuses requests as it is told."""

import contextlib
import http.client
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Faults:
    """What happens to the next requests of a method, in turn; then all is well again.

    A number is an HTTP status to answer with, without asking the server. "lost" asks the server and then closes the
    connection without an answer; "cut" sends half the body; "refused" closes it before asking.
    """

    planned: dict[str, deque[int | str]] = field(default_factory=dict)
    seen: list[tuple[str, int | str | None]] = field(default_factory=list)

    def plan(self, method: str, *faults: int | str) -> None:
        self.planned[method] = deque(faults)

    def next(self, method: str) -> int | str | None:
        waiting = self.planned.get(method)
        fault = waiting.popleft() if waiting else None
        self.seen.append((method, fault))
        return fault


@contextlib.contextmanager
def faulty_proxy(endpoint: str) -> Iterator[tuple[str, Faults]]:
    """The proxy's address, and the faults to plan."""
    faults = Faults()
    target = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = faults.next(self.command)
            if fault == "refused":
                self.close_connection = True
                return
            if isinstance(fault, int):
                code = "NotImplemented" if fault == 501 else f"Planned{fault}"
                answer = f"<Error><Code>{code}</Code><Message>planned</Message></Error>".encode()
                self._answer(fault, {"Content-Type": "application/xml"}, answer)
                return
            connection = http.client.HTTPConnection(target, timeout=30)
            connection.request(self.command, self.path, body, dict(self.headers))
            response = connection.getresponse()
            answer = response.read()
            connection.close()
            if fault == "lost":
                self.close_connection = True
                return
            headers = {name: value for name, value in response.getheaders() if name.lower() != "content-length"}
            cut = len(answer) // 2 if fault == "cut" else None
            self._answer(response.status, headers, answer, cut, response.getheader("Content-Length"))

        def _answer(
            self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None, length: str | None = None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() != "transfer-encoding":
                    self.send_header(name, value)
            self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])
            if cut is not None:
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass_on

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", faults
    finally:
        server.shutdown()
        server.server_close()
