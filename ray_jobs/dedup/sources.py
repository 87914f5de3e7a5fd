"""What deduplication takes from each source: a site that loses nearly all of its pages deserves a look.

Near-duplicates by template (the same page with another name in it) and mistakes of a threshold show here first: they
empty whole sites, while the corpus as a whole loses little.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

SOURCES = pa.schema({"source": pa.string(), "documents_in": pa.int64(), "documents_kept": pa.int64()})

# Hosts of a few hundred files: 100 MB.
ROWS_HELD = 1 << 20

# The authority of a URL (RFC 3986, 3.2) without user and port; the brackets of an IPv6 address are kept.
_HOST = r"^[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]*)"


@dataclass(frozen=True)
class SourceLoss:
    source: str
    documents_in: int
    documents_kept: int

    @property
    def lost_share(self) -> float:
        return 1 - self.documents_kept / self.documents_in


def count_sources(urls: pa.ChunkedArray, kept: npt.NDArray[np.bool_]) -> pa.Table:
    """Documents that entered and were kept, by host, which is what a source is here. Pages without one share ""."""
    hosts = pc.struct_field(pc.extract_regex(urls, _HOST), "host")
    counted = pa.table(
        {
            "source": pc.utf8_lower(pc.fill_null(hosts, "")),
            "documents_in": np.ones(len(kept), dtype=np.int64),
            "documents_kept": kept.astype(np.int64),
        },
        schema=SOURCES,
    )
    return total([counted])


def total(tables: Sequence[pa.Table]) -> pa.Table:
    """The sums by source, in the order of sources."""
    sums = pa.concat_tables(tables).group_by("source").aggregate([("documents_in", "sum"), ("documents_kept", "sum")])
    named = sums.rename_columns({f"{name}_sum": name for name in SOURCES.names[1:]})
    return named.select(SOURCES.names).sort_by("source").cast(SOURCES)


def total_each(tables: Iterable[pa.Table]) -> pa.Table:
    """As `total`, of any number of tables: what is held is as large as the sums, or ROWS_HELD, twice."""
    sums, held, num_held = SOURCES.empty_table(), list[pa.Table](), 0
    for table in tables:
        held.append(table)
        num_held += table.num_rows
        if num_held > max(ROWS_HELD, sums.num_rows):
            sums, held, num_held = total([sums, *held]), [], 0
    return total([sums, *held])


def over_loss(sources: pa.Table, max_loss: float, min_documents: int) -> list[SourceLoss]:
    """Sources of at least so many documents that lost more than the share `max_loss`; what lost most comes first."""
    entered, kept = sources["documents_in"].to_numpy(), sources["documents_kept"].to_numpy()
    is_over = (entered >= min_documents) & (entered - kept > max_loss * entered)
    losses = [SourceLoss(**row) for row in sources.filter(pa.array(is_over)).to_pylist()]
    return sorted(losses, key=lambda loss: (-loss.lost_share, -loss.documents_in, loss.source))
