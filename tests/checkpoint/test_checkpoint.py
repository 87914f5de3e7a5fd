"""What a node reads of its upstream nodes is what they published, or an error that says what to do."""

import os
import pickle
from pathlib import Path

import pytest

from ray_jobs.checkpoint import checkpoint as checkpoint_module
from ray_jobs.checkpoint.checkpoint import Checkpoint, DamagedOutput, cache_folder
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.runner import run_node
from tests.faults.toy_nodes import NumbersSpec, request_of


@pytest.fixture
def upstream(store: Store, toy_nodes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    manifest = run_node(store, request_of(NumbersSpec(num_shards=12)))
    return Checkpoint.open(store, "numbers", manifest.key)


def test_files_come_by_name_in_the_order_of_shards(upstream: Checkpoint) -> None:
    files = upstream.files("numbers.txt")
    assert [file.shard for file in files] == list(range(12))
    assert b"".join(upstream.read(file) for file in files).split() == [str(n).encode() for n in range(48)]
    assert upstream.files("numbers.txt", stage="other") == []
    assert upstream.url(files[0]).endswith(files[0].path)


def test_a_checkpoint_travels_by_pickle(upstream: Checkpoint) -> None:
    copy = pickle.loads(pickle.dumps(upstream))
    assert copy.manifest == upstream.manifest
    assert copy.read(copy.files("numbers.txt")[3]) == b"12\n13\n14\n15\n"


def test_a_local_path_holds_the_output(upstream: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint_module, "PIECE_BYTES", 5)
    file = upstream.files("numbers.txt")[11]
    local = upstream.local_path(file)
    assert local.read_bytes() == upstream.read(file) == b"44\n45\n46\n47\n"
    assert upstream.local_path(file) == local
    assert not [path for path in local.parent.iterdir() if path.name.startswith(f"{local.name}.")]


@pytest.mark.parametrize("store", ["s3"], indirect=True)  # a file store's own file is read as it is
def test_damage_on_the_way_to_a_local_path_is_found(upstream: Checkpoint) -> None:
    file = upstream.files("numbers.txt")[1]
    upstream.store.put(file.path, b"4\n5\n6\n8\n")
    with pytest.raises(DamagedOutput, match="verify --deep --withdraw"):
        upstream.local_path(file)
    upstream.store.delete([file.path])
    with pytest.raises(DamagedOutput, match="is gone"):
        upstream.local_path(file)
    assert list(cache_folder().rglob("*.txt*")) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_cache_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "theirs"))
    with pytest.raises(ValueError, match="belongs to another user"):
        cache_folder()
