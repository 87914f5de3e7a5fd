"""Pairs of a crawl's document and one that an earlier crawl kept."""

import pytest

from configs.dedup import DedupSpec
from configs.report import ReportSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store
from ray_jobs.report import nodes as report_nodes
from ray_jobs.report.job import page_of
from ray_jobs.report.nodes import Nodes
from ray_jobs.report.page import render
from tests.dedup.corpus import computed, document_table, published

TEXTS = [
    [" ".join(f"{name}{i}" for i in range(120)) + end for name in "abcdefgh"] for end in ("", " a new end", " more")
]


def crawls(store: Store, num: int) -> list[Checkpoint]:
    done: list[Checkpoint] = []
    for number, texts in enumerate(TEXTS[:num]):
        tables = [document_table([text], file, f"CRAWL-{number}") for file, text in enumerate(texts)]
        documents = published(store, tables, f"crawl {number}")
        inputs = {"documents": documents, **({"earlier": done[-1]} if done else {})}
        done.append(computed(DedupSpec(same_url=False), inputs, store))
    return done


def page(store: Store, checkpoint: Checkpoint) -> str:
    upstream = checkpoint.manifest.inputs["documents"]
    source = Checkpoint.open(store, upstream.node, upstream.key)
    payload = {**source.manifest.payload, "spec": {}}
    source = Checkpoint(store, source.manifest.model_copy(update={"payload": payload}))
    nodes = Nodes({"filter": source, "dedup": checkpoint})
    return render(page_of(nodes, ReportSpec(num_samples=5))).decode()


def section(html: str) -> str:
    return html[html.index('id="duplicates"') :]


@pytest.mark.parametrize("num", [2, 3])
def test_a_pair_shows_the_text_that_an_earlier_crawl_kept(store: Store, num: int) -> None:
    """However many crawls lie between; nodes of these are no part of the recipe that the report is of."""
    done = crawls(store, num)
    assert done[-1].manifest.counters["documents_kept"] == 0
    html = section(page(store, done[-1]))
    assert "its text is not among" not in html and "text of an earlier crawl" not in html
    assert html.count("<b>kept</b>") == 5
    # Of five pairs both sides, each of which ends alike.
    assert sum(html.count(f" {name}119") for name in "abcdefgh") == 10


def test_a_text_of_an_earlier_crawl_that_was_collected_is_named_by_its_node(store: Store) -> None:
    done = crawls(store, 2)
    store.delete([done[0].manifest.path.manifest])
    html = section(page(store, done[1]))
    assert f"text of an earlier crawl: dedup {done[0].key[:16]} CRAWL-0/00000/000000000000" in html


def test_a_text_whose_file_was_deleted_is_named_by_its_node_too(store: Store) -> None:
    done = crawls(store, 2)
    store.delete([file.path for file in done[0].files("documents.parquet")])
    assert f"text of an earlier crawl: dedup {done[0].key[:16]} CRAWL-0/" in section(page(store, done[1]))


def test_what_this_crawl_kept_is_found_in_files_that_the_report_reads_none_of(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = [document_table([text], 1 + number) for number, text in enumerate(TEXTS[1])]
    tables = [document_table(TEXTS[0], 0), *copies]
    checkpoint = computed(DedupSpec(same_url=False), {"documents": published(store, tables)}, store)
    monkeypatch.setattr(report_nodes, "spread", lambda items, most: list(items)[1:])
    assert "its text is not among" not in section(page(store, checkpoint))
