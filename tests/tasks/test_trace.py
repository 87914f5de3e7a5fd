"""`headrace why PAGE`: every node's verdict on one page, from the audits of nodes that really ran."""

import json
from pathlib import Path

import pytest

from ray_jobs.checkpoint.store import open_store
from tasks.plan import Plan, make_plan
from tasks.trace import trace
from tests.crawl.archive_bytes import PROSE, http, members, page, record
from tests.tasks.graph import computed


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "crawl.warc.gz"
    mail = record(http(page(f"{PROSE * 12} Write to miller@mill.example.org.")), "http://b.example/mail")
    short = record(http(page("Too short.")), "http://a.example/short")
    quoting = (
        f"{' '.join(PROSE.split()[::-2] * 3)} where do the millers of the seven valleys bring their bread? Each Sunday"
    )
    quiz = record(http(page(quoting)), "http://c.example/quiz")
    another = http(page(" ".join(reversed(PROSE.split() * 3))))
    original, copy = (record(another, f"http://a.example/{name}") for name in ("original", "copy"))
    quoted = " ".join(reversed(PROSE.split() * 3)) + " ".join(f" own{i}" for i in range(100))
    quoting_another = record(http(page(quoted)), "http://c.example/quoting")
    path.write_bytes(members(original, short, copy, mail, copy, quiz, quoting_another))
    return path


@pytest.fixture
def plan(tmp_path: Path, archive: Path) -> Plan:
    """Of a recipe whose data nodes up to scrub have run."""
    question = tmp_path / "questions.jsonl"
    question.write_text(
        json.dumps({"question": "Where do the millers of the seven valleys bring their bread each Sunday?"})
    )
    evaluated = f"eval-sets={{sets: [{{name: trivia, urls: ['{question}'], fields: [question]}}]}}"
    return computed(tmp_path, [archive], ["scrub"], [evaluated])


def test_a_dropped_page_names_the_rule_its_value_and_its_threshold(plan: Plan) -> None:
    (document,) = trace(plan, "http://a.example/short")
    (step,) = document.steps
    assert (step.node, step.decision) == ("filter", "dropped")
    assert (step.facts["rule"], step.facts["value"], step.facts["threshold"]) == ("min_words", 2, 10)


def test_a_duplicate_names_the_kept_page_by_its_url_and_every_capture_is_listed(plan: Plan) -> None:
    first, second = trace(plan, "http://a.example/copy")
    assert first.id < second.id
    for document in (first, second):
        assert [(step.node, step.decision) for step in document.steps] == [("filter", "kept"), ("dedup", "dropped")]
        assert document.steps[1].facts["duplicate_of_url"] == "http://a.example/original"


def test_a_page_that_repeats_another_names_it_by_its_url(plan: Plan) -> None:
    (document,) = trace(plan, "http://c.example/quoting")
    step = next(step for step in document.steps if step.node == "repeats")
    assert (step.decision, step.facts["substrings_removed"]) == ("kept", 1)
    assert step.facts["first_source_url"] == "http://a.example/original"


def test_a_kept_page_is_followed_to_the_last_node_and_to_its_archive(plan: Plan, archive: Path) -> None:
    (document,) = trace(plan, "http://b.example/mail")
    assert [(step.node, step.decision) for step in document.steps] == [
        ("filter", "kept"),
        ("dedup", "kept"),
        ("repeats", "kept"),
        ("quality", "kept"),
        ("scrub", "kept"),
    ]
    quality, scrub = document.steps[3:]
    assert scrub.facts["email"] == 1
    assert quality.facts["perplexity"] > 1
    assert quality.facts["bucket"] in {"head", "middle", "tail"}
    assert 0 < quality.facts["quality"] < 1
    assert quality.facts["toxic_terms"] == 0
    assert document.archive.endswith(archive.name)
    assert trace(plan, document.id) == [document]


def test_a_contaminated_page_names_the_example_that_it_holds(plan: Plan) -> None:
    (document,) = trace(plan, "http://c.example/quiz")
    step = document.steps[-1]
    assert (step.node, step.decision) == ("scrub", "dropped")
    assert step.facts == {"rule": "contaminated", "value": 1, "contaminated_by": "trivia/0"}


def test_an_unseen_page_and_a_store_without_a_filter_are_answered_with_what_to_do(
    plan: Plan, tmp_path: Path, archive: Path
) -> None:
    with pytest.raises(ValueError, match=r"saw no page 'http://nowhere.example/': give its URL"):
        trace(plan, "http://nowhere.example/")
    empty = make_plan(plan.recipe, open_store(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"headrace run tiny --to filter"):
        trace(empty, "http://a.example/original")
