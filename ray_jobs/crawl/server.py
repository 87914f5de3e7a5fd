"""A small HTTP server for one machine: the documentation site's pages, on 127.0.0.1 while they are crawled."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from ray_jobs.crawl.site import Page

SERVER = "headrace-docs/1"
DATE = "Mon, 01 Jan 2024 00:00:00 GMT"
"""On every answer, so that what is archived is the same on every day."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A crawler asks for the next page when it has the last: with Nagle's algorithm each waits 40 ms for an ACK.
    disable_nagle_algorithm = True
    wbufsize = -1
    pages: dict[str, Page]

    def do_GET(self) -> None:
        page = self.pages.get(urlsplit(self.path).path)
        body = b"not found\n" if page is None else page.body
        self.send_response(HTTPStatus.NOT_FOUND if page is None else HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain" if page is None else page.content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return SERVER

    def date_time_string(self, timestamp: float | None = None) -> str:
        return DATE

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(pages: Iterable[Page]) -> Iterator[str]:
    """Serves the pages while the context lasts; gives the address, such as http://127.0.0.1:41234."""
    handler = type("Handler", (_Handler,), {"pages": {page.path: page for page in pages}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
