"""What a store really guarantees: races against it, and what its requests cost.

The protocol rests on one thing: of several writers that create an object, one wins. Servers exist that accept the
request and ignore its condition, so it is tried, not believed.
"""

import functools
import multiprocessing
import secrets
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass

from ray_jobs.checkpoint.refs import RefMoved, move_ref, read_log
from ray_jobs.checkpoint.shards import Record
from ray_jobs.checkpoint.store import Store

NUM_WRITERS = 32
ROUNDS = 3
FEW_WRITERS = 8  # enough to catch a server that ignores the condition: all win there
NUM_PROCESSES = 4
PROCESS_ROUNDS = 50
START_SECONDS = 60.0
TIMED_REQUESTS = 15
# The verdict is kept in the store; another version of the test tries again.
VERDICT = "doctor/create-only-1.json"


@dataclass(frozen=True)
class Finding:
    """One property of the store."""

    name: str
    holds: bool
    detail: str
    """What was tried and seen; where it does not hold, what to do."""


class Verdict(Record):
    """That a store was found to let one writer win; kept so that not every run tries it again."""

    one_wins: bool
    detail: str
    tried: float
    """Seconds since 1970."""
    nonce: str


@dataclass(frozen=True)
class Scratch:
    """A folder of this examination only."""

    store: Store
    folder: str

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"


def examine(store: Store) -> list[Finding]:
    """Tries what the protocol needs of the store, and leaves nothing behind but the verdict.

    Raises:
        StoreError: the store cannot be reached or written at all.
    """
    scratch = Scratch(store, f"doctor/{secrets.token_hex(8)}")
    try:
        create_only = [_create_only(scratch)]
        if store.local_path("x") is not None:
            create_only.append(_create_only_between_processes(scratch))
        tries = [_compare_and_swap, _read_after_write, _list_after_write, _deletes, _ranges, _latencies]
        findings = create_only + [attempt(scratch) for attempt in tries]
    finally:
        _clean(scratch)
    _keep_verdict(store, create_only)
    return findings


def require_create_only(store: Store) -> None:
    """Refuses a store on which several runs could corrupt one another. Tried once a store, then remembered in it.

    Raises:
        ValueError: several writers won a create-only race.
    """
    data = store.get(VERDICT)
    if data is None:
        scratch = Scratch(store, f"doctor/{secrets.token_hex(8)}")
        try:
            verdict = _keep_verdict(store, [_create_only(scratch, FEW_WRITERS, rounds=1)])
        finally:
            _clean(scratch)
    else:
        verdict = Verdict.model_validate_json(data)
    if not verdict.one_wins:
        raise ValueError(f"{store.url} cannot be shared: {verdict.detail}")


def _keep_verdict(store: Store, findings: list[Finding]) -> Verdict:
    failed = [finding for finding in findings if not finding.holds]
    verdict = Verdict(
        one_wins=not failed, detail=(failed or findings)[0].detail, tried=time.time(), nonce=secrets.token_hex(8)
    )
    store.put(VERDICT, verdict.to_json())
    return verdict


def _clean(scratch: Scratch) -> None:
    scratch.store.delete([entry.path for entry in list(scratch.store.list(f"{scratch.folder}/"))])


def _race(num_writers: int, attempt: Callable[[int], bool]) -> list[int]:
    """The writers that think that they won, all starting at once."""
    barrier = threading.Barrier(num_writers)

    def run(writer: int) -> bool:
        barrier.wait()
        return attempt(writer)

    with ThreadPoolExecutor(num_writers) as pool:
        return [writer for writer, won in enumerate(pool.map(run, range(num_writers))) if won]


def _create_only(scratch: Scratch, num_writers: int = NUM_WRITERS, rounds: int = ROUNDS) -> Finding:
    wins = []
    for number in range(rounds):
        path = scratch.path(f"create/{number}")
        winners = _race(num_writers, functools.partial(_create, scratch.store, path))
        # One who was told that he won, while another's bytes stand, did not win.
        wins.append(sum(scratch.store.get(path) == _content(writer) for writer in winners[:1]) + len(winners[1:]))
    return _one_wins("create-only", f"{num_writers} threads", wins)


def _create(store: Store, path: str, writer: int) -> bool:
    return store.create(path, _content(writer))


def _content(writer: int) -> bytes:
    return f"writer {writer}".encode()


def _one_wins(name: str, who: str, wins: list[int]) -> Finding:
    tried = f"{who} raced to create one object, {len(wins)} times"
    if set(wins) == {1}:
        return Finding(name, True, f"{tried}: one won each time")
    return Finding(
        name,
        False,
        f"{tried}, and between {min(wins)} and {max(wins)} won: the store ignores If-None-Match, or link(2) is not "
        "atomic there. Use one that honours it (Amazon S3, SeaweedFS from 4.17, a local disk), or never run two jobs "
        "on this one",
    )


def _create_only_between_processes(scratch: Scratch) -> Finding:
    """As separate jobs do it."""
    context = multiprocessing.get_context("spawn")  # this process may hold threads and connections
    with ProcessPoolExecutor(NUM_PROCESSES, mp_context=context) as pool:
        races = [pool.submit(_create_in_process, scratch, writer) for writer in range(NUM_PROCESSES)]
        while len(list(scratch.store.list(f"{scratch.folder}/ready/"))) < NUM_PROCESSES:
            if any(race.done() for race in races):
                break  # it failed; its result says why
            time.sleep(0.05)
        scratch.store.put(scratch.path("start"), b"")
        won = [number for race in races for number in race.result()]
    wins = [won.count(number) for number in range(PROCESS_ROUNDS)]
    return _one_wins("create-only between processes", f"{NUM_PROCESSES} processes", wins)


def _create_in_process(scratch: Scratch, writer: int) -> list[int]:
    """The rounds that this process won."""
    scratch.store.put(scratch.path(f"ready/{writer}"), b"")
    deadline = time.monotonic() + START_SECONDS
    while scratch.store.size(scratch.path("start")) is None:
        assert time.monotonic() < deadline, "the other processes did not start"
    path = scratch.path("processes")
    return [n for n in range(PROCESS_ROUNDS) if scratch.store.create(f"{path}/{n}", _content(writer))]


def _compare_and_swap(scratch: Scratch) -> Finding:
    """Of several who read the same entry of a ref, one moves it."""
    name = scratch.folder

    def move(expected: int, writer: int) -> bool:
        try:
            move_ref(scratch.store, name, {"writer": writer}, "doctor", expected)
        except RefMoved:
            return False
        return True

    try:
        winners = [_race(NUM_WRITERS, functools.partial(move, number)) for number in range(ROUNDS)]
        log = [entry.target["writer"] for entry in read_log(scratch.store, name)]
    finally:
        scratch.store.delete([entry.path for entry in list(scratch.store.list(f"refs/{name}/"))])
    tried = f"{NUM_WRITERS} threads raced to move one ref, {ROUNDS} times"
    if [[writer] for writer in log] == winners:
        return Finding("compare-and-swap", True, f"{tried}: one moved it each time, and the log shows who")
    counts = ", ".join(str(len(round_winners)) for round_winners in winners)
    return Finding(
        "compare-and-swap", False, f"{tried}, and {counts} moved it: do not promote models from two places at a time"
    )


def _read_after_write(scratch: Scratch) -> Finding:
    stale = 0
    path = scratch.path("read")
    for number in range(TIMED_REQUESTS):
        data = f"content {number}".encode()
        scratch.store.put(path, data)
        stale += scratch.store.get(path) != data
    return _never_stale("read-after-write", "reads of an object just overwritten", stale)


def _list_after_write(scratch: Scratch) -> Finding:
    stale = 0
    paths: set[str] = set()
    for number in range(TIMED_REQUESTS):
        paths.add(scratch.path(f"list/{number}"))
        scratch.store.put(scratch.path(f"list/{number}"), b"x")
        stale += {entry.path for entry in scratch.store.list(f"{scratch.folder}/list/")} != paths
    return _never_stale("list-after-write", "listings after a new object", stale)


def _deletes(scratch: Scratch) -> Finding:
    stale = 0
    for number in range(TIMED_REQUESTS):
        path = scratch.path(f"delete/{number}")
        scratch.store.put(path, b"x")
        scratch.store.delete([path])
        stale += scratch.store.get(path) is not None or any(scratch.store.list(f"{scratch.folder}/delete/"))
    return _never_stale("delete", "reads and listings after a deletion", stale)


def _never_stale(name: str, what: str, stale: int) -> Finding:
    if not stale:
        return Finding(name, True, f"none of {TIMED_REQUESTS} {what} was stale")
    return Finding(
        name,
        False,
        f"{stale} of {TIMED_REQUESTS} {what} were stale: a cache stands between (a mount, a proxy). Remove it, or use "
        "the store's own address",
    )


def _ranges(scratch: Scratch) -> Finding:
    data, path = secrets.token_bytes(10_000), scratch.path("range")
    scratch.store.put(path, data)
    spans = [(0, 1), (4_000, 2_000), (9_999, 1), (9_990, 100), (10_000, 1)]
    wrong = [span for span in spans if scratch.store.get_range(path, *span) != data[span[0] :][: span[1]]]
    if not wrong:
        return Finding("range reads", True, f"{len(spans)} ranges were read exactly")
    return Finding("range reads", False, f"the ranges {wrong} were wrong: use a server that honours the Range header")


def _latencies(scratch: Scratch) -> Finding:
    store, data = scratch.store, b"x" * 500
    requests: dict[str, Callable[[int], object]] = {
        "put": lambda number: store.put(scratch.path(f"latency/{number}"), data),
        "create": lambda number: store.create(scratch.path(f"latency/created-{number}"), data),
        "get": lambda number: store.get(scratch.path(f"latency/{number}")),
        "list": lambda number: list(store.list(f"{scratch.folder}/latency/")),
    }
    medians = {name: _median_ms(request) for name, request in requests.items()}
    return Finding("latency", True, ", ".join(f"{name} {ms:.2g} ms" for name, ms in medians.items()))


def _median_ms(request: Callable[[int], object]) -> float:
    times = []
    for number in range(TIMED_REQUESTS):
        began = time.perf_counter()
        request(number)
        times.append(time.perf_counter() - began)
    return 1000 * statistics.median(times)
