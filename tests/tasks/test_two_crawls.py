"""A recipe of two crawls, the second deduplicated after the first: what `why` and `retract` say of their pages."""

from pathlib import Path

import pytest

from configs.recipe import Recipe, make_recipe
from ray_jobs.checkpoint.retraction import Retracted, Retraction
from ray_jobs.checkpoint.store import open_store
from ray_jobs.cluster.runner import InputKey, NodeRequest, run_node
from tasks.plan import Plan, make_plan
from tasks.retraction import touched
from tasks.trace import trace
from tests.crawl.archive_bytes import PROSE, http, members, page, record

LOOSE = {
    "languages": [],
    "min_language_score": 0,
    "gopher_repetition": None,
    "gopher_quality": None,
    "fineweb": None,
    "min_words": 10,
    "min_tokens": 10,
}


def recipe(archives: list[Path]) -> Recipe:
    nodes: dict[str, object] = {}
    for number, archive in enumerate(archives, 1):
        earlier = {"earlier": f"dedup-{number - 1}"} if number > 1 else {}
        source = {"name": f"CRAWL-{number}", "urls": [str(archive)]}
        nodes[f"snapshot-{number}"] = {"kind": "snapshot", "archives": source}
        nodes[f"filter-{number}"] = {"kind": "filter", "inputs": {"crawl": f"snapshot-{number}"}, **LOOSE}
        inputs = {"documents": f"filter-{number}", **earlier}
        nodes[f"dedup-{number}"] = {"kind": "dedup", "inputs": inputs}
    nodes["tokenizer"] = {"vocab_size": 300, "inputs": {"documents": "dedup-2"}}
    return make_recipe({"about": "", "nodes": nodes}, "two")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    texts = [" ".join(reversed(PROSE.split() * 3)), PROSE * 12]
    pages = [http(page(text)) for text in texts]
    first, second = tmp_path / "first.warc.gz", tmp_path / "second.warc.gz"
    first.write_bytes(members(record(pages[0], "http://a.example/original")))
    second.write_bytes(members(record(pages[0], "http://b.example/copy"), record(pages[1], "http://b.example/own")))
    store, two = open_store(tmp_path / "store"), recipe([first, second])
    for name in two.nodes:
        node = make_plan(two, store).nodes[name]
        planned = make_plan(two, store).nodes
        run_node(
            store,
            NodeRequest(
                node=node.kind,
                version=node.payload["version"],
                spec=node.payload["spec"],
                inputs={
                    slot: InputKey(node=planned[up].kind, key=planned[up].key)
                    for slot, up in node.recipe_node.inputs.items()
                },
                resources={"workers": 1},
            ),
        )
    return make_plan(two, store)


def test_a_copy_names_the_page_of_the_earlier_crawl_and_its_own_archive(plan: Plan) -> None:
    (copy,) = trace(plan, "http://b.example/copy")
    assert copy.archive.endswith("second.warc.gz") and copy.id.startswith("CRAWL-2/")
    (dropped,) = [step for step in copy.steps if step.node == "dedup-2"]
    assert (dropped.decision, dropped.facts["rule"]) == ("dropped", "exact")
    assert dropped.facts["duplicate_of_url"] == "http://a.example/original"
    (original,) = trace(plan, "http://a.example/original")
    assert original.archive.endswith("first.warc.gz")
    assert [step.node for step in original.steps] == ["filter-1", "dedup-1"]


def test_a_model_has_seen_what_reached_it_and_not_what_it_was_compared_with(plan: Plan) -> None:
    def learned(url: str) -> list[str]:
        return [model.node for model in touched(plan.store, Retracted.by([Retraction(urls=(url,))])).models]

    assert learned("http://b.example/own") == ["tokenizer"]
    assert learned("http://a.example/original") == []
    assert learned("http://b.example/copy") == []
