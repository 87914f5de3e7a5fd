"""Checkpoints written while training goes on: what stands is the step's own, or nothing."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ray_jobs.checkpoint.file_store import FileStore
from ray_jobs.pretrain.curve import read_curve
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


class FullStore(FileStore):
    """Has room for so many large objects."""

    def __init__(self, url: Path, room: int):
        super().__init__(url)
        self.room = room

    def put_file(self, path: str, local: Path) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(28, "No space left on device")
        super().put_file(path, local)


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
    saver.save(5, {"a": 1})
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
            store.lets.set()
        return False

    train_rank(trained, should_stop=should_stop)
    # The save of step 4 was being written through steps 5 to 8.
    assert len(asked) == 12 and any(asked[4:8])
    curve = read_curve(store, trained.path, StepStore(store, trained.path).receipts()[0])
    assert all(line["checkpoint_pause_s"] >= 0 for line in curve)


@pytest.mark.usefixtures("one_rank")
def test_a_disk_that_is_full_in_mid_save_is_told_and_training_goes_on_from_what_stands(
    job: Jobs, tmp_path: Path
) -> None:
    trained, whole = job("full"), job("whole")
    path = Path(trained.store.url.removeprefix("file://"))
    room = FullStore(path, room=1)
    object.__setattr__(trained, "store", room)
    with pytest.raises(SaveFailed, match=r"step 8 could not be written \(rank 0: .*No space left on device.*run again"):
        train_rank(trained)
    assert [receipt.step for receipt in StepStore(room, trained.path).receipts()] == [4]
    again = job("full")
    train_rank(again)
    train_rank(whole)
    losses = [[(line["step"], line["loss"]) for line in curve_of(one)] for one in (again, whole)]
    assert losses[0] == losses[1]


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
