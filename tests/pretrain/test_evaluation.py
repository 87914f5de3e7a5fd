"""Evaluation while training runs: what it finds, and that training does not notice."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer

from configs.nodes import NODES
from configs.pretrain import PretrainSpec
from configs.recipe import make_recipe
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store
from ray_jobs.evaluate.perplexity import document_nlls, score
from ray_jobs.external.tables import examples_file
from ray_jobs.model.architecture import empty_model, materialise, transformers_config
from ray_jobs.model.questions import Choice, Question, accuracy_by_set, parsed
from ray_jobs.pretrain import meter as meter_module
from ray_jobs.pretrain.curve import read_curve
from ray_jobs.pretrain.evaluation import bits_per_byte
from ray_jobs.pretrain.launch import TrainingJob, train_rank
from ray_jobs.pretrain.measured import largest, measured
from ray_jobs.pretrain.meter import Interval, Meter
from ray_jobs.pretrain.position import Position
from ray_jobs.pretrain.trainer import TrainingStopped
from ray_jobs.tokenizer.heldout import HeldOut, domains_of, heldout_documents
from tests.pretrain.conftest import SPEC
from tests.pretrain.corpus import documents, publish, publish_tokens, tokenizer_json
from tests.pretrain.ranks import finish, job_of, start
from tests.pretrain.test_trainer import final, losses, stop_at

Jobs = Callable[..., TrainingJob]
EVERY_6 = {"evaluation": {"every": 6, "max_documents": 20}}


def curve_of(job: TrainingJob) -> list[dict[str, Any]]:
    return read_curve(job.store, job.path, final(job)[0])


def evaluated_steps(job: TrainingJob) -> list[int]:
    return [line["step"] for line in curve_of(job) if "heldout_bits_per_byte" in line]


def model_of(job: TrainingJob) -> torch.nn.Module:
    """The trained weights in transformers' own class."""
    model = empty_model(transformers_config(job.spec.model, job.vocabulary.num_tokens))
    materialise(model, torch.device("cpu"))
    tensors = {name.removeprefix("model."): tensor for name, tensor in final(job)[1].items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    return model.eval()


def publish_questions(store: Store, num_questions: int = 6) -> Checkpoint:
    """Which of four lines follows a piece of code."""
    lines = [line.strip() for text in documents() for line in text.splitlines() if len(line.strip()) > 20]
    records = [
        {"query": lines[9 * i], "choices": [lines[9 * i + k] for k in (3, 1, 5, 7)], "gold": 1}
        for i in range(num_questions)
    ]
    sets = {"examples.parquet": examples_file("lines", [(record["query"], record) for record in records]).data}
    return publish(store, "eval-sets", {"sets": sets})


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("changes", [{}, {"recompute": "selective", "packing": "best-fit"}, {"dtype": "bf16"}])
def test_training_with_evaluation_is_training_without_it_to_the_bit(job: Jobs, changes: dict[str, Any]) -> None:
    without, evaluated = (
        job("without", changes),
        job("with", {**changes, "evaluation": {"every": 3, "max_documents": 9}}),
    )
    train_rank(without)
    train_rank(evaluated)
    assert losses(evaluated) == losses(without)
    assert evaluated_steps(evaluated) == [3, 6, 9, 12] and evaluated_steps(without) == []
    expected, found = final(without)[1], final(evaluated)[1]
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


@pytest.mark.usefixtures("one_rank")
def test_the_curve_says_what_the_evaluate_node_finds_in_the_trained_model(job: Jobs) -> None:
    trained = job("trained", {"evaluation": {"every": 6, "max_documents": 25}}, micro_batch=3)
    train_rank(trained)
    given = heldout_documents(trained.tokens, 25)
    nlls = document_nlls(model_of(trained), given, 0, context=32, stride=16, batch=16)  # type: ignore[arg-type]
    line = curve_of(trained)[-1]
    expected = score(nlls, given, None).bits_per_byte
    assert line["heldout_bits_per_byte"] == pytest.approx(expected, rel=1e-5)
    assert line["heldout_bits_per_byte_by_domain"] == {"documents": pytest.approx(expected, rel=1e-5)}
    first = curve_of(trained)[1]
    assert first["step"] == 6 and first["heldout_bits_per_byte"] > expected + 0.1
    assert 0 < line["evaluation_s"] < 60


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("stop", [2, 6, 7])
def test_an_evaluation_stands_once_on_the_curve_of_a_resumed_training(job: Jobs, stop: int) -> None:
    whole, parts = job("whole", EVERY_6), job("parts", EVERY_6)
    train_rank(whole)
    with pytest.raises(TrainingStopped):
        train_rank(parts, should_stop=stop_at(stop))
    train_rank(parts)
    names = ("step", "loss", "heldout_bits_per_byte", "heldout_bits_per_byte_by_domain")
    figures = [[{name: line.get(name) for name in names} for line in curve_of(one)] for one in (whole, parts)]
    assert figures[0] == figures[1]
    assert evaluated_steps(parts) == [6, 12]


@pytest.mark.slow
def test_two_ranks_train_the_same_with_evaluation_and_find_what_one_finds(
    job: Jobs, training: Callable[..., dict[str, Any]], store: Store, one_rank: None
) -> None:
    sets = publish_questions(store)
    few = {"evaluation": {"every": 6, "max_documents": 9}}
    asked = training("asked", few, micro_batch=2)
    asked["inputs"] = {**asked["inputs"], "eval-sets": sets.key}
    for status, output in finish(start(2, [training("plain", micro_batch=2), asked])):
        assert status == 0, output
    plain, two = job("plain"), job("asked", few)
    assert losses(plain) == losses(two)
    for name, tensor in final(plain)[1].items():
        assert torch.equal(tensor, final(two)[1][name]), name
    one = job_of(**{**asked, "name": "one"})
    train_rank(one)
    for ours, theirs in zip(curve_of(two)[1::2], curve_of(one)[1::2], strict=True):
        assert ours["heldout_bits_per_byte"] == pytest.approx(theirs["heldout_bits_per_byte"], rel=1e-3)
    assert curve_of(two)[-1]["accuracy_by_set"] == curve_of(one)[-1]["accuracy_by_set"]


@pytest.mark.usefixtures("one_rank")
def test_a_question_is_answered_by_the_choice_that_is_likeliest_a_byte(
    job: Jobs, training: Callable[..., dict[str, Any]], store: Store
) -> None:
    sets = publish_questions(store, 8)
    arguments = training("asked", {"evaluation": {"every": 12, "max_documents": 3, "num_questions": 5}})
    arguments["inputs"] = {**arguments["inputs"], "eval-sets": sets.key}
    trained = job_of(**arguments)
    train_rank(trained)
    model, encode = model_of(trained), Tokenizer.from_str(tokenizer_json()).encode
    right = []
    table = pq.read_table(pa.BufferReader(sets.read(sets.file("examples.parquet"))))
    records = [json.loads(record) for record in table["record"].to_pylist()]
    for place in (0, 2, 4, 5, 7):  # evenly spaced, of 8
        record, costs = records[place], []
        for choice in record["choices"]:
            text, whole = encode(record["query"]).ids, encode(f"{record['query']} {choice}").ids
            tokens = [0, *whole][-33:]  # of a long one the end
            with torch.no_grad():
                logprobs = model(torch.tensor([tokens[:-1]])).logits[0].log_softmax(dim=-1)
            scored = min(len(whole) - len(text), 32)
            cost = -sum(logprobs[-k, tokens[-k]].item() for k in range(1, scored + 1))
            costs.append(cost / len(choice.encode()))
        right.append(costs.index(min(costs)) == record["gold"])
    assert curve_of(trained)[-1]["accuracy_by_set"] == {"lines": sum(right) / 5}


@pytest.mark.usefixtures("one_rank")
def test_the_time_of_evaluations_is_of_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(meter_module.time, "perf_counter", lambda: now[0])
    spec = PretrainSpec.model_validate(SPEC)
    meter = Meter(spec, 512, 100, torch.device("cpu"), step=0)

    def lasts(seconds: float) -> None:
        now[0] += seconds

    interval = Interval(steps=3, loss=3.0)
    lasts(2)
    assert meter.record(Position(3, interval), 0.1, 0.0)["tokens_per_second"] == 3 * 8 * 32 / 2
    meter.apart(lambda: lasts(100))
    lasts(4)
    assert meter.record(Position(6, interval), 0.1, 0.0)["tokens_per_second"] == 3 * 8 * 32 / 4


def heldout(*pairs: tuple[str, int]) -> list[HeldOut]:
    return [HeldOut(name, np.zeros(1, dtype=np.int64), size) for name, size in pairs]


def test_the_largest_domains_are_told_apart_and_the_others_put_together() -> None:
    given = heldout(("a", 10), ("b", 30), ("c", 5), ("a", 25), ("d", 1))
    domains = ["a", "b", "c", "a", "d"]
    assert largest(domains, given, 2) == ["a", "b", "others", "a", "others"]
    assert largest(domains, given, 4) == domains
    assert largest(domains, given, 0) == ["others"] * 5


def test_a_domain_is_the_host_of_the_url_and_else_the_source(store: Store, inputs: dict[str, Checkpoint]) -> None:
    tokenizer = inputs["tokenizer"]
    found = heldout_documents(inputs["tokens"], 4)
    assert domains_of(inputs["tokens"], found) == ["documents"] * 4  # no input holds documents
    urls = ["https://docs.example.org/a", "https://www.example.com:8000/b?c", "file-of-mine.txt#3"]
    table = pa.table({"id": [document.id for document in found[:3]], "url": urls, "text": ["", "", ""]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    scrub = publish(store, "scrub", {"documents": {"documents.parquet": sink.getvalue().to_pybytes()}})
    plain = publish_tokens(store, tokenizer, 50)
    manifest = plain.manifest
    named = {
        **manifest.inputs,
        "documents": manifest.inputs["tokenizer"].model_copy(update={"node": "scrub", "key": scrub.key}),
    }
    tokens = Checkpoint(store, manifest.model_copy(update={"inputs": named}))
    found = heldout_documents(tokens, 4)
    assert domains_of(tokens, found) == ["docs.example.org", "www.example.com", "documents", "documents"]


def test_domains_are_sources_where_the_documents_were_collected(
    store: Store, inputs: dict[str, Checkpoint], caplog: pytest.LogCaptureFixture
) -> None:
    manifest = inputs["tokens"].manifest
    named = {**manifest.inputs, "documents": manifest.inputs["tokenizer"].model_copy(update={"node": "scrub"})}
    tokens = Checkpoint(store, manifest.model_copy(update={"inputs": named}))
    assert domains_of(tokens, heldout_documents(tokens, 2)) == ["documents"] * 2
    assert "told apart by source" in caplog.text


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"query": "q", "choices": ["a", "b"], "gold": 1}, ("q", ["a", "b"], 1)),
        ({"question": "q", "choices": ["a", "b", "c"], "answer": 2}, ("q", ["a", "b", "c"], 2)),
        (
            {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
            ("q", ["a", "b"], 1),
        ),
        (
            {"question": "q", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "1"},
            ("q", ["a", "b"], 0),
        ),
        ({"ctx": "q\n", "endings": ["a", "b"], "label": "1"}, ("q", ["a", "b"], 1)),
        ({"question": "q", "answer": "#### 3"}, None),  # gsm8k's
        ({"query": "q", "choices": ["a", "b"], "gold": 2}, None),
        ({"query": "q", "choices": ["a"], "gold": 0}, None),
        ({"query": "q", "choices": ["a", " "], "gold": 0}, None),
        ({"query": "q", "choices": ["a", "b"], "gold": True}, None),
    ],
)
def test_records_of_multiple_choice_are_known_by_their_fields(record: dict[str, Any], expected: Any) -> None:
    assert parsed(record) == expected


def test_long_choices_are_at_no_disadvantage() -> None:
    ids = np.zeros(1, dtype=np.int64)
    question = Question("set", ids, (Choice(ids, 10), Choice(ids, 2)), gold=0)
    assert accuracy_by_set([question, question], np.array([9.0, 2.0, 11.0, 2.0])) == {"set": 0.5}
    assert accuracy_by_set([], np.array([])) == {}


def test_sets_without_such_questions_are_refused_before_the_ranks_start(
    store: Store, inputs: dict[str, Checkpoint]
) -> None:
    spec = PretrainSpec.model_validate({**SPEC, **EVERY_6}).evaluation
    assert spec is not None
    records = [("q", {"question": "q", "answer": "3"})]
    sets = publish(store, "eval-sets", {"sets": {"examples.parquet": examples_file("gsm8k", records).data}})
    with pytest.raises(ValueError, match=r"sets .gsm8k. hold no multiple-choice question.*num_questions to 0"):
        measured(spec, inputs["tokens"], inputs["tokenizer"], sets)


def test_an_evaluation_between_lines_of_the_curve_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"evaluation.every .4. must be a multiple of log_every .3."):
        PretrainSpec.model_validate({**SPEC, "evaluation": {"every": 4}})


def recipe_of(**pretrain: Any) -> Any:
    nodes = {"eval-sets": {"service_questions": {}}, "tokenizer": {}, "tokens": {}, "pretrain": pretrain}
    documents = {"snapshot": {"documentation": {}}, "filter": {}, "scrub": {}}
    return make_recipe({"nodes": {**documents, **nodes}}, "test").nodes["pretrain"]


def test_a_spec_without_evaluation_has_the_key_that_it_had() -> None:
    plain = recipe_of()
    assert "evaluation" not in plain.written.model_dump()
    assert set(plain.inputs) == {"tokens", "tokenizer"}
    again = NODES["pretrain"].spec.model_validate(plain.written.model_dump())
    assert again == plain.written


def test_questions_are_an_input_only_where_they_are_asked() -> None:
    asked = recipe_of(evaluation={"every": 100})
    assert asked.inputs["eval_sets"] == "eval-sets"
    assert asked.written.model_dump()["evaluation"]["every"] == 100
    assert "eval_sets" not in recipe_of(evaluation={"num_questions": 0}).inputs
    assert "eval_sets" not in recipe_of(evaluation={}, inputs={"eval_sets": None}).inputs
    with pytest.raises(ValueError, match=r"pretrain.inputs.eval_sets is given, and no question is asked"):
        recipe_of(inputs={"eval_sets": "eval-sets"})


def test_bits_per_byte_of_a_uniform_guess_is_that_of_its_entropy() -> None:
    given = heldout(("a", 10), ("b", 30))
    nlls = np.array([5 * math.log(512), 20 * math.log(512)])
    assert bits_per_byte(nlls, given, ["x", "y"]) == {"x": pytest.approx(4.5), "y": pytest.approx(6.0)}
    assert bits_per_byte(nlls, given, ["all", "all"]) == {"all": pytest.approx(25 * 9 / 40)}
