"""The node in a job of one worker: tokens in, a model that `from_pretrained` loads out."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.base import Resources
from configs.pretrain import PretrainSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.shards import Receipt
from ray_jobs.checkpoint.store import Store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.pretrain.job import run
from ray_jobs.pretrain.steps import StepStore
from tests.pretrain.conftest import SPEC
from tests.pretrain.corpus import publish_tokenizer, publish_tokens
from tests.pretrain.test_trainer import damage

ONE = Resources(workers=1)


def output_of(store: Store, attempt: str, **arguments: Any) -> NodeOutput:
    path = NodePath("pretrain", "0123456789abcdef" * 4)
    return NodeOutput(store, path, attempt, ONE, executor=InlineExecutor, **arguments)


def published(output: NodeOutput) -> Receipt:
    receipt = output.standing("model")
    assert receipt is not None
    return receipt


def test_the_node_leaves_a_model_with_its_tokenizer_and_its_curve(
    store: Store, inputs: dict[str, Checkpoint], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    told: list[dict[str, Any]] = []
    output = output_of(store, "first", show=told.append)
    outcome = run(PretrainSpec.model_validate(SPEC), inputs, output, ONE)
    assert outcome.outputs == ("model",)
    assert outcome.metrics["train_tokens"] == 12 * 8 * 32
    assert outcome.metrics["parameters"] == 512 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32
    assert told[-1]["done"] == told[-1]["total"] == 12 and told[-1]["unit"] == "steps"
    for file in published(output).files:
        (tmp_path / file.name).write_bytes(output.read(file))
    curve = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in curve] == [3, 6, 9, 12]
    assert curve[-1]["loss"] == pytest.approx(outcome.metrics["loss"], abs=1e-4)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert sum(parameter.numel() for parameter in model.parameters()) == outcome.metrics["parameters"]
    tokens = tokenizer("def main():", return_tensors="pt")
    assert tokenizer.decode(tokens["input_ids"][0]) == "def main():"
    loss = model(**tokens, labels=tokens["input_ids"]).loss.item()
    assert loss < 6.24  # ln 512: the trained weights are there


def test_the_published_bytes_are_a_function_of_spec_and_inputs(
    tmp_path: Path, store: Store, inputs: dict[str, Checkpoint]
) -> None:
    from ray_jobs.checkpoint.store import open_store

    digests = []
    for where in (store, open_store(tmp_path / "another")):
        tokenizer = publish_tokenizer(where)
        given = {"tokenizer": tokenizer, "tokens": publish_tokens(where, tokenizer)}
        output = output_of(where, f"of-{where.url[-3:]}")
        run(PretrainSpec.model_validate(SPEC), given, output, ONE)
        digests.append({file.name: file.sha256 for file in published(output).files if not file.volatile})
    assert digests[0] == digests[1]
    assert "metrics.jsonl" not in digests[0] and "model.safetensors" in digests[0]


def test_a_second_attempt_exports_what_the_first_trained(
    store: Store, inputs: dict[str, Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray_jobs.pretrain import job

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(job, "export", dies)
        with pytest.raises(KeyboardInterrupt):
            run(PretrainSpec.model_validate(SPEC), inputs, output_of(store, "first"), ONE)

    def trains_again(*_: object) -> None:
        raise AssertionError("the last checkpoint stands")

    monkeypatch.setattr(job, "train", trains_again)
    outcome = run(PretrainSpec.model_validate(SPEC), inputs, output_of(store, "second"), ONE)
    assert outcome.metrics["train_tokens"] == 12 * 8 * 32
    # And a third finds the model published.
    monkeypatch.setattr(job, "export", dies)
    assert run(PretrainSpec.model_validate(SPEC), inputs, output_of(store, "third"), ONE) == outcome


def test_a_last_checkpoint_that_was_damaged_is_taken_again(
    store: Store, inputs: dict[str, Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    spec = PretrainSpec.model_validate(SPEC)
    reference = output_of(store, "reference")
    run(spec, inputs, reference, ONE)
    expected = {file.name: file.sha256 for file in published(reference).files if not file.volatile}
    store.delete([reference.node_path.receipt("model", 0)])
    steps = StepStore(store, reference.node_path)
    last = steps.receipts()[0]
    damage(store, f"{steps.folder(last.step, last.session)}/__0_0.distcp")
    again = output_of(store, "again")
    run(spec, inputs, again, ONE)
    assert "the checkpoint of the last step is taken again" in caplog.text
    assert {file.name: file.sha256 for file in published(again).files if not file.volatile} == expected


def test_tokens_of_another_tokenizer_are_refused(store: Store, inputs: dict[str, Checkpoint]) -> None:
    other = {**inputs, "tokenizer": publish_tokenizer(store, salt="other")}
    with pytest.raises(ValueError, match="their ids mean other words; give both slots the same tokenizer"):
        run(PretrainSpec.model_validate(SPEC), other, output_of(store, "first"), ONE)


def test_a_batch_that_the_ranks_cannot_share_is_refused_before_they_start(
    store: Store, inputs: dict[str, Checkpoint]
) -> None:
    with pytest.raises(ValueError, match=r"global_batch .8. is less than 9 ranks.*take fewer workers"):
        run(PretrainSpec.model_validate(SPEC), inputs, output_of(store, "first"), Resources(workers=9))


def test_too_few_tokens_are_refused_before_the_ranks_start(store: Store) -> None:
    tokenizer = publish_tokenizer(store)
    few = {"tokenizer": tokenizer, "tokens": publish_tokens(store, tokenizer, num_documents=3)}
    with pytest.raises(ValueError, match="less than one global batch of 64: take more documents"):
        run(PretrainSpec.model_validate({**SPEC, "global_batch": 64}), few, output_of(store, "first"), ONE)
