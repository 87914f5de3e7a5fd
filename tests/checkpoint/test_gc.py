"""Garbage collection takes what nothing needs, and nothing else, whatever happens at the same time."""

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ray_jobs.checkpoint import file_store as file_store_module
from ray_jobs.checkpoint import gc
from ray_jobs.checkpoint.gc import Action, collect
from ray_jobs.checkpoint.lease import Lease
from ray_jobs.checkpoint.manifest import Manifest, read_manifest
from ray_jobs.checkpoint.refs import move_ref
from ray_jobs.checkpoint.runs import Run, RunNode, begin_run, end_run, new_run_id, write_run
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.checkpoint.verify import verify
from ray_jobs.cluster.runner import InputKey, run_node
from tests.faults.killing import FatalCalls, killed
from tests.faults.toy_nodes import NumbersSpec, SumsSpec, request_of

pytestmark = pytest.mark.usefixtures("toy_nodes")


def numbers_of(store: Store, num_shards: int = 2) -> Manifest:
    return run_node(store, request_of(NumbersSpec(num_shards=num_shards)))


def sums_of(store: Store, numbers: Manifest) -> Manifest:
    return run_node(store, request_of(SumsSpec(), {"numbers": InputKey(node="numbers", key=numbers.key)}))


def collect_all(store: Store, apply: bool = True, **options: Any) -> gc.Report:
    """Without any protection by age."""
    return collect(store, **{"retention_seconds": -1, "grace_seconds": -1, "apply": apply, **options})


def a_run_of(*manifests: Manifest) -> Run:
    nodes = {
        manifest.node: RunNode(node=manifest.node, key=manifest.key, payload=manifest.payload, state="DONE")
        for manifest in manifests
    }
    return Run(id=new_run_id("toy", 1.0), recipe="toy", started=1.0, seconds=1.0, state="COMPLETED", nodes=nodes)


def stands(store: Store, manifest: Manifest) -> bool:
    return read_manifest(store, manifest.path) == manifest and not list(verify(store, [manifest.path], deep=True))


def paths(store: Store) -> list[str]:
    return [entry.path for entry in store.list("")]


def test_what_nothing_needs_goes_without_a_trace(store: Store) -> None:
    sums_of(store, numbers_of(store))
    report = collect_all(store)
    assert {item.what.split("/")[1] for item in report.of(Action.DELETE)} == {"numbers", "sums"}
    assert report.freed_bytes > 0
    assert paths(store) == []


def test_a_dry_run_says_what_would_go_and_touches_nothing(store: Store) -> None:
    manifest = numbers_of(store)
    before = paths(store)
    report = collect_all(store, apply=False)
    assert [(item.action, item.what) for item in report.items] == [(Action.WITHDRAW, manifest.path.root)]
    assert not report.applied
    assert paths(store) == before
    assert collect(store).of(Action.WAIT)[0].why == "nothing needs it, but it is younger than the grace period"


def test_a_ref_keeps_a_node_and_all_it_was_made_of(store: Store) -> None:
    numbers, other = numbers_of(store), numbers_of(store, 3)
    sums = sums_of(store, numbers)
    move_ref(store, "models/production", {"node": "sums", "key": sums.key}, "released", expected=0)
    report = collect_all(store)
    assert report.num_kept_nodes == 2
    assert stands(store, numbers)
    assert stands(store, sums)
    assert read_manifest(store, other.path) is None


def test_a_ref_keeps_what_it_may_be_rolled_back_to(file_store: Store) -> None:
    manifests = [numbers_of(file_store, count) for count in (2, 3, 4)]
    for number, manifest in enumerate(manifests):
        move_ref(file_store, "models/production", {"root": manifest.path.root}, "", expected=number)
    collect_all(file_store, ref_history=1)
    assert [stands(file_store, manifest) for manifest in manifests] == [False, True, True]


def test_a_young_run_keeps_its_nodes_and_an_old_one_does_not(store: Store) -> None:
    numbers = numbers_of(store)
    write_run(store, a_run_of(sums_of(store, numbers)))
    collect_all(store, retention_seconds=3600)
    assert stands(store, numbers)
    collect_all(store)
    assert read_manifest(store, numbers.path) is None


def test_a_ref_to_a_run_keeps_that_run(file_store: Store) -> None:
    numbers = numbers_of(file_store)
    run = a_run_of(numbers)
    write_run(file_store, run)
    move_ref(file_store, "kept/for-the-paper", {"run": run.id}, "", expected=0)
    collect_all(file_store)
    assert stands(file_store, numbers)


def test_a_live_lease_keeps_what_is_computed_and_what_it_reads(store: Store) -> None:
    numbers = numbers_of(store)
    lease = Lease(store, "nodes/sums/" + "0" * 16 + "/lease.json", "us", None, (numbers.path.root,))
    assert lease.acquire(lambda: False, lambda record: None)
    store.put("nodes/sums/" + "0" * 16 + "/data/total/00000-us-1.total.txt", b"not yet published")
    before = paths(store)
    collect_all(store)
    assert paths(store) == before
    with lease:
        pass
    collect_all(store)
    assert paths(store) == []


def test_an_expired_lease_keeps_nothing(file_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = numbers_of(file_store)
    lease = Lease(file_store, numbers.path.lease, "us")
    lease.acquire(lambda: False, lambda record: None)
    monkeypatch.setattr(gc, "LEASE_SECONDS", -1.0)
    collect_all(file_store)
    assert paths(file_store) == []


def test_a_job_that_was_only_just_submitted_keeps_its_inputs(file_store: Store) -> None:
    numbers = numbers_of(file_store)
    old = time.time() - 10_000
    for entry in list(file_store.list("")):
        os.utime(file_store.local_path(entry.path) or "", (old, old))
    request = request_of(SumsSpec(), {"numbers": InputKey(node="numbers", key=numbers.key)})
    file_store.put("nodes/sums/" + "1" * 16 + "/requests/s-1.json", request.to_json())
    collect(file_store, grace_seconds=5_000, apply=True)
    assert stands(file_store, numbers)


def age_all(store: Store, seconds: float) -> None:
    for entry in list(store.list("")):
        then = entry.modified - seconds
        os.utime(store.local_path(entry.path) or "", (then, then))


def test_a_node_computed_again_since_its_withdrawal_has_a_new_grace_period(file_store: Store) -> None:
    numbers = numbers_of(file_store)
    tombstone = gc._nodes(file_store)[numbers.path.root].tombstone
    file_store.put(tombstone, gc.Tombstone(node="numbers", key=numbers.key[:16], manifest=None).to_json())
    age_all(file_store, 5000)
    report = collect(file_store, grace_seconds=1000, apply=True)
    assert [(item.action, item.what) for item in report.items] == [(Action.WITHDRAW, numbers.path.root)]
    begin_run(file_store, "a-run", [numbers.path.root])
    collect(file_store, grace_seconds=1000, apply=True)
    assert stands(file_store, numbers)


def test_data_outlive_their_manifest_by_the_grace_period(file_store: Store) -> None:
    numbers = numbers_of(file_store)
    age = functools.partial(age_all, file_store)

    def pass_once() -> list[tuple[Action, str]]:
        report = collect(file_store, grace_seconds=1000, apply=True)
        return [(item.action, item.what) for item in report.items]

    root = numbers.path.root
    assert pass_once() == [(Action.WAIT, root)]
    age(2000)
    assert pass_once() == [(Action.WITHDRAW, root)]
    assert read_manifest(file_store, numbers.path) is None
    assert all(file_store.size(file.path) == file.bytes for file in numbers.outputs)
    assert pass_once() == [(Action.WAIT, root)]
    age(2000)
    assert pass_once() == [(Action.DELETE, root)]
    assert paths(file_store) == []


def test_a_node_that_is_needed_again_in_its_grace_period_costs_nothing(store: Store) -> None:
    numbers = numbers_of(store)
    collect(store, retention_seconds=-1, grace_seconds=-1, apply=False)
    collection = gc._Collection(store, -1, -1, 5, apply=True)
    collection.withdraw(gc._nodes(store).values())
    assert read_manifest(store, numbers.path) is None
    begin_run(store, "a-run", [numbers.path.root])
    collect(store, apply=True)
    assert stands(store, numbers)
    assert not list(store.list("gc/"))


class Interfering:
    """Passes everything on to the store, and does something just before or after the first deletion of a manifest."""

    def __init__(self, store: Store, suffix: str, before: Callable[[], None], after: Callable[[], None]):
        self._store, self._suffix, self._before, self._after = store, suffix, before, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, found: Any) -> None:
        found = list(found)
        matching = any(self._suffix in path for path in found)
        if matching:
            before, self._before = self._before, lambda: None
            before()
        self._store.delete(found)
        if matching:
            after, self._after = self._after, lambda: None
            after()


def nothing() -> None:
    pass


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_begins_under_the_collector_keeps_what_it_saw(store: Store, when: str) -> None:
    """Its mark is written before it looks; so what it saw standing is standing when the collector is done."""
    numbers = numbers_of(store)
    saw: list[bool] = []

    def begin() -> None:
        begin_run(store, "a-run", [numbers.path.root])
        saw.append(read_manifest(store, numbers.path) is not None)

    callbacks = (begin, nothing) if when == "before" else (nothing, begin)
    collect_all(Interfering(store, "manifest.json", *callbacks), retention_seconds=3600)  # type: ignore[arg-type]
    assert saw == [when == "before"]
    assert stands(store, numbers)
    end_run(store, "a-run")
    collect_all(store)
    assert paths(store) == []


def test_a_job_that_adopts_receipts_under_the_collector_keeps_their_data(store: Store) -> None:
    """It holds the lease before it reads receipts: the collector sees it before it touches data."""
    numbers = numbers_of(store)
    store.delete([numbers.path.manifest])
    finished: list[Manifest] = []
    lease = Lease(store, numbers.path.lease, "us")

    def adopt() -> None:
        lease.acquire(lambda: False, lambda record: None)
        finished.append(run_without_lease(store))

    collect_all(Interfering(store, "/receipts/", adopt, nothing))  # type: ignore[arg-type]
    assert stands_without_receipts(store, finished[0])


def run_without_lease(store: Store) -> Manifest:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lease, "acquire", lambda self, finished, waiting: True)
        patch.setattr(Lease, "__exit__", lambda self, *_: None)
        return numbers_of(store)


def stands_without_receipts(store: Store, manifest: Manifest) -> bool:
    return read_manifest(store, manifest.path) == manifest and not list(verify(store, [manifest.path]))


def test_a_reader_of_a_collected_node_is_told_how_to_rebuild_it(file_store: Store) -> None:
    numbers = numbers_of(file_store)
    collect_all(file_store)
    with pytest.raises(FileNotFoundError, match="collected as garbage; `headrace run` computes it again"):
        sums_of(file_store, numbers)
    assert numbers_of(file_store).content_digest == numbers.content_digest


def test_what_lost_attempts_left_inside_a_node_goes(store: Store) -> None:
    numbers = numbers_of(store)
    sums = sums_of(store, numbers)
    begin_run(store, "a-run", [sums.path.root])
    orphan = numbers.path.data("numbers", 0, "lost", "1", "numbers.txt")
    store.put(orphan, b"half a shard")
    steps = f"{sums.path.root}/steps/00000010-"
    store.put(f"{steps}lost/0.distcp", b"x")
    store.put(f"{steps}whole/0.distcp", b"x")
    store.put(f"{sums.path.receipts('steps')}00000010.json", b'{"step": 10, "session": "whole", "files": []}')
    assert collect(store, retention_seconds=3600).items == ()  # all of it is young
    report = collect_all(store, retention_seconds=3600)
    assert sorted((item.what, item.num_objects) for item in report.of(Action.DELETE)) == [
        (f"{numbers.path.root}/data", 1),
        (f"{sums.path.root}/data", 1),
    ]
    assert store.get(orphan) is None
    assert store.get(f"{steps}lost/0.distcp") is None
    assert store.get(f"{steps}whole/0.distcp") == b"x"
    store.delete([f"{sums.path.receipts('steps')}00000010.json"])
    assert stands(store, numbers)
    assert stands(store, sums)


def test_half_written_files_go(file_store: Store) -> None:
    file_store.put("runs/x", b"1")
    child = os.fork()
    if child == 0:
        os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
        file_store.put("runs/y", b"half")
    os.waitpid(child, 0)
    file_store.delete(["runs/x"])
    assert len(list(file_store.leftovers())) == 1
    collect(file_store, apply=True)
    assert len(list(file_store.leftovers())) == 1
    report = collect_all(file_store)
    assert [(item.num_objects, item.bytes) for item in report.items] == [(1, 4)]
    assert list(file_store.leftovers()) == []


def test_a_record_that_cannot_be_read_stops_the_collection(file_store: Store) -> None:
    numbers = numbers_of(file_store)
    file_store.put("runs/20260101-000000-toy-00.json", b'{"id": "from the future"}')
    with pytest.raises(ValueError, match="what it keeps is not known: restore it, delete it"):
        collect_all(file_store, retention_seconds=3600)
    assert stands(file_store, numbers)


def test_the_collector_killed_at_every_call_loses_nothing_that_is_needed(memory_folder: Path) -> None:
    """And the next collection finishes what it began."""
    for fatal in range(1, 1000):
        store = open_store(memory_folder / str(fatal))
        needed, garbage = numbers_of(store), numbers_of(store, 3)
        begin_run(store, "a-run", [needed.path.root])

        def child(store: Store = store, fatal: int = fatal) -> None:
            file_store_module.os = FatalCalls(fatal, after=True)  # type: ignore[attr-defined]
            collect_all(store, retention_seconds=3600)

        was_killed = killed(child)
        assert stands(store, needed)
        digest = garbage.content_digest
        if fatal % 2:
            assert numbers_of(store, 3).content_digest == digest
            assert not list(verify(store, deep=False))
        collect_all(store, retention_seconds=3600)
        assert {path.split("/")[0] for path in paths(store)} == {"nodes", "running"}
        assert {path.split("/")[2] for path in paths(store) if path.startswith("nodes/")} == {needed.key[:16]}
        if not was_killed:
            assert fatal > 20
            return
    pytest.fail("not through")
