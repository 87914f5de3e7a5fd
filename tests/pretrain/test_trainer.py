"""One rank, in this process: what training must give whatever interrupts it."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from ray_jobs.checkpoint.store import Store
from ray_jobs.pretrain.curve import read_curve
from ray_jobs.pretrain.launch import TrainingJob, train_rank
from ray_jobs.pretrain.steps import StepReceipt, StepStore
from ray_jobs.pretrain.tensors import read_tensors
from ray_jobs.pretrain.trainer import TrainingStopped
from tests.pretrain.corpus import publish_tokenizer, publish_tokens

Jobs = Callable[..., TrainingJob]
pytestmark = pytest.mark.usefixtures("one_rank")


def final(job: TrainingJob, step: int = 12) -> tuple[StepReceipt, dict[str, torch.Tensor]]:
    steps = StepStore(job.store, job.path)
    receipt = steps.of_step(step)
    assert receipt is not None
    return receipt, read_tensors(steps, receipt, "")


def losses(job: TrainingJob) -> list[tuple[int, float, float]]:
    receipt, _ = final(job)
    return [(line["step"], line["loss"], line["grad_norm"]) for line in read_curve(job.store, job.path, receipt)]


_reference: dict[str, Any] = {}


@pytest.fixture
def whole(job: Jobs) -> dict[str, Any]:
    """The uninterrupted training's curve and tensors; trained once, as it is the same every time."""
    if not _reference:
        trained = job("whole")
        train_rank(trained)
        _, tensors = final(trained)
        _reference.update(losses=losses(trained), tensors=tensors)
    return _reference


def stop_at(step: int) -> Callable[[], bool]:
    """A `should_stop` that says so in its `step`-th step."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) == step


def test_a_line_of_the_curve_says_what_its_steps_took(job: Jobs) -> None:
    parts = job("lines", {"steps": 12})
    with pytest.raises(TrainingStopped):
        train_rank(parts, should_stop=stop_at(6))
    train_rank(parts)
    lines = read_curve(parts.store, parts.path, final(parts)[0])
    assert [line["restarts"] for line in lines] == [0, 0, 1, 1]
    assert [line["samples"] for line in lines] == [24, 48, 72, 96]
    # Checkpoints of step 4 and, as it was stopped, 6; of 8 and 12.
    assert [line["checkpoint_pause_s"] > 0 for line in lines] == [False, True, True, True]
    for line in lines:
        assert 0 <= line["data_wait_share"] < 1
        assert 0.05 < line["peak_memory_gb"] < 20


def test_a_save_on_request_changes_nothing_but_that_it_stands(job: Jobs, whole: dict[str, Any]) -> None:
    warned = job("warned")
    train_rank(warned, should_save=stop_at(7))
    assert losses(warned) == whole["losses"]
    assert [receipt.step for receipt in StepStore(warned.store, warned.path).receipts()] == [12, 8]
    kept = job("kept", {"checkpoints_kept": 9})
    train_rank(kept, should_save=stop_at(7))
    assert [receipt.step for receipt in StepStore(kept.store, kept.path).receipts()] == [12, 8, 7, 4]


def damage(store: Store, path: str) -> None:
    data = bytearray(store.get(path) or b"")
    data[len(data) // 2] ^= 1
    store.put(path, bytes(data))


def test_it_learns(whole: dict[str, Any]) -> None:
    curve = whole["losses"]
    assert [step for step, _, _ in curve] == [3, 6, 9, 12]
    assert curve[0][1] > 5.8  # ln 512 = 6.24
    assert curve[-1][1] < curve[0][1] - 0.5


def test_two_trainings_of_one_seed_are_equal_to_the_bit_and_of_two_seeds_are_not(
    job: Jobs, whole: dict[str, Any]
) -> None:
    second, third = job("second"), job("third", {"seed": 1})
    train_rank(second)
    train_rank(third)
    assert whole["losses"] == losses(second) != losses(third)
    for name, tensor in whole["tensors"].items():
        assert torch.equal(tensor, final(second)[1][name]), name


@pytest.mark.parametrize("stop", [1, 5, 8, 11])
def test_a_stopped_and_resumed_training_is_the_uninterrupted_one_to_the_bit(
    job: Jobs, whole: dict[str, Any], stop: int
) -> None:
    parts = job("parts")
    with pytest.raises(TrainingStopped, match=f"after step {stop}"):
        train_rank(parts, should_stop=stop_at(stop))
    train_rank(parts)
    assert losses(parts) == whole["losses"]
    tensors = final(parts)[1]
    assert len(tensors) == 3 * 20  # weights and two moments of 2 layers · 9, the embedding and the last norm
    for name, tensor in whole["tensors"].items():
        assert torch.equal(tensor, tensors[name]), name


def test_a_rank_that_dies_between_checkpoints_loses_only_the_steps_since(job: Jobs, whole: dict[str, Any]) -> None:
    parts = job("parts")

    def dies() -> Iterator[bool]:
        yield from [False] * 6
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_rank(parts, should_stop=dies().__next__)
    assert [receipt.step for receipt in StepStore(parts.store, parts.path).receipts()] == [4]
    train_rank(parts)
    assert losses(parts) == whole["losses"]
    segments = final(parts)[0].state["segments"]
    assert [(segment["first"], segment["last"]) for segment in segments] == [(0, 4), (4, 12)]
    assert segments[0]["session"] != segments[1]["session"]


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_accumulation_is_one_batch_up_to_rounding(job: Jobs, whole: dict[str, Any], micro_batch: int) -> None:
    parts = job("parts", micro_batch=micro_batch)
    train_rank(parts)
    for (_, loss, norm), (_, other_loss, other_norm) in zip(whole["losses"], losses(parts), strict=True):
        assert loss == pytest.approx(other_loss, rel=1e-4)
        assert norm == pytest.approx(other_norm, rel=1e-3)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_recomputing_activations_changes_nothing(job: Jobs, whole: dict[str, Any], recompute: str) -> None:
    recomputed = job("recomputed", {"recompute": recompute})
    train_rank(recomputed)
    assert losses(recomputed) == whole["losses"]


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "mpt", "intermediate": 128},
        {"architecture": "qwen3"},
        {"rope_scaling": {"method": "yarn", "factor": 2, "original_positions": 16}},
    ],
)
def test_every_class_learns(job: Jobs, whole: dict[str, Any], changes: dict[str, Any]) -> None:
    model = {"hidden": 32, "layers": 2, "heads": 2, "intermediate": 64, "max_positions": 32, **changes}
    other = job(f"class {changes}", {"model": model})
    train_rank(other)
    assert losses(other)[-1][1] == pytest.approx(whole["losses"][-1][1], abs=0.3)
    assert losses(other) != whole["losses"]


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_fewer_bits_learn_as_fp32_does_and_keep_fp32_masters(job: Jobs, whole: dict[str, Any], dtype: str) -> None:
    if dtype == "fp8":
        pytest.importorskip("torchao.float8", reason="needs torchao: pip install 'headrace[float8]'")
    reduced = job(dtype, {"dtype": dtype})
    train_rank(reduced)
    assert losses(reduced)[-1][1] == pytest.approx(whole["losses"][-1][1], abs=0.05)
    trained = final(reduced)[1]
    assert {tensor.dtype for tensor in trained.values()} == {torch.float32}
    assert {name: tensor.shape for name, tensor in trained.items()} == {
        name: tensor.shape for name, tensor in whole["tensors"].items()
    }


def test_z_loss_is_reported_apart_from_the_cross_entropy(job: Jobs, whole: dict[str, Any]) -> None:
    optimizer = {"learning_rate": 1e-2, "warmup_steps": 3, "z_loss": 1e-2}
    with_z = job("with_z", {"optimizer": optimizer})
    train_rank(with_z)
    curve = read_curve(with_z.store, with_z.path, final(with_z)[0])
    # Both begin at the same cross-entropy; logsumexp² is about (ln 512)² there.
    assert curve[0]["loss"] == pytest.approx(whole["losses"][0][1], abs=0.01)
    assert curve[0]["z_loss"] == pytest.approx(1e-2 * 6.24**2, rel=0.15)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata"])
def test_a_flipped_byte_is_found_and_the_checkpoint_before_is_taken(
    job: Jobs, whole: dict[str, Any], caplog: pytest.LogCaptureFixture, name: str
) -> None:
    parts = job("parts")
    with pytest.raises(TrainingStopped):
        train_rank(parts, should_stop=stop_at(10))
    steps = StepStore(parts.store, parts.path)
    newest, before = steps.receipts()
    assert (newest.step, before.step) == (10, 8)
    damage(parts.store, f"{steps.folder(10, newest.session)}/{name}")
    with caplog.at_level(logging.WARNING, logger="headrace"):
        train_rank(parts)
    assert f"step 10 is passed over: {parts.store.url}" in caplog.text
    assert name in caplog.text and "does not match the checksum" in caplog.text
    assert losses(parts) == whole["losses"]


def test_with_every_checkpoint_damaged_training_begins_anew(
    job: Jobs, whole: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    parts = job("parts")
    with pytest.raises(TrainingStopped):
        train_rank(parts, should_stop=stop_at(5))
    steps = StepStore(parts.store, parts.path)
    missing, cut = steps.receipts()
    parts.store.delete([f"{steps.folder(5, missing.session)}/__0_0.distcp"])
    parts.store.delete([steps.receipt_path(4)])
    parts.store.put(steps.receipt_path(4), cut.to_json()[:100])
    train_rank(parts)
    assert "is gone" in caplog.text and "is damaged and is passed over" in caplog.text
    assert losses(parts) == whole["losses"]


def test_only_the_newest_checkpoints_are_kept_and_what_a_killed_save_left_is_cleared(job: Jobs) -> None:
    kept = job("kept", {"checkpoint_every": 2, "checkpoints_kept": 2})
    orphan = f"{kept.path.root}/steps/00000003-killed/__0_0.distcp"
    kept.store.put(orphan, b"half")
    train_rank(kept)
    assert [receipt.step for receipt in StepStore(kept.store, kept.path).receipts()] == [12, 10]
    folders = kept.store.folders(f"{kept.path.root}/steps/")
    assert [folder[:8] for folder in folders] == ["00000010", "00000012"]


def test_a_receipt_names_every_object_and_holds_what_is_no_tensor(job: Jobs) -> None:
    whole = job("whole")
    train_rank(whole)
    receipt, _ = final(whole)
    folder = StepStore(whole.store, whole.path).folder(12, receipt.session)
    stored = {entry.path.rpartition("/")[2]: entry.size for entry in whole.store.list(f"{folder}/")}
    assert {file.name: file.bytes for file in receipt.files} == stored
    assert receipt.state["next_sample"] == 12 * 8
    assert receipt.state["seed"] == 0
    json.dumps(receipt.state)


def test_a_loss_that_is_no_number_names_rank_and_step(job: Jobs) -> None:
    steep = job("steep", {"optimizer": {"learning_rate": 1e18, "warmup_steps": 0, "clip_norm": 1e30}})
    with pytest.raises(ValueError, match=r"not a finite number at step \d+.*Lower optimizer.learning_rate"):
        train_rank(steep)


def test_a_corpus_smaller_than_one_batch_is_refused(job: Jobs) -> None:
    with pytest.raises(ValueError, match="less than one global batch of 100000: take more documents"):
        train_rank(job("small", {"global_batch": 100_000}))


def test_a_token_outside_the_vocabulary_is_refused(job: Jobs) -> None:
    whole = job("whole")
    narrow = replace(whole, vocabulary=replace(whole.vocabulary, num_tokens=300))
    with pytest.raises(ValueError, match=r"hold token \d+, but the tokenizer has 300 tokens: train on tokens that"):
        train_rank(narrow)


def test_on_s3_a_stopped_training_resumes_and_a_flipped_byte_is_found(
    s3_store: Store, job: Jobs, whole: dict[str, Any]
) -> None:
    tokenizer = publish_tokenizer(s3_store)
    alike = job("parts")
    parts = replace(alike, store=s3_store, tokens=publish_tokens(s3_store, tokenizer))
    with pytest.raises(TrainingStopped):
        train_rank(parts, should_stop=stop_at(10))
    steps = StepStore(s3_store, parts.path)
    damage(s3_store, f"{steps.folder(10, steps.receipts()[0].session)}/__0_0.distcp")
    train_rank(parts)
    assert losses(parts) == whole["losses"]
    assert [receipt.step for receipt in steps.receipts()] == [12, 8]
