"""tokenizer: the vocabulary, trained on a sample of the corpus."""

from configs.base import Spec
from configs.tokenizer import TokenizerSpec
from ray_jobs.checkpoint.manifest import Manifest
from tasks.node import NodeTask, all_metrics


def headline(manifest: Manifest) -> str:
    metrics = manifest.metrics
    size = f"{metrics.get('vocab_size', 0):,} tokens"
    measured = metrics.get("bytes_per_token")  # none where no text was held out
    return size if measured is None else f"{size}, {measured:.2f} bytes a token"


# Text as stored (Parquet, zstd) takes about so much less than as it is read.
COMPRESSION = 3.0


def reads(spec: Spec, size: float) -> float:
    """No more than the sample."""
    assert isinstance(spec, TokenizerSpec)
    return min(size, spec.sample_bytes / COMPRESSION)


NODE = NodeTask(
    "tokenizer", "A vocabulary trained on a deterministic sample of the corpus.", headline, all_metrics, reads=reads
)
