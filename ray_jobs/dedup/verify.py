"""Which candidates are duplicates: the rule by which documents are removed.

Documents are taken in their order. One is dropped if, and only if, some earlier *kept* document shares a band with it
and the Jaccard similarity of their shingle sets is at least the threshold; it is named a duplicate of the first such
document. So every dropped document has a kept one that is truly like it, however long the chains in its component are;
the result depends on no number of workers or machines; and documents that are appended later change no earlier
decision.

The similarity is computed exactly from the sets. Signatures spare the pairs whose estimate is more than three
standard errors below the threshold: a pair at the threshold is missed by that about once in 700.
"""

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.dedup.bands import BandPlan
from ray_jobs.dedup.minhash import Offsets, band_keys

STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Verdicts:
    duplicate_of: npt.NDArray[np.int64]
    """Index of the kept document that each of n documents duplicates, -1 where it is kept itself."""
    similarity: npt.NDArray[np.float32]
    """Exact Jaccard similarity with that document; 0 where it is kept."""
    num_compared: int
    """Pairs whose sets were compared."""


def find_duplicates(
    signed: npt.NDArray[np.uint32],
    shingles: npt.NDArray[np.uint32],
    shingle_offsets: Offsets,
    plan: BandPlan,
    jaccard: float,
) -> Verdicts:
    """Applies the rule to documents in their order.

    Args:
        signed: signatures [n, num_permutations].
        shingles, shingle_offsets: their sets, sorted (`minhash.shingle_sets`).
    """
    num_documents, num_permutations = signed.shape
    keys = band_keys(signed, plan.num_bands, plan.rows)
    order = np.empty((plan.num_bands, num_documents), dtype=np.int64)
    starts = np.empty((plan.num_bands, num_documents), dtype=np.int64)
    for band in range(plan.num_bands):
        order[band] = np.argsort(keys[band], kind="stable")
        _bucket_starts(keys[band], order[band], starts[band])
    error = (jaccard * (1 - jaccard) / num_permutations) ** 0.5
    least_equal = int(np.floor((jaccard - STANDARD_ERRORS * error) * num_permutations))
    duplicate_of = np.full(num_documents, -1, dtype=np.int64)
    similarity = np.zeros(num_documents, dtype=np.float32)
    num_compared = _apply(
        signed, shingles, shingle_offsets, order, starts, least_equal, jaccard, duplicate_of, similarity
    )
    return Verdicts(duplicate_of, similarity, num_compared)


@numba.njit(cache=True)
def _bucket_starts(
    keys: npt.NDArray[np.uint64], order: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]
) -> None:  # pragma: no cover
    """For each document where its bucket (documents of an equal key) begins in `order`."""
    start = 0
    for i in range(len(order)):
        if keys[order[i]] != keys[order[start]]:
            start = i
        starts[order[i]] = start


@numba.njit(cache=True)
def _jaccard(shingles: npt.NDArray[np.uint32], a: int, a_end: int, b: int, b_end: int) -> float:  # pragma: no cover
    size = (a_end - a) + (b_end - b)
    if size == 0:
        return 0.0  # two documents without a word: equal ones were found by their exact hash
    common = 0
    while a < a_end and b < b_end:
        one, other = shingles[a], shingles[b]
        common += one == other
        a += one <= other
        b += other <= one
    return common / (size - common)


@numba.njit(cache=True)
def _apply(
    signed: npt.NDArray[np.uint32],
    shingles: npt.NDArray[np.uint32],
    shingle_offsets: Offsets,
    order: npt.NDArray[np.int64],
    starts: npt.NDArray[np.int64],
    least_equal: int,
    threshold: float,
    duplicate_of: npt.NDArray[np.int64],
    similarity: npt.NDArray[np.float32],
) -> int:  # pragma: no cover
    num_bands, num_documents = order.shape
    # A bucket's kept documents are gathered at its front in `order`: all that stood there has been dealt with.
    num_kept = np.zeros((num_bands, num_documents), dtype=np.int64)
    compared_with = np.full(num_documents, -1, dtype=np.int64)
    num_compared = 0
    for document in range(num_documents):
        for band in range(num_bands):
            start = starts[band, document]
            for i in range(start, start + num_kept[band, start]):
                earlier = order[band, i]
                found = duplicate_of[document]
                if compared_with[earlier] == document or 0 <= found < earlier:
                    continue
                compared_with[earlier] = document
                equal = 0
                for p in range(signed.shape[1]):
                    equal += signed[document, p] == signed[earlier, p]
                if equal < least_equal:
                    continue
                num_compared += 1
                value = _jaccard(
                    shingles,
                    shingle_offsets[document],
                    shingle_offsets[document + 1],
                    shingle_offsets[earlier],
                    shingle_offsets[earlier + 1],
                )
                if value >= threshold:
                    duplicate_of[document] = earlier
                    similarity[document] = value
        if duplicate_of[document] < 0:
            for band in range(num_bands):
                start = starts[band, document]
                order[band, start + num_kept[band, start]] = document
                num_kept[band, start] += 1
    return num_compared
