"""Running a node to its commit: adoption, racers, leases, damaged inputs."""

import json
import logging
import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ray_jobs.checkpoint import lease as lease_module
from ray_jobs.checkpoint.checkpoint import Checkpoint, DamagedOutput
from ray_jobs.checkpoint.lease import Lease, LeaseRecord, host_id, process_started, read_lease
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.checkpoint.verify import verify
from ray_jobs.cluster import runner
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.fan_out import NodeFailed, UserError
from ray_jobs.cluster.runner import InputKey, NodeRequest, commit, run_node
from tests.faults import toy_nodes
from tests.faults.toy_nodes import NumbersSpec, SumsSpec, path_of, request_of

NUMBERS = request_of(NumbersSpec())
pytestmark = pytest.mark.usefixtures("toy_nodes")


@pytest.fixture
def quick_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lease_module, "EXPIRY_SECONDS", 0.5)
    monkeypatch.setattr(lease_module, "POLL_SECONDS", 0.05)


def sums_of(numbers_key: str) -> NodeRequest:
    return request_of(SumsSpec(), {"numbers": InputKey(node="numbers", key=numbers_key)})


def test_a_node_is_computed_once_and_then_stands(store: Store) -> None:
    first = run_node(store, NUMBERS)
    assert run_node(store, NUMBERS) == first
    assert first.key == path_of(NUMBERS).key
    assert first.counters == {"documents_in": 15, "documents_kept": 12, "dropped.never": 3}
    assert store.get(path_of(NUMBERS).lease) is None


def test_a_finished_node_costs_two_requests(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_node(store, NUMBERS)
    calls = []
    for name in ("get", "list", "size", "put", "create", "create_many", "delete", "folders"):
        real = getattr(type(store), name)
        counted = lambda self, *a, _real=real, _name=name: (calls.append(_name), _real(self, *a))[1]  # noqa: E731
        monkeypatch.setattr(type(store), name, counted)
    run_node(store, NUMBERS)
    assert calls == ["get", "list"]


def test_resources_change_nothing_of_the_result(file_store: Store) -> None:
    key = run_node(file_store, NUMBERS).key
    other = request_of(NumbersSpec(), shards_per_task=1, shard_retries=0)
    assert path_of(other).key == key


def test_the_manifest_records_what_it_was_made_of(file_store: Store) -> None:
    numbers = run_node(file_store, NUMBERS)
    sums = run_node(file_store, sums_of(numbers.key))
    assert sums.inputs["numbers"].content_digest == numbers.content_digest
    assert sums.output_stages == ("total",)
    assert [file.name for file in sums.outputs] == ["total.txt"]
    assert sums.sources == numbers.sources == (numbers.key,)
    assert sums.metrics == {"shards": 3}
    assert 0 <= sums.cpu_seconds < 5
    logged = [entry.path for entry in file_store.list(f"{sums.path.root}/attempts/") if "metrics-" in entry.path]
    assert json.loads(file_store.get(logged[0]) or b"") == {"total": sum(range(12))}


def run_in_process(url: str, request: NodeRequest, start: Any) -> None:
    start.wait()
    manifest = run_node(open_store(url), request)
    open_store(url).put(f"results/{os.getpid()}", manifest.to_json())


def test_two_racing_processes_leave_one_manifest_and_both_succeed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without leases: both compute everything, and every record has one winner."""
    monkeypatch.setattr(Lease, "acquire", lambda self, finished, waiting: True)
    context = multiprocessing.get_context("fork")
    request = request_of(NumbersSpec(num_shards=6))
    start = context.Barrier(2)
    racers = [context.Process(target=run_in_process, args=(store.url, request, start)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0]
    results = store.get_many([entry.path for entry in store.list("results/")])
    assert results[0] == results[1] == store.get(path_of(request).manifest)
    assert list(verify(store, deep=True)) == []
    # What a loser had written is gone again.
    manifest = run_node(store, request)
    assert sorted(entry.path for entry in store.list(f"{manifest.path.root}/data/")) == sorted(
        file.path for file in manifest.outputs
    )


def test_racers_wait_for_the_holder_and_adopt_what_it_committed(store: Store, quick_lease: None) -> None:
    request = request_of(NumbersSpec(num_shards=4, seconds=0.1))
    with ThreadPoolExecutor(4) as pool:
        manifests = list(pool.map(lambda _: run_node(store, request), range(4)))
    assert len({manifest.attempt for manifest in manifests}) == 1
    started = [entry for entry in store.list(f"{path_of(request).root}/attempts/") if "started" in entry.path]
    assert len(started) == 1


def test_on_412_what_stands_is_adopted(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    first = run_node(store, NUMBERS)
    late = first.model_copy(update={"attempt": "late"})
    assert commit(store, late) == first
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert commit(store, late.model_copy(update={"content_digest": "0" * 64})) == first
    assert "not deterministic" in caplog.text


def test_nothing_is_committed_whose_files_are_gone(store: Store) -> None:
    manifest = run_node(store, NUMBERS)
    store.delete([manifest.path.manifest, manifest.outputs[0].path])
    with pytest.raises(NodeFailed, match=r"1 outputs vanished.*run again"):
        commit(store, manifest)
    assert run_node(store, NUMBERS).content_digest == manifest.content_digest


def record_of_other(store: Store, beat: int = 1, **changes: Any) -> LeaseRecord:
    pid = os.getpid()
    record = LeaseRecord(
        attempt="other", beat=beat, host=host_id(), pid=pid, process_started=process_started(pid) or ""
    ).model_copy(update=changes)
    store.put(path_of(NUMBERS).lease, record.to_json())
    return record


def test_the_lease_of_a_dead_process_is_taken_over_at_once(store: Store) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    record_of_other(store, pid=dead, process_started="1")
    began = time.monotonic()
    run_node(store, NUMBERS)
    assert time.monotonic() - began < 3


def test_a_pid_used_again_is_not_taken_for_the_holder(file_store: Store) -> None:
    record_of_other(file_store, process_started="1")
    began = time.monotonic()
    run_node(file_store, NUMBERS)
    assert time.monotonic() - began < 1


def test_a_silent_lease_of_another_machine_expires_by_our_own_clock(file_store: Store, quick_lease: None) -> None:
    record_of_other(file_store, host="elsewhere")
    began = time.monotonic()
    run_node(file_store, NUMBERS)
    assert 0.5 < time.monotonic() - began < 5


def test_a_lease_that_beats_is_waited_for(file_store: Store, quick_lease: None) -> None:
    record_of_other(file_store, host="elsewhere")
    stop = threading.Event()

    def beat() -> None:
        beats = 1
        while not stop.wait(0.1):
            beats += 1
            record_of_other(file_store, beats, host="elsewhere")

    holder = threading.Thread(target=beat)
    holder.start()
    lease = Lease(file_store, path_of(NUMBERS).lease, "us")
    told: list[str] = []
    finished = iter([False] * 30 + [True])
    began = time.monotonic()
    try:
        assert not lease.acquire(lambda: next(finished), lambda record: told.append(record.attempt))
    finally:
        stop.set()
        holder.join()
    assert time.monotonic() - began > 1  # twice the expiry
    assert told == ["other"]


def test_the_holder_shows_its_progress_and_lets_go_at_the_end(file_store: Store, quick_lease: None) -> None:
    path = path_of(NUMBERS).lease
    lease = Lease(file_store, path, "us", "submission-1", ("nodes/a/b",))
    assert lease.acquire(lambda: False, lambda record: None)
    with lease:
        lease.show({"done": 3})
        time.sleep(0.3)
        record = read_lease(file_store, path)
        assert record is not None
        assert (record.progress, record.submission, record.reads) == ({"done": 3}, "submission-1", ("nodes/a/b",))
        assert record.beat > 2
    assert read_lease(file_store, path) is None


def test_a_holder_that_lost_its_lease_leaves_the_new_ones_alone(file_store: Store, quick_lease: None) -> None:
    path = path_of(NUMBERS).lease
    lease = Lease(file_store, path, "us")
    lease.acquire(lambda: False, lambda record: None)
    with lease:
        taken = record_of_other(file_store, host="elsewhere")
        time.sleep(0.3)
        assert read_lease(file_store, path) == taken
    assert read_lease(file_store, path) == taken


def test_a_damaged_lease_is_no_lease(file_store: Store) -> None:
    file_store.put(path_of(NUMBERS).lease, b"{")
    assert run_node(file_store, NUMBERS)


def test_a_zombie_cannot_corrupt(store: Store, monkeypatch: pytest.MonkeyPatch, quick_lease: None) -> None:
    """It is held up in the middle of a shard, another takes over and commits, and then the zombie goes on."""
    held, go_on = threading.Event(), threading.Event()
    real = toy_nodes.write_numbers

    def held_up(shard: dict[str, Any], spec: NumbersSpec) -> Any:
        if shard["index"] == 1 and threading.current_thread().name == "zombie":
            held.set()
            go_on.wait(30)
        return real(shard, spec)

    monkeypatch.setattr(toy_nodes, "write_numbers", held_up)
    zombies: list[Any] = []
    zombie = threading.Thread(target=lambda: zombies.append(run_node(store, NUMBERS)), name="zombie")
    zombie.start()
    assert held.wait(10)
    with monkeypatch.context() as patch:
        patch.setattr(Lease, "acquire", lambda self, finished, waiting: True)
        manifest = run_node(store, NUMBERS)
    assert manifest.attempt
    go_on.set()
    zombie.join(30)
    assert zombies == [manifest]
    assert run_node(store, NUMBERS) == manifest
    assert list(verify(store, deep=True)) == []


def test_an_input_that_is_gone_is_named_with_the_way_to_rebuild_it(file_store: Store) -> None:
    numbers = run_node(file_store, NUMBERS)
    file_store.delete([numbers.path.manifest])
    with pytest.raises(FileNotFoundError, match=rf"no finished numbers {numbers.key[:16]}.*`headrace run` computes it"):
        run_node(file_store, sums_of(numbers.key))


def test_a_damaged_input_stops_the_node_instead_of_losing_documents(file_store: Store) -> None:
    numbers = run_node(file_store, NUMBERS)
    damaged = next(file for file in numbers.outputs if file.name == "numbers.txt")
    file_store.put(damaged.path, b"9\n9\n9\n9\n")
    with pytest.raises(DamagedOutput, match="does not match its checksum"):
        Checkpoint(file_store, numbers).read(damaged)
    with pytest.raises(NodeFailed, match="cannot be read: DamagedOutput"):
        run_node(file_store, sums_of(numbers.key))


def test_a_request_of_another_version_is_refused(file_store: Store) -> None:
    with pytest.raises(UserError, match="was submitted as version 9, this code has 1"):
        run_node(file_store, NUMBERS.model_copy(update={"version": 9}))
    with pytest.raises(UserError, match="knows no node 'other'"):
        run_node(file_store, NUMBERS.model_copy(update={"node": "other"}))


def test_a_failure_is_kept_and_the_store_being_away_does_not_hide_it(
    file_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise ZeroDivisionError("our own defect")

    monkeypatch.setattr(toy_nodes, "numbers", failing)
    with pytest.raises(ZeroDivisionError):
        run_node(file_store, NUMBERS)
    (failed,) = [e for e in file_store.list(f"{path_of(NUMBERS).root}/attempts/") if e.path.endswith("failed.json")]
    assert "our own defect" in json.loads(file_store.get(failed.path) or b"")["error"]

    def unwritable(*_: object) -> None:
        raise OSError("away")

    monkeypatch.setattr(runner.NodeOutput, "flush", unwritable)
    with pytest.raises(ZeroDivisionError):
        run_node(file_store, NUMBERS)


def test_an_executor_can_be_given(file_store: Store) -> None:
    used = []

    def executor_of(resources: Any) -> InlineExecutor:
        used.append(resources.workers)
        return InlineExecutor()

    run_node(file_store, request_of(NumbersSpec(), workers=7), executor_of)
    assert used == [7]
