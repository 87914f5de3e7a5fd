"""A toxicity classifier and word lists as a recipe has them, on real comments and lists."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from configs.classifier import PinnedUrl
from configs.quality import QualitySpec
from configs.recipe import make_recipe
from configs.toxicity import ToxicWords
from ray_jobs.checkpoint.checkpoint import Checkpoint
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.cluster.runner import InputKey, NodeRequest, run_node
from tasks.plan import make_plan
from tests.dedup.corpus import computed, document_table, published, rows


def recipe(data_dir: Path) -> dict[str, Any]:
    return {
        "nodes": {
            "labels": {
                "urls": [str(data_dir / "toxicity" / "surge_toxicity_en.csv")],
                "label_field": "is_toxic",
                "language": "en",
            },
            "toxicity": {
                "kind": "classifier",
                "inputs": {"labels": "labels", "reference": None, "crawl": None},
                "positive": "Toxic",
                "lowercase": True,
                "min_characters": 3,
                "max_characters": 5,
                "num_buckets": 100_000,
                "epochs": 50,
                "learning_rate": 1.0,
                "heldout_share": 0.3,
                "threshold": {"precision": 0.8},
            },
        }
    }


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return open_store(tmp_path / "store")


@pytest.fixture
def toxicity(data_dir: Path, store: Store) -> Checkpoint:
    made = make_recipe(recipe(data_dir), "toxic")
    for name in made.nodes:
        planned = make_plan(made, store).nodes
        node = planned[name]
        upstream = {slot: planned[up] for slot, up in node.recipe_node.inputs.items()}
        request = NodeRequest(
            node=node.kind,
            version=node.payload["version"],
            spec=node.payload["spec"],
            inputs={slot: InputKey(node=up.kind, key=up.key) for slot, up in upstream.items()},
            resources={"workers": 1},
        )
        manifest = run_node(store, request)
    return Checkpoint(store, manifest)


def test_labelled_comments_make_a_classifier_whose_threshold_drops_documents(
    toxicity: Checkpoint, data_dir: Path, store: Store
) -> None:
    counters, metrics = toxicity.manifest.counters, toxicity.manifest.metrics
    assert counters["texts_trained"] + counters["texts_heldout"] == 252
    assert float(metrics["auc"]) > 0.75 and float(metrics["precision"]) >= 0.8

    lists = {
        language: PinnedUrl(url=str(path), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for language in ("en", "de", "ja")
        for path in [data_dir / "toxicity" / "ldnoobw" / language]
    }
    spec = QualitySpec(toxicity_threshold="chosen", toxic_words=ToxicWords(lists=lists, max_terms=0))
    texts = [
        "You are a disgusting stupid idiot and your whole party of clowns belongs in jail, shut the fuck up",
        "Thank you, that is a great recipe; we made it with apples and cinnamon and loved it",
        "The sluice and the headrace were repaired, and the wheel turns again. Watch the tits in the garden.",
    ]
    inputs = {"documents": published(store, [document_table(texts)]), "toxicity": toxicity}
    audit = rows(computed(spec, inputs, store), "audit.parquet")
    assert audit[0]["rule"] == "toxicity" and audit[0]["threshold"] == metrics["threshold"]
    assert audit[1]["decision"] == "kept"
    assert audit[0]["toxicity"] > audit[1]["toxicity"] and audit[0]["toxic_terms"] >= 3
    # A list knows words and no birds.
    assert audit[2]["toxic_terms"] == 1
