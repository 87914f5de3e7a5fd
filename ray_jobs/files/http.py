"""The one HTTP client: patient with servers that are pressed, and strict about where it is sent.

Common Crawl's HTTPS answers 403 and 503 when it is asked too fast. Such answers, 429, other 5xx and lost connections
are tried again: exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture
Blog, 2015), no sooner than Retry-After says, for all threads of a client together, within a budget of attempts and
time.
"""

import contextlib
import email.utils
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC
from functools import cache

import httpx

from ray_jobs.files.resuming import Changed, ResumingReader

# 403 is how Common Crawl's CDN refuses a client that asks too fast; 408 and 425 ask to be tried again by definition.
RETRIED_STATUSES = frozenset({403, 408, 425, 429, 500, 502, 503, 504})
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
MAX_REDIRECTS = 5
USER_AGENT = "headrace/0.1 (corpus reader; one archive a connection)"


@dataclass(frozen=True)
class Patience:
    """How long one request is tried."""

    attempts: int = 10
    base_s: float = 0.5
    """The n-th wait is drawn evenly from 0 to base_s · 2ⁿ, at most cap_s."""
    cap_s: float = 60.0
    budget_s: float = 900.0
    """Seconds from the first attempt after which no other is begun."""


@dataclass(frozen=True)
class Resource:
    """What a server says of a file."""

    url: str
    """Without the redirects that led to it."""
    size: int
    etag: str | None


class Refused(ValueError):
    """The server's answer, or where it sends us, is one that waiting does not mend."""


class Unavailable(ConnectionError):
    """The server did not answer as it should within the patience there was."""


class HttpClient:
    """Thread-safe. At most `max_connections` requests are under way at once."""

    def __init__(
        self,
        allowed_hosts: tuple[str, ...] = (),
        patience: Patience | None = None,
        max_connections: int = 8,
        timeout_s: float = 30.0,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._patience = patience or Patience()
        self._places = threading.BoundedSemaphore(max_connections)
        self._sleep = sleep
        self._not_before = 0.0
        self._lock = threading.Lock()
        # Spread over clients, which would otherwise come back together; it decides no output.
        self._random = random.Random()
        self._client = httpx.Client(
            verify=_tls(),
            timeout=httpx.Timeout(timeout_s, connect=10.0),
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
            follow_redirects=False,
            # Proxies of the environment are for the world outside, never for this machine.
            mounts={"all://127.0.0.1": None, "all://localhost": None},
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
        )

    def __enter__(self) -> "HttpClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def describe(self, url: str) -> Resource:
        """Size and entity tag of the file, by HEAD; by a one-byte GET where a server does not answer HEAD.

        Raises:
            Refused: 4xx that are not tried again, a redirect that is not allowed, no size.
            Unavailable: the budget is spent.
        """
        with self._places:
            response = self._patiently("HEAD", url, {})
            response.close()
            if response.status_code in {405, 501}:
                response = self._patiently("GET", url, {"Range": "bytes=0-0"})
                response.close()
        size = _total_size(response)
        if size is None:
            raise Refused(
                f"{url} does not tell its size (neither Content-Length nor Content-Range): it cannot be pinned. "
                "Download it and name the file"
            )
        return Resource(url, size, response.headers.get("ETag"))

    def open(self, resource: Resource, start: int = 0) -> ResumingReader:
        """The file's bytes from `start` as a stream that goes on after lost connections.

        Raises:
            Changed: size or etag are not those of `resource`.
            Refused, Unavailable: as `describe`. All of them come while reading.
        """
        return ResumingReader(
            lambda position: self._body(resource, position),
            resource.size,
            start,
            lost=(httpx.TransportError,),
            attempts=self._patience.attempts,
            wait=lambda attempt: self._sleep(self._backoff(attempt)),
            name=resource.url,
        )

    def fetch(self, url: str, headers: dict[str, str] | None = None) -> tuple[httpx.Response, bytes]:
        """One exchange as it went over the wire, for a crawler: any status, no redirect followed, body not decoded."""
        with self._places, self._client.stream("GET", url, headers=headers) as response:
            return response, b"".join(response.iter_raw())

    def _body(self, resource: Resource, start: int) -> Iterator[bytes]:
        """The body from `start`. Its connection is given back when the iterator ends or is closed."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and resource.etag is not None and not resource.etag.startswith("W/"):
            headers["If-Match"] = resource.etag

        if start >= resource.size:
            return
        with self._places:
            response = self._patiently("GET", resource.url, headers)
            with contextlib.closing(response):
                _check_unchanged(resource, response)
                # A server that knows no ranges begins anew.
                skip = start if response.status_code == 200 else 0
                for chunk in response.iter_raw():
                    if skip >= len(chunk):
                        skip -= len(chunk)
                        continue
                    yield chunk[skip:] if skip else chunk
                    skip = 0

    def _patiently(self, method: str, url: str, headers: dict[str, str]) -> httpx.Response:
        """Asks until there is an answer that more waiting would not better. Its body is unread, and to be closed."""
        began = time.monotonic()
        for attempt in range(self._patience.attempts):
            self._wait_for_turn()
            retry_after = None
            try:
                response = self._follow(method, url, headers)
            except httpx.TransportError as error:
                complaint = f"{type(error).__name__}: {error}"
            else:
                if response.status_code not in RETRIED_STATUSES:
                    _refuse(url, response)
                    return response
                complaint = f"status {response.status_code}"
                retry_after = retry_after_s(response.headers.get("Retry-After"), time.time())
                response.close()
            delay = max(self._backoff(attempt), retry_after or 0.0)
            spent = time.monotonic() - began
            if attempt + 1 == self._patience.attempts or spent + delay > self._patience.budget_s:
                raise Unavailable(_advice(url, complaint, attempt + 1, spent, retry_after))
            if retry_after is not None:
                with self._lock:
                    self._not_before = max(self._not_before, time.monotonic() + retry_after)
            self._sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def _follow(self, method: str, url: str, headers: dict[str, str]) -> httpx.Response:
        """One request, and the redirects that it is allowed to follow."""
        target = httpx.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            response = self._client.send(self._client.build_request(method, target, headers=headers), stream=True)
            if response.status_code not in REDIRECT_STATUSES or "Location" not in response.headers:
                return response
            response.close()
            following = target.join(response.headers["Location"])
            self._check_redirect(target, following)
            target = following
        raise Refused(f"{url} redirects more than {MAX_REDIRECTS} times: look at its server, or name another URL")

    def _check_redirect(self, source: httpx.URL, target: httpx.URL) -> None:
        if target.scheme not in {"http", "https"}:
            raise Refused(f"{source} redirects to {target}: only http and https are followed")
        if source.scheme == "https" and target.scheme == "http":
            raise Refused(f"{source} redirects to unencrypted {target}: name the URL that you mean")
        if (target.host, target.port) != (
            source.host,
            source.port,
        ) and target.host.lower() not in self._allowed_hosts:
            raise Refused(
                f"{source} redirects to another host, {target.host}: if you trust it, name it in "
                "allowed_hosts beside the URL"
            )

    def _backoff(self, attempt: int) -> float:
        longest = min(self._patience.cap_s, self._patience.base_s * 2**attempt)
        return self._random.uniform(0.0, longest)

    def _wait_for_turn(self) -> None:
        with self._lock:
            wait = self._not_before - time.monotonic()
        if wait > 0:
            self._sleep(wait)


@cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates takes 22 ms, once a process."""
    return httpx.create_ssl_context()


def retry_after_s(value: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header (RFC 9110, 10.2.3: seconds, or an HTTP date), None if there is none.

    Args:
        now: seconds since 1970, which a date is counted from.
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        date = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now)


def _check_unchanged(resource: Resource, response: httpx.Response) -> None:
    if response.status_code == 412:
        raise Changed(resource.url, "its etag is another one")
    size, etag = _total_size(response), response.headers.get("ETag")
    if size is not None and size != resource.size:
        raise Changed(resource.url, f"it has {size} bytes, pinned were {resource.size}")
    if None not in (resource.etag, etag) and etag != resource.etag:
        raise Changed(resource.url, f"its etag is {etag}, pinned was {resource.etag}")


def _total_size(response: httpx.Response) -> int | None:
    if response.status_code == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = response.headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _refuse(url: str, response: httpx.Response) -> None:
    status = response.status_code
    if status in {200, 206, 405, 412, 501}:
        return
    response.close()
    if status in {404, 410}:
        raise Refused(
            f"{url} does not exist (status {status}): check it, for Common Crawl the crawl's name and base_url"
        )
    if status == 401:
        raise Refused(f"{url} wants credentials (status 401): name files that can be read without, or use s3://")
    raise Refused(f"{url} answered with status {status}: check the URL")


def _advice(url: str, complaint: str, attempts: int, spent: float, retry_after: float | None) -> str:
    message = f"{url} was not served in {attempts} attempts over {spent:.0f} s (last: {complaint})"
    if retry_after is not None:
        message += f"; the server asks to come back in {retry_after:.0f} s"
    if "403" in complaint:
        message += ". It is a name that does not exist or too many requests: check the name, lower resources.workers"
    return message + ", and run again later: what is done is kept"
