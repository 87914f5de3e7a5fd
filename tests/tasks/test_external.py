"""What Prefect shows of outside data."""

from pathlib import Path

import pytest

from ray_jobs.checkpoint.store import Store, open_store
from tasks.node import task_of
from tests.external.nodes import eval_sets, labels, reference, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_texts_are_shown_by_number_and_size_and_labels_by_how_many_have_them(tmp_path: Path, store: Store) -> None:
    given = [{"text": "x" * 999_999, "label": "bad"}, *({"text": " ", "label": "good"} for _ in range(3))]
    path = written(tmp_path / "a.jsonl", given)
    for node in (reference(store, urls=[path]), labels(store, urls=[path])):
        task = task_of(node.node)
        assert task.headline(node.manifest) == "1 texts, 1.0 MB"
        assert ("rows without text", "3") in task.facts(node.manifest)
    assert task.facts(node.manifest)[-2:] == [("label: good", "3"), ("label: bad", "1")]


def test_evaluation_sets_are_shown_largest_first_and_no_more_than_a_few(tmp_path: Path, store: Store) -> None:
    sets = [
        {
            "name": f"set{number}",
            "urls": [written(tmp_path / f"{number}.jsonl", [{"q": "x"}] * number)],
            "fields": ["q"],
        }
        for number in range(1, 9)
    ]
    node = eval_sets(store, *sets)
    task = task_of("eval-sets")
    assert task.headline(node.manifest) == "36 examples in 8 sets"
    facts = task.facts(node.manifest)
    assert facts[:3] == [("examples", "36"), ("set8", "8"), ("set7", "7")]
    assert facts[-1] == ("further sets", "2")
    one = eval_sets(store, sets[0])
    assert task.headline(one.manifest) == "1 examples in 1 set"
