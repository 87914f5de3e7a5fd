"""Crawling the documentation site into an archive: real requests to a real server, on this machine."""

from ray_jobs.crawl.server import serving
from ray_jobs.crawl.site import HOST, Page
from ray_jobs.crawl.warc import WarcWriter
from ray_jobs.files.http import HttpClient

DATE = "2024-01-01T00:00:00Z"
USER_AGENT = "headrace-crawler/1"


def crawl(pages: list[Page], filename: str) -> bytes:
    """Serves the pages on 127.0.0.1, fetches each and returns the gzipped WARC.

    The server's port, which differs from run to run, is in no record: requests name the site's own host.
    """
    writer = WarcWriter(
        filename,
        DATE,
        {
            "software": USER_AGENT,
            "format": "WARC File Format 1.0",
            "description": "Documentation of the Python environment that this archive was made in",
        },
    )
    headers = {"Host": HOST, "User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}
    with serving(pages) as address, HttpClient(max_connections=1) as client:
        for page in pages:
            response, body = client.fetch(address + page.path, headers)
            request = _head(f"GET {page.path} HTTP/1.1", list(headers.items()))
            status_line = f"HTTP/1.1 {response.status_code} {response.reason_phrase}"
            received = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
            writer.add_exchange(page.url, "127.0.0.1", request, _head(status_line, received), body)
    return writer.finish()


def _head(first_line: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [first_line, *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
