"""Probabilities counted in bins of their log-odds: what the top share is taken from without holding a number a
document.

Bins are 1/256 wide in log-odds, from -20 to 20, so that they are as narrow near 0 and 1 as between: 0.4 % of the odds.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_LOG_ODDS = np.arange(-20 * 256, 20 * 256 + 1) / 256
LOWER_EDGES = np.concatenate(([0.0], 1 / (1 + np.exp(-_LOG_ODDS))))
"""Least probability of each bin; rising, the first is 0."""
SCHEMA = pa.schema([("bin", pa.int32()), ("documents", pa.int64())])


def histogram(probabilities: npt.NDArray[np.floating]) -> pa.Table:
    bins, documents = np.unique(np.searchsorted(LOWER_EDGES, probabilities, side="right") - 1, return_counts=True)
    return pa.table([pa.array(bins, pa.int32()), pa.array(documents, pa.int64())], schema=SCHEMA)


def top_threshold(histograms: Iterable[pa.Table], share: float) -> float | None:
    """The highest edge that at least the share of all documents reach; None where there are none."""
    counts = np.zeros(len(LOWER_EDGES), dtype=np.int64)
    for table in histograms:
        np.add.at(counts, table["bin"].to_numpy(), table["documents"].to_numpy())
    if not counts.any():
        return None
    reaching = np.cumsum(counts[::-1])[::-1]
    return float(LOWER_EDGES[np.flatnonzero(reaching >= share * counts.sum())[-1]])
