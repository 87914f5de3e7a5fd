"""The node on a model that was trained here, beside models that only count."""

import json
from pathlib import Path

import pytest

from configs.base import Resources
from configs.evaluate import EvaluateSpec, SamplingSpec
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.store import open_store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.evaluate.job import run
from ray_jobs.pretrain.job import run as pretrain
from tests.pretrain.conftest import SPEC
from tests.pretrain.corpus import documents, publish, publish_tokenizer, publish_tokens

ONE = Resources(workers=1)
EVALUATION = EvaluateSpec(
    bootstrap_samples=200, sampling=SamplingSpec(num_samples=3, num_prompt_tokens=6, num_new_tokens=20)
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    """A model of 120 steps, of which each takes about 10 ms."""
    store = open_store(tmp_path_factory.mktemp("store"))
    tokenizer = publish_tokenizer(store)
    given = {"tokenizer": tokenizer, "tokens": publish_tokens(store, tokenizer)}
    output = NodeOutput(store, NodePath("pretrain", "f" * 64), "attempt", ONE, executor=InlineExecutor)
    spec = PretrainSpec.model_validate({**SPEC, "steps": 120, "checkpoint_every": 120})
    pretrain(spec, given, output, ONE)
    receipt = output.standing("model")
    assert receipt is not None
    files = {file.name: output.read(file) for file in receipt.files}
    return {**given, "model": publish(store, "pretrain", {"model": files}, inputs={"tokenizer": tokenizer})}


def evaluated(spec: EvaluateSpec, inputs: dict[str, Checkpoint], attempt: str) -> tuple[dict, dict[str, bytes]]:
    store = inputs["tokens"].store
    output = NodeOutput(store, NodePath("evaluate", attempt.encode().hex() * 8), attempt, ONE, executor=InlineExecutor)
    outcome = run(spec, inputs, output, ONE)
    receipt = output.standing("results")
    assert outcome.outputs == ("results",) and receipt is not None
    return outcome.metrics, {file.name: output.read(file) for file in receipt.files}


def test_a_trained_model_beats_the_unigram_and_figures_are_consistent(inputs: dict[str, Checkpoint]) -> None:
    metrics, files = evaluated(EVALUATION, inputs, "whole")
    results = json.loads(files["results.json"])
    heldout = [text for i, text in enumerate(documents()) if i % 10 == 0]
    assert results["documents"] == len(heldout)
    assert results["bytes"] == sum(len(text.encode()) for text in heldout)
    # Per token, in nats, less than a uniform guess over 512; and less than by frequency alone.
    assert results["model"]["bits_per_byte"] < results["unigram"]["bits_per_byte"]
    assert results["trigram"]["bits_per_byte"] < results["unigram"]["bits_per_byte"]
    low, high = results["model"]["bits_per_byte_95"]
    assert low < results["model"]["bits_per_byte"] < high
    assert metrics["bits_per_byte"] == results["model"]["bits_per_byte"]
    assert (metrics["bits_per_byte_low"], metrics["bits_per_byte_high"]) == (low, high)


def test_samples_continue_heldout_documents_and_are_those_of_the_seed(inputs: dict[str, Checkpoint]) -> None:
    _, files = evaluated(EVALUATION, inputs, "whole")
    _, again = evaluated(EVALUATION, inputs, "again")
    other_seed = EVALUATION.model_copy(update={"sampling": EVALUATION.sampling.model_copy(update={"seed": 1})})
    _, other = evaluated(other_seed, inputs, "other")
    assert again == files
    assert other["samples.json"] != files["samples.json"]
    samples = json.loads(files["samples.json"])
    assert len(samples) == 3 and len({sample["document"] for sample in samples}) == 3
    heldout = [text for i, text in enumerate(documents()) if i % 10 == 0]
    for sample in samples:
        text = heldout[int(sample["document"].split("/")[1])]
        assert text.startswith(sample["prompt"] + sample["reference"])
        assert sample["continuation"] or sample["ended"]
        assert "<|endoftext|>" not in sample["continuation"]


def test_greedy_samples_need_no_luck(inputs: dict[str, Checkpoint]) -> None:
    greedy = EVALUATION.model_copy(update={"sampling": EVALUATION.sampling.model_copy(update={"temperature": 0.0})})
    _, files = evaluated(greedy, inputs, "greedy")
    assert len(json.loads(files["samples.json"])) == 3


def test_tokens_of_another_tokenizer_are_refused(inputs: dict[str, Checkpoint]) -> None:
    other = {**inputs, "tokenizer": publish_tokenizer(inputs["tokens"].store, salt="other")}
    with pytest.raises(ValueError, match=r"the tokens .* are of tokenizer .* give both slots the same tokenizer"):
        evaluated(EVALUATION, other, "refused")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"context_length": 64}, r"context_length .64. is more than the model's 32 positions: lower it"),
        ({"context_length": 16, "stride": 17}, r"stride .17. is more than the context .16."),
        ({"sampling": SamplingSpec(num_new_tokens=96)}, "more than the model's 32 positions: lower one of them"),
    ],
)
def test_windows_that_do_not_fit_the_model_are_refused(
    inputs: dict[str, Checkpoint], changes: dict, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        evaluated(EVALUATION.model_copy(update=changes), inputs, "refused")


def test_samples_that_are_not_asked_for_need_no_room(inputs: dict[str, Checkpoint]) -> None:
    none = EVALUATION.model_copy(update={"sampling": SamplingSpec(num_samples=0, num_new_tokens=96)})
    _, files = evaluated(none, inputs, "unasked")
    assert json.loads(files["samples.json"]) == []


def test_without_heldout_documents_it_says_what_to_do(inputs: dict[str, Checkpoint], tmp_path: Path) -> None:
    store = open_store(tmp_path)
    tokenizer = publish_tokenizer(store)
    empty = publish(store, "tokens", {}, {"dtype": "uint16"}, {"tokenizer": tokenizer}, salt="empty")
    with pytest.raises(ValueError, match=r"there are no held-out documents: raise tokens.heldout_share"):
        evaluated(EVALUATION, {**inputs, "tokens": empty}, "none")
