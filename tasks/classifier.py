"""classifier: tells a reference from the crawl, or one label from others, by words and n-grams."""

from configs.base import Spec
from configs.classifier import ClassifierSpec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, all_metrics, count

# Text as stored (Parquet, zstd) takes about so much less than as it is read.
COMPRESSION = 3.0


def headline(manifest: Manifest) -> str:
    trained, auc = manifest.counters.get("texts_trained", 0), manifest.metrics.get("auc")
    done = f"trained on {count(trained, 'texts')}" if trained else "weights as given"
    return done if auc is None else f"{done}, AUC {auc:.3f} on {count(manifest.counters['texts_heldout'])} others"


def facts(manifest: Manifest) -> list[tuple[str, str]]:
    counters = {name: manifest.counters.get(name, 0) for name in ("texts_trained", "texts_heldout", "words", "rows")}
    return [*((name.replace("_", " "), count(value)) for name, value in counters.items()), *all_metrics(manifest)]


def reads(spec: Spec, size: float) -> float:
    """No more than the two sides' samples."""
    assert isinstance(spec, ClassifierSpec)
    return min(size, 2 * spec.sample_bytes / COMPRESSION)


NODE = NodeTask(
    "classifier",
    "A fastText-style classifier with its ROC curve and chosen threshold.",
    headline,
    facts,
    reads=reads,
)
