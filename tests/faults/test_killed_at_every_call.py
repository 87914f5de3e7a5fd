"""The protocol is killed at every call it makes, and run again: the same content, nothing lost, nothing double.

A forked child computes two nodes and kills itself with SIGKILL at its k-th call, for every k until it gets through. On
files the calls are those of the operating system (among them a write that is cut in the middle); on S3 they are the
requests, each killed before it is sent, in the middle of its bytes, and after it was answered.
"""

import http.client
import itertools
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoint import file_store, s3_store
from ray_jobs.checkpoint.manifest import Manifest
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.checkpoint.verify import verify
from ray_jobs.cluster.runner import InputKey, run_node
from tests.faults.killing import FatalCalls, die, killed
from tests.faults.toy_nodes import NumbersSpec, SumsSpec, request_of

NUMBERS = NumbersSpec(num_shards=3, rows=4)
MAX_CALLS = 1000


def run_both(store: Store) -> tuple[Manifest, Manifest]:
    numbers = run_node(store, request_of(NUMBERS))
    inputs = {"numbers": InputKey(node="numbers", key=numbers.key)}
    return numbers, run_node(store, request_of(SumsSpec(), inputs))


def check_whole(store: Store, expected: tuple[Manifest, Manifest]) -> None:
    numbers, sums = run_both(store)
    assert (numbers.content_digest, sums.content_digest) == tuple(manifest.content_digest for manifest in expected)
    parts = [store.get(file.path) for file in numbers.outputs if file.name == "numbers.txt"]
    lines = b"".join(part or b"" for part in parts).split()
    assert [int(line) for line in lines] == list(range(NUMBERS.num_shards * NUMBERS.rows))
    assert numbers.counters["documents_kept"] == NUMBERS.num_shards * NUMBERS.rows
    assert [(file.stage, file.shard) for file in numbers.outputs if not file.volatile] == [
        ("numbers", shard) for shard in range(NUMBERS.num_shards)
    ]
    assert store.get(sums.outputs[0].path) == str(sum(range(NUMBERS.num_shards * NUMBERS.rows))).encode()
    assert list(verify(store, deep=True)) == []


@pytest.mark.usefixtures("toy_nodes")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_call_to_the_operating_system(memory_folder: Path, after: bool) -> None:
    expected = run_both(open_store(memory_folder / "uninterrupted"))
    for fatal in range(1, MAX_CALLS):
        store = open_store(memory_folder / str(fatal))

        def child(store: Store = store, fatal: int = fatal) -> None:
            file_store.os = FatalCalls(fatal, after)
            run_both(store)

        was_killed = killed(child)
        check_whole(store, expected)
        if not was_killed:
            print(f"{fatal - 1} calls")
            assert fatal > 100, f"only {fatal} calls: the calls are not seen"
            return
    pytest.fail(f"not through after {MAX_CALLS} calls")


def die_at_request(client: Any, event: str, fatal: int) -> None:
    """Before the `fatal`-th request is sent, when half of its bytes are, or after it was answered."""
    count = itertools.count(1)

    def on_request(**_: Any) -> None:
        if next(count) == fatal:
            die()

    send = http.client.HTTPConnection.send

    def send_half(self: http.client.HTTPConnection, data: Any) -> None:
        if next(count) == fatal:
            send(self, bytes(data)[: len(data) // 2])
            die()
        send(self, data)

    if event == "half-sent":
        http.client.HTTPConnection.send = send_half  # type: ignore[method-assign]
    else:
        client.meta.events.register(event, on_request)


@pytest.mark.slow
@pytest.mark.usefixtures("toy_nodes")
@pytest.mark.parametrize("event", ["before-send.s3", "half-sent", "after-call.s3"])
def test_killed_at_every_request_to_s3(s3_store_url: str, event: str) -> None:
    # Made here and used in children only: they neither share a connection nor spend 95 ms each on a client.
    unused = s3_store.new_client(s3_store.settings_of_environment())
    prefix = f"{s3_store_url}/killed-{event[:5]}"
    expected = run_both(open_store(f"{prefix}/uninterrupted"))
    for fatal in range(1, MAX_CALLS):
        store = open_store(f"{prefix}/{fatal}")

        def child(store: Store = store, fatal: int = fatal) -> None:
            die_at_request(unused, event, fatal)
            s3_store.client = lambda max_tries=1: unused
            run_both(store)

        was_killed = killed(child)
        check_whole(store, expected)
        if not was_killed:
            print(f"{fatal - 1} requests")
            assert fatal > 40, f"only {fatal} requests: they are not seen"
            return
    pytest.fail(f"not through after {MAX_CALLS} requests")
