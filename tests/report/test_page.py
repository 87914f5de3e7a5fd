"""The page over a whole graph, over parts of one, and over nodes that no section knows."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping

import pytest

from configs.base import Resources
from configs.report import ReportSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.layout import NodePath
from ray_jobs.checkpoint.manifest import digest_of_receipts
from ray_jobs.checkpoint.shards import ShardOutput
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.executor import InlineExecutor
from ray_jobs.cluster.output import NodeOutput
from ray_jobs.report.job import page_of, run
from ray_jobs.report.nodes import Nodes
from ray_jobs.report.page import render
from tests.report import synthetic
from tests.report.markup import Element, parsed
from tests.report.synthetic import HOSTILE_URL, SCRIPT


def html_of(checkpoints: Mapping[str, Checkpoint], num_samples: int = 5) -> str:
    return render(page_of(Nodes(checkpoints), ReportSpec(num_samples=num_samples))).decode()


def section(page: Element, name: str) -> Element:
    return next(element for element in page.all("section") if element.attributes["id"] == name)


def sections(page: Element) -> list[str]:
    return [element.attributes["id"] for element in page.all("section")]


@pytest.fixture
def graph(store: Store) -> dict[str, Checkpoint]:
    return synthetic.whole_graph(store)


def test_the_whole_graph_has_all_sections_and_is_well_formed(graph: dict[str, Checkpoint]) -> None:
    html = html_of(graph)
    page = parsed(html)
    assert html.startswith("<!DOCTYPE html>")
    assert sections(page) == [
        *("graph", "evaluation", "training", "tokens", "documents"),
        *("samples", "duplicates", "personal", "lineage", "nodes"),
    ]
    linked = [link.attributes["href"] for link in page.all("a")]
    assert linked == [f"#{name}" for name in sections(page)]
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)


def test_what_documents_hold_shows_as_text(graph: dict[str, Checkpoint]) -> None:
    html = html_of(graph)
    page = parsed(html)
    for name in ("samples", "duplicates", "personal", "tokens", "evaluation"):
        assert SCRIPT in section(page, name).text(), name
    assert HOSTILE_URL in section(page, "samples").text()
    assert "{{ 7*7 }}" in section(page, "samples").text()
    assert page.all("script") == page.all("img") == []
    assert not [key for element in page.all() for key in element.attributes if key.startswith("on")]


def test_no_character_that_html_forbids_or_that_turns_the_text_round(graph: dict[str, Checkpoint]) -> None:
    html = html_of(graph)
    assert re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", html) == []
    assert "\ufffd" in section(parsed(html), "samples").text()


def test_it_loads_nothing_and_its_policy_allows_only_its_own_styles(graph: dict[str, Checkpoint]) -> None:
    page = parsed(html_of(graph))
    references = {
        value
        for element in page.all()
        for name, value in element.attributes.items()
        if name in {"src", "href", "srcset", "data", "action", "poster", "xlink:href", "style"}
    }
    assert all(reference.startswith("#") for reference in references)
    assert not {element.tag for element in page.all()} & {"link", "iframe", "object", "embed", "base", "form", "image"}
    (style,) = page.all("style")
    assert "url(" not in style.text() and "@import" not in style.text()
    digest = base64.b64encode(hashlib.sha256(style.text().encode()).digest()).decode()
    policy = next(m.attributes["content"] for m in page.all("meta") if m.attributes.get("http-equiv"))
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")


def test_figures_are_those_of_the_checkpoints(graph: dict[str, Checkpoint]) -> None:
    page = parsed(html_of(graph))
    documents = section(page, "documents").text()
    assert "5 of 8" in documents and "3 of 5" in documents and "3 of 3" in documents
    rules = [" ".join(summary.text().split()) for summary in section(page, "samples").all("summary")]
    assert rules == [
        *("kept 5", "dropped: language 2 recipe", "dropped: min_words 1 Gopher"),
        *("kept 3", "dropped: exact 1", "dropped: minhash 1"),
    ]
    assert "measured 3, threshold 50" in section(page, "samples").text()
    assert "told <script>" in section(page, "samples").text()
    assert "similarity 0.910" in section(page, "duplicates").text()
    marked = [mark.text() for mark in section(page, "duplicates").all("mark")]
    assert marked[:2] == ["0", "1"]  # "document number 0" against "document number 1"
    scores = [row.text() for row in section(page, "evaluation").with_class("bar")]
    assert [score.split(":")[0][:5] for score in scores] == ["model", "trigr", "unigr"]
    assert "1 restart, at step 200" in section(page, "training").text()
    charts = {figure.all("b")[0].text(): figure.all("svg")[0] for figure in section(page, "training").all("figure")}
    assert list(charts)[:3] == ["Loss", "Held-out text", "Questions"]
    heldout = charts["Held-out text"]
    assert "step 400: two.documentation.example.org 1.933" in heldout.text() and "step 600: all 1.6" in heldout.text()
    assert heldout.attributes["viewbox"] == "0 0 520 268"  # one more row for names that are so long
    assert "step 600: service-questions 0.55" in charts["Questions"].text()
    told = section(page, "training").text()
    assert "Spike at step 400: loss 7.5 where 3.1 was usual; back to step 300, past 20 batches of data" in told
    assert "Largest attention logit" in told and "lowest layer" in told
    assert "CC-TEST: 4 files, 4 KB" in section(page, "lineage").text()
    assert "shard 7 of documents was given up" in section(page, "nodes").text()


def test_the_number_of_samples_is_the_specs(graph: dict[str, Checkpoint]) -> None:
    def kept(num_samples: int) -> int:
        page = parsed(html_of(graph, num_samples))
        return len(section(page, "samples").all("details")[0].all("li"))

    assert (kept(2), kept(4)) == (2, 4)
    assert "samples" not in sections(parsed(html_of(graph, 0)))


def test_personal_data_is_masked_in_documents_that_were_not_scrubbed(store: Store) -> None:
    ids = synthetic.identities(2)
    text = "Jane Roe, jane.roe@example.org, +1 (555) 010-0199 from 203.0.113.77, since 2024-05-06"
    file = synthetic.documents(ids, ["http://a.example/?to=jane.roe@example.org"] * 2, [text] * 2)
    audit = synthetic.audit(ids, ["kept", "dropped"], [None, "exact"])
    counters = {"documents_in": 2, "documents_kept": 1, "dropped.exact": 1}
    upstream = synthetic.finish(store, "filter", {"documents": [ShardOutput({"documents.parquet": file}, {})]})
    shard = ShardOutput({"documents.parquet": file, "audit.parquet": audit}, counters)
    node = synthetic.finish(store, "dedup", {"documents": [shard]}, {"documents": upstream})
    html = html_of({"filter": upstream, "dedup": node})
    assert html.count("Jane Roe, [masked], [masked] from [masked], since 2024-05-06") == 2
    assert "example.org" not in html and "0199" not in html and "203.0" not in html


def test_part_of_a_graph_gives_the_sections_it_has_nodes_for(graph: dict[str, Checkpoint]) -> None:
    page = parsed(html_of({name: graph[name] for name in ("snapshot", "filter")}))
    assert sections(page) == ["graph", "documents", "samples", "lineage", "nodes"]
    page = parsed(html_of({"pretrain": graph["pretrain"]}))
    assert sections(page) == ["graph", "training", "lineage", "nodes"]
    assert sections(parsed(html_of({}))) == ["graph", "nodes"]


def test_a_node_of_an_unknown_kind_gets_its_own_section(graph: dict[str, Checkpoint], store: Store) -> None:
    shard = ShardOutput({}, {"num_clusters": 1234})
    metrics = {"reward_margin": 0.25, "note": SCRIPT}
    inputs = {"model": graph["pretrain"]}
    later = synthetic.finish(store, "alignment", {"stage": [shard]}, inputs, metrics)
    page = parsed(html_of({**graph, "dpo": later}))
    shown = section(page, "node-dpo").text()
    assert all(text in shown for text in ("reward margin", "0.25", "num clusters", "1,234", SCRIPT))
    (drawing, _) = section(page, "graph").all("svg")
    assert "dpo reads pretrain" in drawing.attributes["aria-label"]


def test_two_nodes_of_one_kind_stand_side_by_side(graph: dict[str, Checkpoint], store: Store) -> None:
    second = synthetic.deduplicated(store, graph["filter"], spec={"jaccard": 0.7})
    page = parsed(html_of({**graph, "dedup-loose": second}))
    names = [heading.text() for heading in section(page, "samples").all("h3")]
    assert sorted(names) == ["dedup", "dedup-loose", "filter"]


def write(store: Store, checkpoints: dict[str, Checkpoint]) -> NodeOutput:
    output = NodeOutput(store, NodePath("report", "5" * 64), "attempt", Resources(workers=1), InlineExecutor)
    outcome = run(ReportSpec(), checkpoints, output, Resources(workers=1))
    assert outcome.outputs == ("report",)
    return output


def test_content_is_a_function_of_what_was_computed_and_not_of_when(
    graph: dict[str, Checkpoint], tmp_path: object
) -> None:
    digests, summaries = [], []
    for place, changes in enumerate(({}, {"seconds": 99.0, "started": 5.0, "cpu_seconds": 7.0})):
        later = {
            name: Checkpoint(node.store, node.manifest.model_copy(update=changes))
            for name, node in sorted(graph.items(), reverse=bool(place))
        }
        output = write(open_store(f"{tmp_path}/{place}"), later)
        (receipt,) = output.receipts.values()
        summary = next(file for file in receipt.files if file.name == "summary.json")
        summaries.append(output.read(summary))
        digests.append(digest_of_receipts("key", [receipt], []))
    assert summaries[0] == summaries[1]
    assert digests[0] == digests[1]
    nodes = json.loads(summaries[0])["nodes"]
    assert nodes["filter"]["content_digest"] == graph["filter"].manifest.content_digest
    assert nodes["filter"]["counters"]["dropped.language"] == 2


def test_the_same_checkpoints_give_the_same_page(graph: dict[str, Checkpoint]) -> None:
    assert html_of(graph) == html_of(dict(reversed(graph.items())))


def test_a_report_that_stands_is_not_made_again(graph: dict[str, Checkpoint], store: Store) -> None:
    (first,) = write(store, graph).receipts.values()
    (again,) = write(store, graph).receipts.values()
    assert again == first


def test_a_damaged_document_file_is_found(graph: dict[str, Checkpoint], store: Store) -> None:
    file = graph["filter"].files("documents.parquet")[0]
    local = store.local_path(file.path)
    assert local is not None
    local.chmod(0o644)
    local.write_bytes(local.read_bytes()[:-1] + b"x")
    with pytest.raises(OSError, match="does not match its checksum"):
        html_of(graph)
