"""The node on untrained models: every cell once, resumable, and what cannot be measured is refused."""

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from configs.base import Resources
from configs.long_context import LongContextSpec, PasskeySpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import digest_of_receipts
from ray_jobs.checkpoint.shards import Outcome
from ray_jobs.checkpoint.store import open_store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.long_context import job
from ray_jobs.long_context.job import run
from tests.long_context.models import TRAINING_LENGTH, publish_inputs, publish_model
from tests.pretrain.corpus import publish_tokenizer

ONE = Resources(workers=1, shards_per_task=1)
SPEC = LongContextSpec(
    lengths=(1, 3),
    max_texts=4,
    bootstrap_samples=50,
    passkey=PasskeySpec(num_trials=2, num_distractors=3, depths=(0.0, 0.5)),
)
STRETCHING = ("linear", "ntk", "dynamic", "yarn", "llama3")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Checkpoint]:
    return publish_inputs(open_store(tmp_path_factory.mktemp("store")))


def measured(
    spec: LongContextSpec, inputs: dict[str, Checkpoint], attempt: str, key: str | None = None
) -> tuple[Outcome, NodeOutput]:
    path = NodePath("long-context", (key or attempt).encode().hex().ljust(64, "0")[:64])
    output = NodeOutput(inputs["tokens"].store, path, attempt, ONE, executor=InlineExecutor)
    return run(spec, inputs, output, ONE), output


@pytest.fixture(scope="module")
def whole(inputs: dict[str, Checkpoint]) -> tuple[Outcome, NodeOutput]:
    return measured(SPEC, inputs, "whole")


def comparison(output: NodeOutput) -> dict[str, Any]:
    (file,) = output.receipts["results", 0].files
    found: dict[str, Any] = json.loads(output.read(file))
    return found


def test_every_model_is_measured_by_every_method_that_it_can_take(whole: tuple[Outcome, NodeOutput]) -> None:
    outcome, output = whole
    found = comparison(output)
    assert [(cell["model"], cell["method"], cell["length"]) for cell in found["cells"]] == [
        ("alibi", "cut", 192),
        ("alibi", "trained", 64),
        ("alibi", "trained", 192),
        ("rope", "cut", 192),
        ("rope", "trained", 64),
        ("rope", "trained", 192),
        *(("rope", method, 192) for method in STRETCHING),
    ]
    assert found["training_length"] == TRAINING_LENGTH and found["texts"]["number"] == 4
    assert outcome.counters == {
        "cells": 11,
        "texts": 4,
        "tokens": sum(r.counters["tokens"] for (stage, _), r in output.receipts.items() if stage == "cells"),
        "prompts": 7 * 4,  # a text of 64 tokens has no room for one
    }
    for cell in found["cells"]:
        assert [each["end"] for each in cell["curve"]] == list(range(16, cell["length"] + 1, 16))
        assert cell["loss"]["low"] < cell["loss"]["value"] < cell["loss"]["high"]
        assert cell["end_loss"] == cell["curve"][-1]["loss"] and cell["end_excess"] == cell["curve"][-1]["excess"]
        assert (cell["passkey"] is None) == (cell["length"] == 64 or cell["method"] == "cut")
        if cell["method"] == "cut":
            assert all(each["excess"] == {"value": 0, "low": 0, "high": 0} for each in cell["curve"])
        if cell["method"] == "trained":
            assert all(each["excess"]["value"] == pytest.approx(0, abs=1e-3) for each in cell["curve"][:4])


def test_metrics_are_those_of_the_comparison(whole: tuple[Outcome, NodeOutput]) -> None:
    outcome, output = whole
    for cell in comparison(output)["cells"]:
        name = f"{cell['model']}_{cell['method']}"
        assert outcome.metrics[f"{name}_{cell['factor']:g}x_nats"] == cell["loss"]["value"]
        if cell["length"] == 192 and cell["method"] != "cut":
            at = "nowhere" if cell["breaks"] is None else 16 * cell["breaks"] + 1
            assert outcome.metrics[f"{name}_breaks_at"] == at
            assert outcome.metrics[f"{name}_3x_passkey"] == cell["passkey"]["first"]
    assert str(outcome.metrics["finding"]).startswith("in texts of 192 tokens alibi ")


def values(curve: list[dict[str, Any]]) -> list[float]:
    return [each["loss"]["value"] for each in curve]


def test_a_text_within_the_training_length_is_read_alike_by_the_longer(whole: tuple[Outcome, NodeOutput]) -> None:
    cells = {(c["model"], c["method"], c["length"]): c["curve"] for c in comparison(whole[1])["cells"]}
    for model in ("rope", "alibi"):
        long, short = cells[model, "trained", 192], cells[model, "trained", 64]
        assert values(long[:4]) == pytest.approx(values(short), abs=1e-3)
    dynamic, trained = cells["rope", "dynamic", 192], cells["rope", "trained", 64]
    assert values(dynamic[:4]) == pytest.approx(values(trained), abs=1e-3)


def test_files_hold_every_text_and_every_answer(whole: tuple[Outcome, NodeOutput]) -> None:
    files = {file.name: file for file in whole[1].receipts["cells", 5].files}
    losses, answers = (
        pq.read_table(io.BytesIO(whole[1].read(files[name]))) for name in ("losses.parquet", "passkeys.parquet")
    )
    assert losses.num_rows == 4 * 12 and losses.column_names == ["text", "begin", "end", "nats", "tokens"]
    assert answers.num_rows == 2 * 2
    assert answers.column_names == ["depth", "trial", "key", "num_likelier", "logprob", "written"]


def test_it_goes_on_with_the_cells_that_are_not_done(
    inputs: dict[str, Checkpoint], whole: tuple[Outcome, NodeOutput], monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    measure = job.measure

    def killed(shard: dict[str, Any], context: Any) -> Any:
        if len(computed) == 4:
            raise KeyboardInterrupt
        computed.append(f"{shard['model']} {shard['method']} {shard['length']}")
        return measure(shard, context)

    monkeypatch.setattr(job, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        measured(SPEC, inputs, "killed")

    def counted(shard: dict[str, Any], context: Any) -> Any:
        computed.append(f"{shard['model']} {shard['method']} {shard['length']}")
        return measure(shard, context)

    monkeypatch.setattr(job, "measure", counted)
    _, resumed = measured(SPEC, inputs, "resumed", key="killed")
    assert len(computed) == len(set(computed)) == 11
    digests = [
        digest_of_receipts("k", [output.receipts[place] for place in sorted(output.receipts)], [])
        for output in (whole[1], resumed)
    ]
    assert digests[0] == digests[1]


def test_the_only_model_is_called_model(inputs: dict[str, Checkpoint]) -> None:
    alone = {"tokenizer": inputs["tokenizer"], "tokens": inputs["tokens"], "model": inputs["model.alibi"]}
    spec = SPEC.model_copy(update={"methods": ("trained",), "passkey": PasskeySpec(num_trials=0)})
    outcome, output = measured(spec, alone, "alone")
    assert {cell["model"] for cell in comparison(output)["cells"]} == {"model"}
    assert outcome.counters is not None and outcome.counters["prompts"] == 0
    assert comparison(output)["chance"] is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"methods": ("trained", "xpos")}, "Input should be 'trained', 'linear', 'ntk'"),
        ({"methods": ("yarn",)}, "leaves out trained, which stands beside the others"),
        ({"methods": ("trained", "yarn", "yarn")}, "methods names one twice"),
        ({"lengths": (0.5, 1)}, "greater than or equal to 1"),
        ({"lengths": (1, 1.1)}, "lengths has 1.1, which is no whole number of 1/4: change it, or"),
        ({"lengths": ()}, "at least 1 item"),
        ({"lengths": (2, 2)}, "lengths names one twice"),
        ({"passkey": {"depths": (1.5,)}}, "less than or equal to 1"),
    ],
)
def test_what_a_spec_may_not_say(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        LongContextSpec.model_validate(changes)


def test_what_cannot_be_measured_is_refused_with_what_to_do(inputs: dict[str, Checkpoint]) -> None:
    tokenizer, store = inputs["tokenizer"], inputs["tokens"].store
    alibi = {slot: upstream for slot, upstream in inputs.items() if slot != "model.rope"}
    longer = {**inputs, "model.alibi": publish_model(store, tokenizer, "alibi", salt="longer", max_positions=128)}
    scaled = {"rope_scaling": {"method": "linear", "factor": 2}}
    stretched = {**inputs, "model.rope": publish_model(store, tokenizer, "rope", salt="scaled", **scaled)}
    other = {**inputs, "tokenizer": publish_tokenizer(store, salt="other")}
    for refused, changes, complaint in (
        (alibi, {}, r"alibi has ALiBi, .*no rotary positions to stretch by linear.*set methods to \[trained\]"),
        (longer, {}, r"different lengths \(alibi on 128, rope on 64\).*set training_length"),
        (stretched, {}, "are of type linear already, and are not stretched twice: measure it as trained"),
        (other, {}, r"the tokens .* is of tokenizer .* give all slots the same tokenizer"),
        (inputs, {"lengths": (1, 4000)}, r"8 texts of 256,000 tokens take about .* GB with model .*: lower batch or"),
        (inputs, {"lengths": (1, 200), "batch": 1}, r"less than two texts of 12,800: raise tokens.heldout_share"),
        (inputs, {"lengths": (1,)}, r"takes \d+ tokens, and the longest text has 64: raise lengths, or set passkey"),
        (inputs, {"buckets": 65}, r"buckets \(65\) are more than the 64 tokens"),
    ):
        with pytest.raises(ValueError, match=complaint):
            measured(SPEC.model_copy(update=changes), refused, f"refused-{complaint[:9]}")


def test_one_training_length_can_be_set_for_all(inputs: dict[str, Checkpoint]) -> None:
    longer = publish_model(inputs["tokens"].store, inputs["tokenizer"], "alibi", salt="longer", max_positions=128)
    spec = SPEC.model_copy(
        update={"methods": ("trained",), "training_length": 64, "passkey": PasskeySpec(num_trials=0)}
    )
    _, output = measured(spec, {**inputs, "model.alibi": longer}, "set")
    assert comparison(output)["training_length"] == 64
