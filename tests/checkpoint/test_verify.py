"""A flipped byte is found and named, and just its shard is computed again."""

from pathlib import Path

import pytest

from ray_jobs.checkpoint.manifest import Manifest
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.checkpoint.verify import Finding, Problem, finished_nodes, verify, withdraw
from ray_jobs.cluster.runner import InputKey, run_node
from tests.faults.toy_nodes import NumbersSpec, SumsSpec, request_of

NUMBERS = request_of(NumbersSpec(num_shards=5))


@pytest.fixture
def numbers(store: Store, toy_nodes: None) -> Manifest:
    return run_node(store, NUMBERS)


def sums(store: Store, numbers: Manifest) -> Manifest:
    return run_node(store, request_of(SumsSpec(), {"numbers": InputKey(node="numbers", key=numbers.key)}))


def found(store: Store, deep: bool) -> list[Finding]:
    return list(verify(store, deep=deep))


def flip(store: Store, path: str) -> None:
    data = bytearray(store.get(path) or b"")
    data[len(data) // 2] ^= 1
    store.put(path, bytes(data))


def test_what_was_just_computed_is_sound(store: Store, numbers: Manifest) -> None:
    sums(store, numbers)
    assert {path.node for path in finished_nodes(store)} == {"numbers", "sums"}
    assert found(store, deep=False) == found(store, deep=True) == []


def test_a_flipped_byte_is_found_and_only_its_shard_is_computed_again(store: Store, numbers: Manifest) -> None:
    damaged = numbers.outputs[4]
    before = {file.shard: file for file in numbers.outputs if file.name == damaged.name}
    flip(store, damaged.path)
    assert found(store, deep=False) == []
    (finding,) = found(store, deep=True)
    assert (finding.path, finding.problem) == (damaged.path, Problem.CONTENT)
    assert "`headrace verify --deep --withdraw` and run again" in str(finding)
    assert finding.can_be_withdrawn

    withdraw(store, [finding])
    again = run_node(store, NUMBERS)
    assert again.content_digest == numbers.content_digest
    after = {file.shard: file for file in again.outputs if file.name == damaged.name}
    assert [shard for shard in before if before[shard].path != after[shard].path] == [damaged.shard]
    assert found(store, deep=True) == []


def test_a_lost_or_cut_object_is_found_by_a_listing_and_run_mends_it_by_itself(store: Store, numbers: Manifest) -> None:
    lost, cut = numbers.outputs[0], numbers.outputs[2]
    store.delete([lost.path])
    store.put(cut.path, b"1\n")
    for deep in (False, True):
        problems = {finding.path: finding.problem for finding in found(store, deep)}
        assert problems == {lost.path: Problem.GONE, cut.path: Problem.CONTENT}
    again = run_node(store, NUMBERS)
    assert again.content_digest == numbers.content_digest
    kept = {file.path for file in numbers.outputs} & {file.path for file in again.outputs}
    assert len(kept) == len(numbers.outputs) - 4  # each shard has two files
    assert found(store, deep=True) == []


def test_damaged_records_are_found(store: Store, numbers: Manifest) -> None:
    receipt = numbers.path.receipt("numbers", 1)
    store.put(receipt, (store.get(receipt) or b"").replace(b'"documents_kept":4', b'"documents_kept":5'))
    (finding,) = found(store, deep=True)
    assert (finding.problem, finding.path) == (Problem.DIGEST, numbers.path.manifest)
    store.put(receipt, b"{")
    assert {finding.problem for finding in found(store, deep=True)} == {Problem.RECORD, Problem.DIGEST}
    store.put(numbers.path.manifest, (store.get(numbers.path.manifest) or b"")[:-10])
    (finding,) = found(store, deep=False)
    assert finding.problem is Problem.RECORD
    assert "shards will be adopted" in finding.detail
    withdraw(store, [finding, Finding(numbers.path, Problem.RECORD, receipt, "")])
    assert run_node(store, NUMBERS).content_digest == numbers.content_digest
    assert found(store, deep=True) == []


def test_an_input_that_changed_under_a_node_is_found(store: Store, numbers: Manifest) -> None:
    sums(store, numbers)
    changed = numbers.model_copy(update={"content_digest": "0" * 64})
    store.put(numbers.path.manifest, changed.to_json())
    problems = {finding.problem for finding in found(store, deep=True) if finding.node.node == "sums"}
    assert problems == {Problem.INPUT}
    store.delete([numbers.path.manifest])
    (finding,) = found(store, deep=True)
    assert finding.problem is Problem.INPUT_GONE
    assert not finding.is_damage


def test_intermediate_files_are_verified_too(store: Store, numbers: Manifest) -> None:
    manifest = sums(store, numbers)
    entry = next(entry for entry in store.list(manifest.path.stage_data("partial")))
    flip(store, entry.path)
    (finding,) = found(store, deep=True)
    assert (finding.node.node, finding.path) == ("sums", entry.path)
    withdraw(store, [finding])
    assert sums(store, numbers).content_digest == manifest.content_digest
    assert found(store, deep=True) == []


def test_a_store_that_was_copied_elsewhere_verifies(numbers: Manifest, store: Store, tmp_path: Path) -> None:
    copy = open_store(tmp_path / "copy")
    for entry in store.list(""):
        copy.put(entry.path, store.get(entry.path) or b"")
    assert found(copy, deep=True) == []
    assert run_node(copy, NUMBERS) == numbers
