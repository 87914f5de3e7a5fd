"""ngram-lm: language models of a reference, which say how like it a document is."""

from configs.base import Spec
from configs.quality import NgramLmSpec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, all_metrics, count, figure

# Text as stored (Parquet, zstd) takes about so much less than as it is read.
COMPRESSION = 3.0


def headline(manifest: Manifest) -> str:
    told = []
    for name, value in manifest.metrics.items():
        if name.endswith("_words"):
            language = name.removesuffix("_words")
            text = f"{language}: {count(float(value), 'words')}"
            if (perplexity := manifest.metrics.get(f"{language}_heldout_perplexity")) is not None:
                text += f", held-out perplexity {figure(perplexity)}"
            told.append(text)
    return "; ".join(told)


def reads(spec: Spec, size: float) -> float:
    """No more than the sample."""
    assert isinstance(spec, NgramLmSpec)
    return min(size, spec.sample_bytes / COMPRESSION)


NODE = NodeTask(
    "ngram-lm",
    "Trains n-gram language models of a reference, with modified Kneser-Ney smoothing.",
    headline,
    all_metrics,
    reads=reads,
)
