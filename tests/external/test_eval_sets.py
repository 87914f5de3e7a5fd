"""Node eval-sets: examples of every set, with the text that training data must not hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs.external import EvalSetsSource, EvalSetsSpec
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.external.pins import pin_eval_sets
from tests.crawl.common_crawl_server import serving
from tests.dedup.corpus import computed, rows
from tests.external.nodes import eval_sets, written

QUESTIONS = [
    {"question": "How many?", "answer": "Two\nor three.", "choices": {"text": ["2", "3"], "label": ["A", "B"]}, "n": 7},
    {"question": "日本?", "answer": "", "choices": {"text": ["4"], "label": ["A"]}, "n": 8},
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst", "a.parquet"])
def test_an_example_has_its_fields_as_text_and_its_whole_row(tmp_path: Path, store: Store, name: str) -> None:
    path = written(tmp_path / name, QUESTIONS)
    node = eval_sets(store, {"name": "q", "urls": [path], "fields": ["question", "answer", "choices.text", "n"]})
    found = rows(node, "examples.parquet", "sets")
    assert [(row["set"], row["example"]) for row in found] == [("q", 0), ("q", 1)]
    assert [row["text"] for row in found] == ["How many?\nTwo\nor three.\n2\n3\n7", "日本?\n\n4\n8"]
    assert [json.loads(row["record"]) for row in found] == QUESTIONS


def test_each_set_is_a_shard_and_its_files_are_numbered_through(tmp_path: Path, store: Store) -> None:
    files = [written(tmp_path / name, [{"q": name}]) for name in ("b.jsonl", "a.jsonl")]
    one = {"name": "one", "urls": files, "fields": ["q"]}
    two = {"name": "two", "urls": [f"{tmp_path}/*.jsonl"], "fields": ["q"]}
    node = eval_sets(store, one, two)
    assert [(row["set"], row["example"], row["text"]) for row in rows(node, "examples.parquet")] == [
        ("one", 0, "b.jsonl"),
        ("one", 1, "a.jsonl"),
        ("two", 0, "a.jsonl"),
        ("two", 1, "b.jsonl"),
    ]
    assert node.manifest.counters == {"examples": 4, "examples.one": 2, "examples.two": 2}


def test_a_set_is_read_over_http(tmp_path: Path, store: Store) -> None:
    data = Path(written(tmp_path / "a.jsonl", QUESTIONS)).read_bytes()
    with serving({"a.jsonl": data}) as server:
        node = eval_sets(store, {"name": "q", "urls": [f"{server.url}/a.jsonl"], "fields": ["question"]})
    assert [row["text"] for row in rows(node, "examples.parquet")] == ["How many?", "日本?"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ('{"answer": "x"}', r"eval-sets gsm8k, file file://.*, row 3 has no field 'question': it has 'answer'"),
        ('{"question": null}', r"eval-sets gsm8k, .*row 3 has no text in question: name other fields"),
        ("not json", r"eval-sets gsm8k, .*row 3 is not JSON"),
    ],
)
def test_a_bad_row_is_named_by_set_file_and_row(tmp_path: Path, store: Store, line: str, error: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "a"}\n{"question": "b"}\n' + line)
    with pytest.raises(UserError, match=error):
        eval_sets(store, {"name": "gsm8k", "urls": [str(tmp_path / "a.jsonl")], "fields": ["question"]})


def test_an_empty_set_is_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n")
    with pytest.raises(UserError, match="eval-sets q has no examples: its files are empty; check its urls"):
        eval_sets(store, {"name": "q", "urls": [str(tmp_path / "a.jsonl")], "fields": ["question"]})


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "there is no evaluation set: write `sets:`"),
        ({"sets": [{"name": "a", "urls": ["a"], "fields": []}]}, "fields"),
        ({"sets": [{"name": "a/b", "urls": ["a"], "fields": ["q"]}]}, "name"),
        ({"sets": [{"name": "a", "urls": ["a"], "fields": ["q"]}] * 2}, "two evaluation sets are called 'a'"),
        (
            {"sets": [{"name": "service-questions", "urls": ["a"], "fields": ["q"]}], "service_questions": {}},
            "two evaluation sets",
        ),
        ({"service_questions": {"num_questions": 0}}, "num_questions"),
    ],
)
def test_a_source_that_is_wrong_says_where(fields: dict[str, Any], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        EvalSetsSource.model_validate(fields)


def test_questions_on_services_have_one_right_answer_of_four_and_are_the_same_each_time(tmp_path: Path) -> None:
    source = EvalSetsSource.model_validate({"service_questions": {"num_questions": 60}})
    assert not source.needs_network
    spec = pin_eval_sets(source)
    assert EvalSetsSpec.model_validate_json(spec.model_dump_json()) == spec
    nodes = [computed(spec, {}, open_store(tmp_path / name)) for name in ("one", "two")]
    assert nodes[0].manifest.content_digest == nodes[1].manifest.content_digest
    found = rows(nodes[0], "examples.parquet")
    assert len(found) == 60
    golds = set()
    for row in found:
        record = json.loads(row["record"])
        choices, gold = record["choices"], record["gold"]
        golds.add(gold)
        assert len(set(choices)) == 4 and choices == sorted(choices) and 0 <= gold < 4
        assert row["text"] == record["description"] and record["description"] in record["query"]
        assert choices[gold] not in record["query"] and "<" not in record["query"]
        assert 12 <= len(row["text"].split()) <= 60
    assert golds == {0, 1, 2, 3}


def test_more_questions_than_services_are_refused(store: Store) -> None:
    source = EvalSetsSource.model_validate({"service_questions": {"num_questions": 5000}})
    with pytest.raises(UserError, match=r"wanted are 5000: lower eval-sets\.service_questions\.num_questions"):
        computed(pin_eval_sets(source), {}, store)


REAL = {
    "gsm8k": ("gsm8k_train.jsonl", ["question", "answer"], 7473),
    "arc-easy": ("arc_easy.jsonl", ["query", "choices"], 476),
    "piqa": ("piqa.jsonl", ["query", "choices"], 364),
    "boolq": ("boolq.jsonl", ["query"], 672),
    "lambada": ("lambada_openai.jsonl", ["context", "continuation"], 1027),
    "winogrande": ("winogrande.jsonl", ["context_options", "continuation"], 254),
    "openbookqa": ("openbook_qa.jsonl", ["query", "choices"], 100),
}


def test_real_sets_are_read_whole(data_dir: Path, store: Store) -> None:
    sets = [
        {"name": name, "urls": [str(data_dir / "eval" / file)], "fields": fields}
        for name, (file, fields, _) in REAL.items()
    ]
    blimp = {"name": "blimp", "urls": [f"{data_dir}/eval/blimp/*.jsonl"], "fields": ["sentence_good", "sentence_bad"]}
    node = eval_sets(store, *sets, blimp)
    found = rows(node, "examples.parquet")
    for name, (file, _, num_examples) in REAL.items():
        records = [json.loads(row["record"]) for row in found if row["set"] == name]
        assert records == [json.loads(line) for line in (data_dir / "eval" / file).open()]
        assert node.manifest.counters[f"examples.{name}"] == len(records) == num_examples
    assert node.manifest.counters["examples.blimp"] == 14_000
