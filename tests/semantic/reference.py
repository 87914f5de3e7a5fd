"""Embeddings made up, and the rule of removal written plainly."""

import numpy as np

from ray_jobs.semantic import clusters

DIMENSIONS = 32


def groups(num_groups: int, copies: int, noise: float, seed: int = 0) -> clusters.Embeddings:
    """Documents about a few subjects, each close to its own; in random order."""
    source = np.random.default_rng(seed)
    centres = source.normal(size=(num_groups, DIMENSIONS))
    rows = np.repeat(centres, copies, axis=0) + noise * source.normal(size=(num_groups * copies, DIMENSIONS))
    return clusters.unit_rows(source.permutation(rows))


def brute_force(rows: clusters.Embeddings, min_similarity: float) -> dict[int, int]:
    """Dropped row -> the first kept row that is like it, every pair looked at."""
    cosine = rows.astype(np.float64) @ rows.astype(np.float64).T
    dropped: dict[int, int] = {}
    for row in range(len(rows)):
        for earlier in range(row):
            if earlier not in dropped and cosine[row, earlier] >= min_similarity:
                dropped[row] = earlier
                break
    return dropped


def as_dict(found: clusters.Duplicates) -> dict[int, int]:
    return dict(zip(found.document.tolist(), found.duplicate_of.tolist(), strict=True))
