"""A recipe of two crawls, the second deduplicated after the first, and one corpus of both: what `why`, `audit` and
`retract` say of their pages and tokens."""

from dataclasses import replace
from pathlib import Path

import pytest

from configs.recipe import Recipe, make_recipe
from ray_jobs.checkpoint.retraction import Retracted, Retraction
from ray_jobs.checkpoint.store import open_store
from ray_jobs.cluster.runner import InputKey, NodeRequest, run_node
from tasks.audit import audit_tables, query
from tasks.lineage import trace_token
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
    both = {"documents": {"september": "dedup-1", "october": "dedup-2"}}
    nodes["tokens"] = {"inputs": both, "weights": {"october": 2}, "heldout_share": 0}
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
    assert [step.node for step in original.steps] == ["filter-1", "dedup-1", "tokens"]


def test_a_token_of_any_source_leads_to_its_page_and_a_page_to_all_its_tokens(plan: Plan) -> None:
    for url, source, copies in (("http://a.example/original", "september", 1), ("http://b.example/own", "october", 2)):
        (document,) = trace(plan, url)
        steps = [step.facts for step in document.steps if step.node == "tokens"]
        assert [facts["source"] for facts in steps] == [source] * copies
        for facts in steps:
            token = trace_token(plan, facts["place"])
            assert (token.source, token.document.id, token.text_start) == (source, document.id, 0)
    manifest = plan.nodes["tokens"].manifest
    assert manifest is not None
    for position in range(0, manifest.counters["train_num_tokens"], 7):
        assert trace_token(plan, f"tokens@{position}").document.url.startswith("http://")


def test_the_audit_names_the_source_of_every_token(plan: Plan) -> None:
    sql = "SELECT source, count(*), count(DISTINCT id) FROM tokens GROUP BY source ORDER BY source"
    assert query(plan, audit_tables(plan), sql).rows == [("october", 2, 1), ("september", 1, 1)]


def test_a_token_of_another_recipes_source_says_where_to_ask(plan: Plan) -> None:
    node = plan.nodes["tokens"].recipe_node
    standing = {"documents.september": ("dedup", plan.nodes["dedup-1"].key[:16])}
    inputs = {slot: upstream for slot, upstream in node.inputs.items() if slot not in standing}
    moved = replace(plan.nodes["tokens"], recipe_node=replace(node, inputs=inputs, standing=standing))
    elsewhere = replace(plan, nodes={**plan.nodes, "tokens": moved})
    (document,) = trace(plan, "http://a.example/original")
    with pytest.raises(ValueError, match=r"is of the source september, dedup@\w{16}, which another recipe made"):
        trace_token(elsewhere, document.steps[-1].facts["place"])


def test_a_model_has_seen_what_reached_it_and_not_what_it_was_compared_with(plan: Plan) -> None:
    def learned(url: str) -> list[str]:
        return [model.node for model in touched(plan.store, Retracted.by([Retraction(urls=(url,))])).models]

    assert learned("http://b.example/own") == ["tokenizer"]
    assert learned("http://a.example/original") == []
    assert learned("http://b.example/copy") == []
