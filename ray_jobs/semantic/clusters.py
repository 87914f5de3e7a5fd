"""Documents that say the same in other words: pairs of embeddings at a small angle, looked for within clusters.

Comparing all pairs of n embeddings takes n² products. SemDeDup (Abbas et al., "SemDeDup: Data-efficient learning at
web-scale through semantic deduplication", 2023, section 3) cuts them into clusters by k-means and compares within each:
n²/k, and clusters are independent shards of work. Pairs that a border of clusters divides are not found; the closer two
embeddings are, the rarer that is. Clusters only localise the work: which document of a pair goes is said by the rule of
removal, as for the pairs of MinHash: in the order of documents, and for an earlier one that is kept.

Embeddings are rows of length 1 (`unit_rows`), so a product is the cosine of the angle. k-means is faiss's, on the
sphere, from a seed and on one thread; a pair is taken by its similarity in double precision, whatever order a matrix
product was added up in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Embeddings = npt.NDArray[np.float32]

ITERATIONS = 20
MAX_TRAINING_ROWS = 256
"""Rows a cluster that k-means is trained on; faiss's own limit, which it draws from the seed."""
MIN_TRAINING_ROWS = 39
"""Rows a cluster below which faiss warns that its centre is poorly known."""
MAX_SAMPLE = 1 << 19
"""Rows that are sampled to train on: 800 MB of 384 dimensions."""
BLOCK_ROWS = 1024
"""Rows searched for at a time: what is found for so many is held at once."""
ROUNDING = 1e-4
"""More than a sum of a thousand products in single precision is off by."""


@dataclass(frozen=True)
class Duplicates:
    """Rows that are dropped, ascending, and for each the first kept row that is like it."""

    document: npt.NDArray[np.int64]
    duplicate_of: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float64]
    """Cosine of the two."""

    def __len__(self) -> int:
        return len(self.document)


def unit_rows(embeddings: npt.NDArray[np.floating]) -> Embeddings:
    """The rows at length 1; a row of zeros stays, and is like no other."""
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return (embeddings / np.where(lengths == 0, 1, lengths)).astype(np.float32)


def clusters_for(num_documents: int, documents_per_cluster: int, num_sampled: int) -> int:
    """As many as that takes, if the sample is enough to train them."""
    return max(1, min(-(-num_documents // documents_per_cluster), num_sampled // MIN_TRAINING_ROWS))


def centroids(embeddings: Embeddings, num_clusters: int, seed: int) -> Embeddings:
    """Centres of clusters by k-means on (a sample of) the embeddings: float32 [num_clusters, d], rows of length 1.

    Raises:
        ValueError: fewer embeddings than clusters.
    """
    import faiss

    if len(embeddings) < num_clusters:
        raise ValueError(f"{len(embeddings)} documents make no {num_clusters} clusters: ask for fewer")
    with _one_thread():
        kmeans = faiss.Kmeans(
            embeddings.shape[1],
            num_clusters,
            niter=ITERATIONS,
            seed=seed,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=MAX_TRAINING_ROWS,
        )
        kmeans.train(np.ascontiguousarray(embeddings))
    assert kmeans.centroids is not None, "they are trained"
    return unit_rows(kmeans.centroids)


def assign(embeddings: Embeddings, centres: Embeddings) -> npt.NDArray[np.int64]:
    """The nearest centre of each embedding: int64 [n]."""
    import faiss

    with _one_thread():
        index = faiss.IndexFlatIP(centres.shape[1])
        index.add(np.ascontiguousarray(centres))
        _, nearest = index.search(np.ascontiguousarray(embeddings), 1)
    return nearest[:, 0]


def find_duplicates(embeddings: Embeddings, min_similarity: float) -> Duplicates:
    """The rule of removal in one cluster: a row is dropped if, and only if, an earlier row that is kept is like it.

    Args:
        embeddings: float32 [n, d], rows of length 1, in the order of documents.
        min_similarity: cosine from which two rows are alike; SemDeDup's 1 - ε.

    Rows are looked at in blocks, each against the kept rows before it and within itself, so that what is held is a
    block's pairs and not those of n equal rows.
    """
    import faiss

    rows = np.ascontiguousarray(embeddings)
    original = np.full(len(rows), -1, dtype=np.int64)
    similarity = np.zeros(len(rows))
    kept = np.empty(0, dtype=np.int64)
    least = min_similarity - ROUNDING
    with _one_thread():
        before = faiss.IndexFlatIP(rows.shape[1])
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            within = faiss.IndexFlatIP(rows.shape[1])
            within.add(block)
            later, places = _found(before, block, least)
            own_later, own_earlier = _found(within, block, least)
            own = own_earlier < own_later
            pairs = np.concatenate(
                [[start + later, kept[places]], [start + own_later[own], start + own_earlier[own]]], axis=1
            )
            later, earlier = pairs[:, np.lexsort((pairs[1], pairs[0]))]
            cosine = np.einsum("ij,ij->i", rows[later], rows[earlier], dtype=np.float64)
            alike = np.flatnonzero(cosine >= min_similarity)
            for pair, document, other in zip(
                alike.tolist(), later[alike].tolist(), earlier[alike].tolist(), strict=True
            ):
                if original[document] < 0 and original[other] < 0:
                    original[document], similarity[document] = other, cosine[pair]
            fresh = start + np.flatnonzero(original[start : start + len(block)] < 0)
            before.add(rows[fresh])
            kept = np.concatenate([kept, fresh])
    dropped = np.flatnonzero(original >= 0)
    return Duplicates(dropped, original[dropped], similarity[dropped])


def _found(index: Any, rows: Embeddings, least: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(row, place in the index) of all products of at least so much."""
    limits, _, places = index.range_search(rows, least)
    counts = np.diff(limits.astype(np.int64))
    return np.repeat(np.arange(len(counts)), counts), places.astype(np.int64)


@contextmanager
def _one_thread() -> Iterator[None]:
    """What faiss computes is a function of its input, and Ray counts one CPU a task."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
