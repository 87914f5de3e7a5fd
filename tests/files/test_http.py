"""The HTTP client against a server that is pressed, forgetful or malicious."""

import email.utils
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ray_jobs.files.http import HttpClient, Patience, Refused, Resource, Unavailable, retry_after_s
from ray_jobs.files.resuming import Changed
from tests.crawl.common_crawl_server import Answer, Break, CommonCrawlServer, serving

DATA = bytes(range(256)) * 8000  # 2 MB, each position recognisable
QUICK = Patience(attempts=6, base_s=0.002, cap_s=0.01, budget_s=30)


@pytest.fixture
def server() -> Iterator[CommonCrawlServer]:
    with serving({"a.gz": DATA, "b.gz": b"other"}) as server:
        yield server


def client_of(slept: list[float] | None = None, **options: object) -> HttpClient:
    """A client whose waits are recorded, not waited."""
    record = [] if slept is None else slept
    return HttpClient(**{"patience": QUICK, "sleep": record.append, **options})


@pytest.mark.parametrize("status", [403, 429, 500, 502, 503, 504])
def test_a_pressed_server_is_asked_again(server: CommonCrawlServer, status: int) -> None:
    server.play("a.gz", Answer(status), Answer(status))
    with client_of() as client:
        assert client.describe(f"{server.url}/a.gz").size == len(DATA)
    assert len(server.asked_for("a.gz", "HEAD")) == 3


@pytest.mark.parametrize("status", [400, 401, 404, 410, 451])
def test_an_answer_that_waiting_does_not_mend_is_not_asked_for_again(server: CommonCrawlServer, status: int) -> None:
    server.play("a.gz", Answer(status))
    with client_of() as client, pytest.raises(Refused, match=r"a\.gz .*status " + str(status)):
        client.describe(f"{server.url}/a.gz")
    assert len(server.requests) == 1


def test_retry_after_in_seconds_is_the_least_wait(server: CommonCrawlServer) -> None:
    slept: list[float] = []
    server.play("a.gz", Answer(503, {"Retry-After": "7"}))
    with client_of(slept) as client:
        client.describe(f"{server.url}/a.gz")
    assert max(slept) >= 7


def test_retry_after_as_a_date_is_the_least_wait(server: CommonCrawlServer) -> None:
    slept: list[float] = []
    server.play("a.gz", Answer(429, {"Retry-After": email.utils.formatdate(time.time() + 20, usegmt=True)}))
    with client_of(slept) as client:
        client.describe(f"{server.url}/a.gz")
    assert 17 < max(slept) <= 20


def test_retry_after_holds_back_other_requests_of_the_client(server: CommonCrawlServer) -> None:
    slept: list[float] = []
    server.play("a.gz", Answer(503, {"Retry-After": "9"}))
    with client_of(slept) as client:
        client.describe(f"{server.url}/a.gz")
        slept.clear()
        client.describe(f"{server.url}/b.gz")
    assert slept and 8 < slept[0] <= 9


def test_retry_after_that_says_nothing_is_ignored() -> None:
    assert retry_after_s(None, 0) is None
    assert retry_after_s("soon", 0) is None
    assert retry_after_s("-3", 0) is None
    assert retry_after_s("Thu, 01 Jan 1970 00:00:10 GMT", 4) == 6
    assert retry_after_s("Thu, 01 Jan 1970 00:00:10 GMT", 400) == 0


def test_backoff_grows_with_full_jitter(server: CommonCrawlServer) -> None:
    slept: list[float] = []
    patience = Patience(attempts=12, base_s=1.0, cap_s=16.0, budget_s=1e9)
    server.play("a.gz", *[Answer(503)] * 11)
    with client_of(slept, patience=patience) as client:
        client.describe(f"{server.url}/a.gz")
    assert len(slept) == 11
    assert all(0 <= wait <= min(16.0, 2.0**attempt) for attempt, wait in enumerate(slept))
    assert len(set(slept)) == 11


def test_attempts_are_bounded_and_the_error_says_what_to_do(server: CommonCrawlServer) -> None:
    server.play("a.gz", *[Answer(403)] * 99)
    with client_of() as client, pytest.raises(Unavailable, match=r"6 attempts.*403.*lower resources\.workers"):
        client.describe(f"{server.url}/a.gz")
    assert len(server.requests) == QUICK.attempts


def test_a_wait_beyond_the_budget_is_not_begun(server: CommonCrawlServer) -> None:
    slept: list[float] = []
    server.play("a.gz", Answer(503, {"Retry-After": "3600"}))
    with client_of(slept) as client, pytest.raises(Unavailable, match="come back in 3600 s"):
        client.describe(f"{server.url}/a.gz")
    assert slept == []


def test_a_server_that_is_not_there_is_unavailable() -> None:
    with client_of() as client, pytest.raises(Unavailable, match="ConnectError"):
        client.describe("http://127.0.0.1:9/a.gz")


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "orderly close"])
def test_a_download_goes_on_where_it_broke_off(server: CommonCrawlServer, reset: bool) -> None:
    server.play("a.gz", Break(700_000, reset), Answer(503), Break(300_000, reset))
    resource = Resource(f"{server.url}/a.gz", len(DATA), None)
    with client_of() as client:
        reader = client.open(resource)
        assert reader.read() == DATA
        reader.close()
    ranges = [request.range for request in server.asked_for("a.gz")]
    assert ranges[0] is None
    starts = [int(value.removeprefix("bytes=").removesuffix("-")) for value in ranges[1:] if value]
    assert starts == [700_000, 700_000, 1_000_000]


def test_a_server_without_ranges_is_read_again_from_the_front(server: CommonCrawlServer) -> None:
    server.knows_ranges = False
    server.play("a.gz", Break(900_000, reset=False))
    with client_of() as client:
        reader = client.open(Resource(f"{server.url}/a.gz", len(DATA), None), start=1000)
        assert reader.read() == DATA[1000:]
        reader.close()


def test_reads_are_of_the_size_asked_for(server: CommonCrawlServer) -> None:
    with client_of() as client:
        reader = client.open(client.describe(f"{server.url}/a.gz"), start=5)
        assert [reader.read(10), reader.read(300_000)] == [DATA[5:15], DATA[15:300_015]]
        assert reader.tell() == 300_015
        reader.close()


def test_a_connection_that_always_breaks_is_given_up(server: CommonCrawlServer) -> None:
    server.play("a.gz", *[Break(0)] * 50)
    with client_of() as client, pytest.raises(ConnectionError, match="broke off 6 times at byte 0"):
        client.open(Resource(f"{server.url}/a.gz", len(DATA), None)).read()


def test_a_changed_file_is_refused(server: CommonCrawlServer) -> None:
    with client_of() as client:
        pinned = client.describe(f"{server.url}/a.gz")
        server.files["a.gz"] = DATA[:-1] + b"?"
        with pytest.raises(Changed, match=r"a\.gz changed since it was pinned: its etag is .*--refresh"):
            client.open(pinned).read()
        server.files["a.gz"] = DATA[:-1]
        with pytest.raises(Changed, match="it has 2047999 bytes, pinned were 2048000"):
            client.open(pinned).read()


def test_a_file_that_changes_while_it_is_read_is_refused(server: CommonCrawlServer) -> None:
    server.play("a.gz", Break(700_000, reset=False))
    with client_of() as client:
        pinned = Resource(f"{server.url}/a.gz", len(DATA), None)
        pinned = Resource(pinned.url, pinned.size, client.describe(f"{server.url}/a.gz").etag)
        server.play("a.gz", Break(700_000, reset=False))
        reader = client.open(pinned)
        reader.read(1000)
        server.files["a.gz"] = DATA[::-1]
        with pytest.raises(Changed):
            reader.read()


def test_size_comes_by_a_ranged_get_where_head_is_not_known(server: CommonCrawlServer) -> None:
    server.knows_head = False
    with client_of() as client:
        assert client.describe(f"{server.url}/a.gz").size == len(DATA)
    assert server.asked_for("a.gz")[0].range == "bytes=0-0"


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost:{port}/b.gz",
        "http://127.0.0.1:1/b.gz",
        "//metadata.internal/b.gz",
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/b.gz",
    ],
)
def test_a_redirect_to_another_host_port_or_scheme_is_refused(server: CommonCrawlServer, target: str) -> None:
    port = server.url.rpartition(":")[2]
    server.play("a.gz", Answer(302, {"Location": target.format(port=port)}))
    with client_of() as client, pytest.raises(Refused, match="redirects to"):
        client.describe(f"{server.url}/a.gz")
    assert server.asked_for("b.gz", "HEAD") == []


def test_a_redirect_on_the_same_host_is_followed(server: CommonCrawlServer) -> None:
    server.play("a.gz", Answer(301, {"Location": "/b.gz"}))
    with client_of() as client:
        resource = client.describe(f"{server.url}/a.gz")
    assert (resource.url, resource.size) == (f"{server.url}/a.gz", 5)


def test_a_redirect_to_an_allowed_host_is_followed(server: CommonCrawlServer) -> None:
    port = server.url.rpartition(":")[2]
    server.play("a.gz", Answer(307, {"Location": f"http://localhost:{port}/b.gz"}))
    with client_of(allowed_hosts=("localhost",)) as client:
        assert client.describe(f"{server.url}/a.gz").size == 5


def test_redirects_in_a_circle_end(server: CommonCrawlServer) -> None:
    server.play("a.gz", *[Answer(302, {"Location": "/a.gz"})] * 50)
    with client_of() as client, pytest.raises(Refused, match="more than 5 times"):
        client.describe(f"{server.url}/a.gz")


def test_requests_under_way_are_bounded(server: CommonCrawlServer) -> None:
    server.seconds_a_request = 0.03
    with client_of(max_connections=3) as client, ThreadPoolExecutor(12) as pool:
        sizes = list(pool.map(lambda _: client.describe(f"{server.url}/a.gz").size, range(24)))
    assert sizes == [len(DATA)] * 24
    assert server.most_at_once == 3


def test_closing_a_reader_gives_its_connection_back(server: CommonCrawlServer) -> None:
    with client_of(max_connections=1) as client:
        for _ in range(3):
            reader = client.open(Resource(f"{server.url}/a.gz", len(DATA), None))
            reader.read(10)
            reader.close()
        done = threading.Event()
        threading.Thread(target=lambda: (client.describe(f"{server.url}/b.gz"), done.set()), daemon=True).start()
        assert done.wait(5)
