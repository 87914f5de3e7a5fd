"""Documents that say the same in other words: pairs of embeddings at a small angle, looked for within clusters.

Comparing all pairs of n embeddings takes n² products. SemDeDup (Abbas et al., "SemDeDup: Data-efficient learning at
web-scale through semantic deduplication", 2023, section 3) cuts them into clusters by k-means and compares within each:
n²/k, and clusters are independent shards of work. Pairs that a border of clusters divides are not found; the closer two
embeddings are, the rarer that is. Clusters only localise the work: which document of a pair goes is the rule of
removal's to say, as for the pairs of MinHash.

Embeddings are rows of length 1 (`unit_rows`), so a product is the cosine of the angle. k-means is faiss's, on the
sphere, from a seed and on one thread; a pair is taken by its similarity in double precision, whatever order a matrix
product was added up in.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Embeddings = npt.NDArray[np.float32]

ITERATIONS = 20
MAX_TRAINING_ROWS = 256
"""Rows a cluster that k-means is trained on; faiss's own limit, which it draws from the seed."""
BLOCK_ROWS = 1024
"""Rows searched for at a time: what is found for so many is held at once."""
ROUNDING = 1e-4
"""More than a sum of a thousand products in single precision is off by."""


@dataclass(frozen=True)
class SimilarPairs:
    """p pairs of documents, ordered by the later, then the earlier one."""

    earlier: npt.NDArray[np.int64]
    later: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float64]
    """Cosine."""

    def __len__(self) -> int:
        return len(self.earlier)


def unit_rows(embeddings: npt.NDArray[np.floating]) -> Embeddings:
    """The rows at length 1; a row of zeros stays, and is like no other."""
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return (embeddings / np.where(lengths == 0, 1, lengths)).astype(np.float32)


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


def pairs_in_cluster(embeddings: Embeddings, min_similarity: float) -> SimilarPairs:
    """All pairs of the rows of one cluster, in the order of documents, whose cosine is at least `min_similarity`."""
    import faiss

    found = [np.empty((2, 0), dtype=np.int64)]
    rows = np.ascontiguousarray(embeddings)
    with _one_thread():
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
        for start in range(0, len(rows), BLOCK_ROWS):
            limits, _, others = index.range_search(rows[start : start + BLOCK_ROWS], min_similarity - ROUNDING)
            counts = np.diff(limits.astype(np.int64)).astype(np.int64)
            later = start + np.repeat(np.arange(len(counts)), counts)
            found.append(np.stack([others, later])[:, others < later])
    earlier, later = np.concatenate(found, axis=1)
    similarity = np.einsum("ij,ij->i", rows[earlier], rows[later], dtype=np.float64)
    taken = similarity >= min_similarity
    order = np.lexsort((earlier[taken], later[taken]))
    return SimilarPairs(earlier[taken][order], later[taken][order], similarity[taken][order])


def similar_pairs(embeddings: Embeddings, min_similarity: float, num_clusters: int, seed: int) -> SimilarPairs:
    """Pairs of like documents that share a cluster.

    Args:
        embeddings: float32 [n, d], rows of length 1, in the order of documents.
        min_similarity: cosine from which two documents are a pair; SemDeDup's 1 - ε.
        num_clusters: k; SemDeDup takes 50,000 for 440 million images and 11,000 for C4.
    """
    cluster = assign(embeddings, centroids(embeddings, num_clusters, seed))
    order = np.argsort(cluster, kind="stable")
    bounds = np.searchsorted(cluster[order], np.arange(num_clusters + 1))
    parts = []
    for start, end in itertools.pairwise(bounds.tolist()):
        members = order[start:end]
        pairs = pairs_in_cluster(embeddings[members], min_similarity)
        parts.append((members[pairs.earlier], members[pairs.later], pairs.similarity))
    earlier, later, similarity = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    by_document = np.lexsort((earlier, later))
    return SimilarPairs(earlier[by_document], later[by_document], similarity[by_document])


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
