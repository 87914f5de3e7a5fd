"""Checkpoints written while training goes on: what stands is the step's own, or nothing."""

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_jobs.checkpoint.file_store import FileStore
from ray_jobs.checkpoint.store import StoreError
from ray_jobs.pretrain.curve import read_curve, segments_of
from ray_jobs.pretrain.launch import TrainingJob, train_rank
from ray_jobs.pretrain.saving import SaveFailed, Saver
from ray_jobs.pretrain.steps import StepStore
from ray_jobs.pretrain.tensors import read_tensors
from ray_jobs.pretrain.trainer import build, checkpoint_tensors
from tests.pretrain.conftest import SPEC
from tests.pretrain.ranks import finish, start
from tests.pretrain.test_ranks import assert_close, curve_of

Jobs = Callable[..., TrainingJob]
Training = Callable[..., dict[str, Any]]


class SlowStore(FileStore):
    """Large objects wait until they are let through."""

    def __init__(self, url: Path):
        super().__init__(url)
        self.lets = threading.Event()
        self.waits = threading.Event()

    def put_file(self, path: str, local: Path) -> None:
        self.waits.set()
        assert self.lets.wait(60)
        super().put_file(path, local)


class FailingStore(FileStore):
    """Fails the calls of one method, on checkpoints only, whose numbers it is given."""

    def __init__(self, url: Path, method: str, fails: Callable[[int], bool]):
        super().__init__(url)
        self.method, self.fails, self.calls = method, fails, 0

    def _counted(self, method: str, path: str) -> None:
        if method != self.method or "/steps/" not in path:
            return
        self.calls += 1
        if self.fails(self.calls):
            raise StoreError(errno.ENOSPC, "the disk is full")

    def put_file(self, path: str, local: Path) -> None:
        self._counted("put_file", path)
        super().put_file(path, local)

    def put(self, path: str, data: bytes | memoryview) -> None:
        self._counted("put", path)
        super().put(path, data)

    def create(self, path: str, data: bytes) -> bool:
        self._counted("create", path)
        return super().create(path, data)

    def delete(self, paths: Iterable[str]) -> None:
        paths = list(paths)
        for path in paths:
            self._counted("delete", path)
        super().delete(paths)


@pytest.mark.usefixtures("one_rank")
def test_parameters_may_change_while_they_are_saved(job: Jobs, tmp_path: Path) -> None:
    trained = job("mutated")
    store = SlowStore(tmp_path / "slow")
    steps = StepStore(store, trained.path)
    model, optimizer = build(trained.spec, trained.vocabulary.num_tokens, torch.device("cpu"))
    tensors = checkpoint_tensors(model, optimizer)
    with torch.no_grad():
        for number, tensor in enumerate(tensors.values()):
            tensor.fill_(number)
    saver = Saver(steps, "session", tensors, kept=2)
    saver.copy(5)
    saver.write({"a": 1})
    assert store.waits.wait(60) and steps.receipts() == []  # nothing is published before it is whole
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.fill_(-1.0)
    store.lets.set()
    saver.finish()
    (receipt,) = steps.receipts()
    assert (receipt.step, receipt.state) == (5, {"a": 1})
    stored = read_tensors(steps, receipt, "")
    for number, name in enumerate(tensors):
        assert torch.equal(stored[name], torch.full_like(stored[name], number)), name
    assert saver.take_pause() > 0 == saver.take_pause()
    saver.close()


@pytest.mark.usefixtures("one_rank")
def test_training_goes_on_while_a_checkpoint_is_written(job: Jobs, tmp_path: Path, monkeypatch: Any) -> None:
    trained = job("slow", {"checkpoint_every": 4})
    store = SlowStore(Path(trained.store.url.removeprefix("file://")))
    object.__setattr__(trained, "store", store)
    asked: list[bool] = []

    def should_stop() -> bool:
        asked.append(store.waits.is_set())
        if len(asked) == 8:  # the next checkpoint waits for this one
            threading.Timer(0.5, store.lets.set).start()
        return False

    train_rank(trained, should_stop=should_stop)
    # The save of step 4 was being written through steps 5 to 8.
    assert len(asked) == 12 and any(asked[4:8])
    curve = read_curve(store, trained.path, StepStore(store, trained.path).receipts()[0])
    pauses = {line["step"]: line["checkpoint_pause_s"] for line in curve}
    assert pauses[3] == 0 < pauses[6] < 0.25 and 0.25 < pauses[9] < 30 and 0 < pauses[12] < 0.25


def failing(job: TrainingJob, method: str, fails: Callable[[int], bool]) -> FailingStore:
    assert isinstance(job.store, FileStore)
    store = FailingStore(job.store.root, method, fails)
    object.__setattr__(job, "store", store)
    return store


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("method", ["put_file", "put", "create"])
@pytest.mark.parametrize("standing", [0, 1, 2])
def test_a_store_that_stays_full_is_told_and_training_goes_on_from_what_stands(
    job: Jobs, caplog: pytest.LogCaptureFixture, method: str, standing: int
) -> None:
    trained, whole = job("full", {"checkpoint_every": 3}), job("whole")
    store = failing(trained, method, lambda call: call > standing)
    told = (
        r"could not be written \(rank 0: StoreError: .*the disk is full\).*room for one more of 0.4 MB, and run again"
    )
    with pytest.raises(SaveFailed, match=told):
        train_rank(trained)
    first = 3 * (standing + 1)
    assert f"the checkpoint of step {first} could not be written" in caplog.text
    # Of what failed nothing stands and nothing takes room.
    steps = StepStore(store, trained.path)
    assert [receipt.step for receipt in steps.receipts()] == [3 * number for number in range(standing, 0, -1)]
    folders = {entry.path.split("/")[4][:8] for entry in store.list(f"{trained.path.root}/steps/")}
    assert folders == {f"{receipt.step:08d}" for receipt in steps.receipts()}
    train_rank(job("full", {"checkpoint_every": 3}))
    train_rank(whole)
    assert [line["loss"] for line in curve_of(job("full"))] == [line["loss"] for line in curve_of(whole)]


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("method", ["put_file", "put", "create"])
def test_a_store_that_fails_once_costs_one_save_and_no_training(
    job: Jobs, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    trained = job("once", {"steps": 400, "checkpoint_every": 200, "log_every": 100, "checkpoints_kept": 9})
    store = failing(trained, method, lambda call: call == 1)
    train_rank(trained)
    found = [receipt.step for receipt in StepStore(store, trained.path).receipts()]
    # The step after the failure was known was saved instead.
    assert len(found) == 2 and found[0] == 400 and 200 < found[1] < 400
    assert f"step 200 could not be written (rank 0: StoreError: [Errno {errno.ENOSPC}] the disk is full)" in caplog.text
    assert f"; step {found[1]} is tried instead" in caplog.text


@pytest.mark.usefixtures("one_rank")
def test_old_checkpoints_that_cannot_be_deleted_are_a_warning(job: Jobs, caplog: pytest.LogCaptureFixture) -> None:
    trained = job("kept", {"checkpoints_kept": 1})
    store = failing(trained, "delete", lambda call: call == 1)
    train_rank(trained)
    assert "could not be deleted: [Errno 28] the disk is full" in caplog.text
    assert [receipt.step for receipt in StepStore(store, trained.path).receipts()] == [12]  # the next save did


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1.6 MB: two checkpoints of this model, and half of one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs mount")
    if done.returncode:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.usefixtures("one_rank")
def test_a_full_disk_is_told_with_what_to_do_and_a_run_with_room_goes_on(job: Jobs, small_disk: Path) -> None:
    trained, whole = job("parts"), job("whole")
    object.__setattr__(trained, "store", FileStore(small_disk / "store"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(800_000))
    with pytest.raises(SaveFailed) as raised:
        train_rank(trained)
    assert f"cannot write {small_disk}/store/nodes/pretrain/parts/steps/" in str(raised.value)
    assert "the disk is full: free space" in str(raised.value) and "room for one more of 0.4 MB" in str(raised.value)
    (standing,) = StepStore(trained.store, trained.path).receipts()
    assert standing.step == 4
    ballast.unlink()
    object.__setattr__(trained, "spec", trained.spec.model_copy(update={"checkpoints_kept": 1}))
    train_rank(trained)
    train_rank(whole)
    assert [line["loss"] for line in curve_of(trained)] == [line["loss"] for line in curve_of(whole)]
    (first, second) = curve_segments(trained)
    assert first == (0, 4) and second == (4, 12)


@pytest.mark.usefixtures("one_rank")
def test_a_full_disk_of_temporary_files_is_not_taken_for_the_stores(
    job: Jobs, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_CACHE", str(small_disk / "cache"))
    (small_disk / "ballast").write_bytes(bytes(1_500_000))
    told = rf"{small_disk}/cache has no room for this rank.s part of the checkpoint: free space there, or set HEADRACE_"
    with pytest.raises(SaveFailed, match=told):
        train_rank(job("parts"))


def curve_segments(job: TrainingJob) -> list[tuple[int, int]]:
    receipt = StepStore(job.store, job.path).of_step(12)
    assert receipt is not None
    return [(segment.first, segment.last) for segment in segments_of(receipt)]


@pytest.mark.slow
def test_parameters_of_two_ranks_may_change_while_they_are_saved(job: Jobs, training: Training) -> None:
    for status, output in finish(start(2, [training("mutated")], "tests.pretrain.mutated_ranks")):
        assert status == 0, output
    saved = job("mutated")
    (receipt,) = StepStore(saved.store, saved.path).receipts()
    assert (receipt.step, receipt.world_size) == (5, 2)
    stored = read_tensors(StepStore(saved.store, saved.path), receipt, "")
    assert len(stored) == 3 * 20
    found = [sorted(tensor.unique().tolist()) for tensor in stored.values()]
    # FSDP gives each rank one half of the rows.
    assert sorted(found) == [[number, 100 + number] for number in range(len(stored))]


@pytest.mark.slow
def test_kill_9_of_a_rank_in_mid_save_leaves_no_checkpoint_of_that_step(job: Jobs, training: Training) -> None:
    held = job("held")
    steps = StepStore(held.store, held.path)
    assert isinstance(held.store, FileStore)
    mark = held.store.root / "held"
    ranks = start(2, [{**training("held"), "held": True}])
    deadline = time.monotonic() + 120
    while not mark.exists() and time.monotonic() < deadline:
        time.sleep(0.05)

    def half() -> list[str]:
        """What the first ranks wrote of step 8."""
        paths = [entry.path for entry in held.store.list(f"{held.path.root}/steps/")]
        return [path for path in paths if "/00000008-" in path and session in path]

    session = steps.receipts()[0].session
    while not half() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(ranks[1].pid, signal.SIGKILL)
    (survivor, output), _ = finish(ranks)
    assert survivor != 0, output
    assert [path.rpartition("/")[2] for path in half()] == ["__0_0.distcp"]
    assert [receipt.step for receipt in steps.receipts()] == [4]
    for status, output in finish(start(2, [training("held"), training("whole")])):
        assert status == 0, output
    assert curve_segments(held) == [(0, 4), (4, 12)]
    whole = job("whole")
    losses = [[(line["step"], line["loss"]) for line in curve_of(one)] for one in (held, whole)]
    assert losses[0] == losses[1]
    assert half() == []


@pytest.mark.usefixtures("one_rank")
def test_permanent_checkpoints_outlive_newer_ones(job: Jobs) -> None:
    trained = job("permanent", {"checkpoint_every": 2, "checkpoint_permanent_every": 4, "checkpoints_kept": 1})
    train_rank(trained)
    steps = StepStore(trained.store, trained.path)
    assert [receipt.step for receipt in steps.receipts()] == [12, 8, 4]
    folders = {entry.path.rpartition("/")[0] for entry in trained.store.list(f"{trained.path.root}/steps/")}
    assert folders == {steps.folder(receipt.step, receipt.session) for receipt in steps.receipts()}
    assert len(read_tensors(steps, steps.receipts()[-1], "")) > 10
    with pytest.raises(ValueError, match="must be a multiple of checkpoint_every"):
        job("between", {"checkpoint_permanent_every": 6})


@pytest.mark.slow
def test_four_ranks_stop_and_two_go_on_with_a_vocabulary_that_none_divides(job: Jobs, training: Training) -> None:
    changes = {"model": {**SPEC["model"], "vocabulary_multiple": 27}}  # 513 rows of 512 tokens
    for status, output in finish(start(4, [{**training("parts", changes), "stop_at": 8}])):
        assert status == 0, output
    for status, output in finish(start(2, [training("parts", changes), training("whole", changes)])):
        assert status == 0, output
    parts = job("parts", changes)
    receipt = StepStore(parts.store, parts.path).of_step(12)
    assert receipt is not None and receipt.world_size == 2
    embedding = read_tensors(StepStore(parts.store, parts.path), receipt, "")["model.model.embed_tokens.weight"]
    assert embedding.shape == (513, 32)
    assert [line["samples"] for line in curve_of(parts)] == [24, 48, 72, 96]
    assert_close(curve_of(parts), curve_of(job("whole", changes)))
