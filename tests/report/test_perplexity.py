"""The histogram of perplexities, of a quality node that really ran."""

import json
import re
from pathlib import Path

import pytest

from configs.quality import NgramLmSpec
from configs.report import ReportSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.report.job import page_of
from ray_jobs.report.nodes import Nodes
from ray_jobs.report.page import render
from tests.dedup.corpus import document_table
from tests.quality.golden import corpus
from tests.quality.test_job import judged, pages
from tests.quality.test_ngram_lm import in_language, trained


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def html_of(checkpoint: Checkpoint) -> str:
    return render(page_of(Nodes({"quality": checkpoint}), ReportSpec())).decode()


def test_every_scored_document_is_in_the_histogram_in_its_bucket(store: Store) -> None:
    model = trained(NgramLmSpec(heldout_share=0), [document_table(corpus())], store)
    tables = [document_table(pages()), in_language(document_table(pages(20), 1), "de")]
    checkpoint = judged(store, model, tables)
    html = html_of(checkpoint)
    shown = re.findall(r"perplexity: ([0-9,]+) (head|middle|tail)<", html)
    for bucket in ("head", "middle", "tail"):
        number = sum(int(n.replace(",", "")) for n, name in shown if name == bucket)
        assert number == checkpoint.manifest.counters[f"bucket.{bucket}"]
    limits = json.loads(checkpoint.read(checkpoint.file("thresholds.json")))["en"]
    assert f"head ends at {limits['head']:,.4g}" in html and f"middle ends at {limits['middle']:,.4g}" in html
    assert "100 documents in en" in html


def test_a_node_that_scored_nothing_has_no_histogram(store: Store) -> None:
    assert "head ends at" not in html_of(judged(store, None, [document_table(pages(5))]))
