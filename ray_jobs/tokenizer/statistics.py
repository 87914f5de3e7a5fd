"""What the tokens node says of its training part: how much by source and language, how long documents are, and how
much of the vocabulary they use."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ray_jobs.checkpoint.shards import Receipt
from ray_jobs.cluster.output import NodeOutput

VOCABULARY = "vocabulary.bin"
PERCENTILES = (1, 10, 25, 50, 75, 90, 99, 100)
# Lengths up to 32 are counted each; above, every doubling has 16 steps, so that a bound is at most 6% above a length.
STEPS = 16
# Each is of vocab_size bits.
FILES_AT_ONCE = 256
UNKNOWN = "und"
"""Language of a document that names none (ISO 639-2)."""


@dataclass(frozen=True)
class Statistics:
    """For the manifest."""

    counters: dict[str, int]
    """`train.SOURCE.LANGUAGE.documents`, `.tokens` (with end-of-text) and `.bytes`, copies counted as often as they
    stand."""
    metrics: dict[str, float | int | str]
    """length_p1 … length_p100: tokens of a document with end-of-text, as upper bounds within 6%; vocab_used: how many
    token ids occur, and vocab_used_share."""


def by_language(languages: Sequence[str | None], num_bytes: list[int], lengths: list[int]) -> dict[str, list[int]]:
    """For each language its bytes, its tokens without end-of-text (their ratio is the tokenizer's fertility), and its
    documents."""
    sums: dict[str, list[int]] = {}
    for language, size, length in zip(languages, num_bytes, lengths, strict=True):
        entry = sums.setdefault(language or UNKNOWN, [0, 0, 0])
        entry[0] += size
        entry[1] += length - 1
        entry[2] += 1
    return dict(sorted(sums.items()))


def upper_bounds(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bound of the step in which each length falls, lengths from 1: the length itself up to 32."""
    # 2^e ≤ length − 1 < 2^(e+1); a step of that doubling is 2^e / 16 wide.
    exponents = np.frexp(np.maximum(lengths - 1, 1).astype(np.float64))[1].astype(np.int64) - 1
    width = np.maximum(1, (np.int64(1) << exponents) // STEPS)
    return -(-lengths // width) * width


def length_histogram(lengths: npt.NDArray[np.int64]) -> dict[str, int]:
    """Upper bound (as JSON has it, a string) -> documents of such a length."""
    bounds, counts = np.unique(upper_bounds(lengths), return_counts=True)
    return {str(bound): count for bound, count in zip(bounds.tolist(), counts.tolist(), strict=True)}


def percentiles(histogram: dict[int, int]) -> dict[int, int]:
    """Percentile -> the bound below which that share of documents lies; {} where there are none."""
    bounds = sorted(histogram)
    reached = list(itertools.accumulate(histogram[bound] for bound in bounds))
    if not reached:
        return {}
    return {p: bounds[int(np.searchsorted(reached, reached[-1] * p / 100))] for p in PERCENTILES}


def used_bits(tokens: npt.NDArray[np.unsignedinteger], vocab_size: int) -> bytes:
    """A bit for each token id, the first in the highest bit: whether it occurs."""
    used = np.zeros(vocab_size, dtype=bool)
    used[tokens] = True
    return np.packbits(used).tobytes()


def figures(train: list[Receipt], sources: Sequence[str], output: NodeOutput, vocab_size: int) -> Statistics:
    """Adds up what the shards of the training part say; `sources` has the source of every shard."""
    counters: dict[str, int] = {}
    histogram: dict[int, int] = {}
    for receipt in train:
        for language, (num_bytes, num_tokens, num_documents) in receipt.info["languages"].items():
            sums = {"documents": num_documents, "tokens": num_tokens + num_documents, "bytes": num_bytes}
            for name, value in sums.items():
                key = f"train.{sources[receipt.shard]}.{language}.{name}"
                counters[key] = counters.get(key, 0) + value
        for bound, num_documents in receipt.info["lengths"].items():
            histogram[int(bound)] = histogram.get(int(bound), 0) + num_documents
    used = _vocabulary_used(train, output, vocab_size)
    return Statistics(
        dict(sorted(counters.items())),
        {
            **{f"length_p{p}": bound for p, bound in percentiles(histogram).items()},
            "vocab_used": used,
            "vocab_used_share": round(used / vocab_size, 4),
        },
    )


def _vocabulary_used(train: list[Receipt], output: NodeOutput, vocab_size: int) -> int:
    files = [file for receipt in train for file in receipt.files if file.name == VOCABULARY]
    used = np.zeros((vocab_size + 7) // 8, dtype=np.uint8)
    for first in range(0, len(files), FILES_AT_ONCE):
        for data in output.store.concurrently(output.read, files[first : first + FILES_AT_ONCE]):
            used |= np.frombuffer(data, dtype=np.uint8)
    return int(np.bitwise_count(used).sum())
