"""What several files have in common, from the hashes of each: tables in, tables out.

A table of an input file names places by the word they begin at. `input` is a file's number, in the order of documents.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.repeats.units import Units
from ray_jobs.repeats.words import Words

UNIT_KINDS = ("lines", "paragraphs")
OWN_UNITS = pa.schema(
    [("kind", pa.uint8()), ("hash", pa.uint64()), ("word", pa.int64()), ("end", pa.int64()), ("document", pa.int64())]
)
"""Of one file: each unit's hash, its first word, the word past its last, and the document that holds it."""
UNITS = pa.schema([("kind", pa.uint8()), ("hash", pa.uint64()), ("word", pa.int64()), ("documents", pa.int64())])
"""Of one file: a hash, where its first unit begins, and how many of the file's documents have it."""
SHARED_UNITS = pa.schema(
    [
        *(("kind", pa.uint8()), ("hash", pa.uint64()), ("word", pa.int64()), ("allowed", pa.int64())),
        *(("input", pa.int64()), ("target", pa.int64())),
    ]
)
"""`input` has the first unit with the hash, at `word`; in `target` it may stay in so many documents, the first ones."""
WINDOWS = pa.schema([("hash", pa.uint64()), ("word", pa.int64())])
"""Of one file: a window's hash, and where its first begins."""
SHARED_WINDOWS = pa.schema(
    [("input", pa.int64()), ("word", pa.int64()), ("target", pa.int64()), ("target_word", pa.int64())]
)
"""The window that begins at `target_word` of file `target` has the hash of one at `word` of an earlier file `input`."""
RUNS = pa.schema([("target", pa.int64()), ("target_word", pa.int64()), ("word", pa.int64()), ("windows", pa.int64())])
"""So many windows in a row, from these words on, have the hashes of as many in a row of another file."""
QUOTED_UNITS = pa.schema([*SHARED_UNITS, ("source_id", pa.string())])
"""With the id of the document that has the first unit."""
QUOTED_RUNS = pa.schema([*RUNS, ("text", pa.large_binary()), ("source_id", pa.string())])
"""With the text at the earlier place, and the id of its document."""

Received = Sequence[tuple[int, pa.Table]]
"""Tables by their input file, ascending."""


def own_units(units: Mapping[str, Units], words: Words) -> pa.Table:
    """OWN_UNITS of one file, by their kind."""
    parts = [OWN_UNITS.empty_table()]
    for kind, found in units.items():
        kinds = np.full(len(found.hashes), UNIT_KINDS.index(kind), dtype=np.uint8)
        first, end = (np.searchsorted(words.starts, bytes_) for bytes_ in (found.starts, found.ends))
        parts.append(pa.table([kinds, found.hashes, first, end, found.documents], schema=OWN_UNITS))
    return pa.concat_tables(parts)


def distinct_units(own: pa.Table) -> pa.Table:
    """UNITS of OWN_UNITS: each hash once."""
    order = np.argsort(own["hash"].to_numpy(), kind="stable")
    table = own.take(pa.array(order))
    hashes, documents = table["hash"].to_numpy(), table["document"].to_numpy()
    starts = _starts(hashes)
    new_document = np.ones(len(order), dtype=np.int64)
    new_document[1:] = (hashes[1:] != hashes[:-1]) | (documents[1:] != documents[:-1])
    counts = np.add.reduceat(new_document, starts) if len(starts) else new_document
    columns = [table["kind"].to_numpy()[starts], hashes[starts], table["word"].to_numpy()[starts], counts]
    return pa.table(columns, schema=UNITS)


def shared_units(received: Received, limits: Mapping[str, int]) -> pa.Table:
    """SHARED_UNITS: each file's share of what its kind's limit allows, where more of its documents have a unit."""
    if not received:
        return SHARED_UNITS.empty_table()
    table, inputs, starts = _group(received)
    counts = np.diff(np.append(starts, len(inputs)))
    first = np.repeat(starts, counts)
    documents = table["documents"].to_numpy()
    before = np.cumsum(documents) - documents
    before -= before[first]
    limit_of = np.array([limits.get(kind, 0) for kind in UNIT_KINDS])
    allowed = np.maximum(limit_of[table["kind"].to_numpy()] - before, 0)
    rows = np.flatnonzero(documents > allowed)
    first = first[rows]
    columns = [
        table["kind"].to_numpy()[rows],
        table["hash"].to_numpy()[rows],
        table["word"].to_numpy()[first],
        allowed[rows],
        inputs[first],
        inputs[rows],
    ]
    return pa.table(columns, schema=SHARED_UNITS)


def shared_windows(received: Received) -> pa.Table:
    """SHARED_WINDOWS: every window whose hash an earlier file has."""
    if not received:
        return SHARED_WINDOWS.empty_table()
    table, inputs, starts = _group(received, num_least=2)
    counts = np.diff(np.append(starts, len(inputs)))
    first = np.repeat(starts, counts)
    again = np.flatnonzero(first != np.arange(len(first)))
    word = table["word"].to_numpy()
    return pa.table([inputs[first[again]], word[first[again]], inputs[again], word[again]], schema=SHARED_WINDOWS)


def runs(shared: pa.Table) -> pa.Table:
    """RUNS of SHARED_WINDOWS that have one input, ordered by target and word."""
    table = shared.sort_by([("target", "ascending"), ("target_word", "ascending")])
    target, target_word, word = (table[name].to_numpy() for name in ("target", "target_word", "word"))
    begins = np.ones(len(target), dtype=bool)
    begins[1:] = (np.diff(target) != 0) | (np.diff(target_word) != 1) | (np.diff(word) != 1)
    starts = np.flatnonzero(begins)
    counts = np.diff(np.append(starts, len(target)))
    return pa.table([target[starts], target_word[starts], word[starts], counts], schema=RUNS)


def _starts(ordered: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Where each run of equal values begins."""
    new = np.ones(len(ordered), dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return np.flatnonzero(new)


def _group(received: Received, num_least: int = 1) -> tuple[pa.Table, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows whose hash at least so many have (1 or 2), ordered by hash, then input; their inputs, and where each
    hash's rows begin."""
    table = pa.concat_tables([table for _, table in received])
    hashes = table["hash"].to_numpy()
    rows = _likely_equal(hashes) if num_least == 2 else np.arange(len(hashes))
    order = rows[np.argsort(hashes[rows], kind="stable")]
    if num_least == 2:
        order = order[_among_equal(hashes[order])]
    ends = np.cumsum([table.num_rows for _, table in received])
    inputs = np.array([number for number, _ in received])[np.searchsorted(ends, order, side="right")]
    table = table.take(pa.array(order))
    return table, inputs, _starts(table["hash"].to_numpy())


def _likely_equal(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Ascending rows of all hashes that occur twice, and of few others: by a sort of integers that hold a hash's upper
    bits and its row, in a third of the time that sorting rows by their hashes takes."""
    mask = np.uint64((1 << max(1, (len(hashes) - 1).bit_length())) - 1)
    packed = (hashes & ~mask) | np.arange(len(hashes), dtype=np.uint64)
    packed.sort()
    return np.sort((packed & mask)[_among_equal(packed & ~mask)]).astype(np.int64)


def _among_equal(ordered: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which of these ordered values occur more than once."""
    as_before = np.zeros(len(ordered) + 1, dtype=bool)
    as_before[1:-1] = ordered[1:] == ordered[:-1]
    return as_before[:-1] | as_before[1:]
