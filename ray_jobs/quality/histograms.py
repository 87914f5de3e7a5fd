"""Perplexities counted in narrow bins: what percentiles are taken from without holding a number a document.

Bin b holds perplexities from 2^(b/BINS_A_DOUBLING) up to the next bin's: 0.1 % wide, so that a percentile is exact to
that. Histograms of shards add up, and a language's has at most some ten thousand bins that are not empty.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

BINS_A_DOUBLING = 700
SCHEMA = pa.schema([("language", pa.string()), ("bin", pa.int32()), ("documents", pa.int64())])


def histogram(languages: pa.ChunkedArray, perplexity: pa.ChunkedArray) -> pa.Table:
    """How many documents of each language are in each bin, sorted by language and bin. Nulls are not counted."""
    known = perplexity.is_valid()
    bins = bins_of(perplexity.filter(known).to_numpy())
    counted = pa.table({"language": languages.filter(known), "bin": pa.array(bins, pa.int32())})
    return _sorted(counted.group_by(["language", "bin"]).aggregate([([], "count_all")]))


def add(histograms: Iterable[pa.Table]) -> pa.Table:
    together = pa.concat_tables([SCHEMA.empty_table(), *histograms])
    return _sorted(together.group_by(["language", "bin"]).aggregate([("documents", "sum")]))


def _sorted(grouped: pa.Table) -> pa.Table:
    return grouped.rename_columns(SCHEMA.names).cast(SCHEMA).sort_by([("language", "ascending"), ("bin", "ascending")])


def bins_of(perplexity: npt.NDArray[np.floating]) -> npt.NDArray[np.int32]:
    return np.floor(np.log2(perplexity.astype(np.float64)) * BINS_A_DOUBLING).astype(np.int32)


def upper_edge(bin: int) -> float:
    """Where a bin ends and the next begins."""
    return float(2.0 ** ((bin + 1) / BINS_A_DOUBLING))


def with_edges(counted: pa.Table) -> pa.Table:
    """The histogram with each bin's upper edge, for readers who do not know how wide a bin is."""
    edges = [upper_edge(bin) for bin in counted["bin"].to_pylist()]
    return counted.append_column("up_to", pa.array(edges, pa.float64()))


def percentile(bins: npt.NDArray[np.int32], documents: npt.NDArray[np.int64], percent: float) -> float:
    """The least edge of a bin that at least so many percent of the documents are below. 0 % gives the first bin's
    lower edge, below which there is none."""
    wanted = percent / 100 * documents.sum()
    if wanted == 0:
        return upper_edge(int(bins[0]) - 1)
    return upper_edge(int(bins[np.searchsorted(np.cumsum(documents), wanted)]))
