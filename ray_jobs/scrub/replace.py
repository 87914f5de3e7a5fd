"""Replaces spans of a text column without turning its documents into Python strings."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ray_jobs.scrub import names, patterns
from ray_jobs.scrub.scanner import Scanner, Span

PLACEHOLDERS = patterns.PLACEHOLDERS | names.PLACEHOLDERS


@dataclass(frozen=True)
class Scrubbed:
    text: pa.Array
    """large_string, the same rows as the column that was given."""
    spans: list[list[Span]]
    """What was replaced in each document, at its place in the old text."""


def scrub_column(column: pa.ChunkedArray, scanner: Scanner, more: names.MoreSpans | None = None) -> Scrubbed:
    """The column with each span's placeholder in its place. Bytes that are no UTF-8 pass through unchanged.

    Args:
        more: adds to the spans that the scanner found.
    """
    array = column.combine_chunks().cast(pa.large_binary())
    if isinstance(array, pa.ChunkedArray):  # a column without rows
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.large_binary())
    assert array.null_count == 0, "documents have text"
    _, offsets, data = array.buffers()
    if len(array) == 0 or data is None:
        return Scrubbed(array.view(pa.large_string()), [[] for _ in range(len(array))])
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    view = memoryview(data)
    pieces: list[memoryview | bytes] = []
    lengths = np.diff(ends)
    found = []
    copied = int(ends[0])
    for document, (start, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
        text = bytes(view[start:end])
        spans = scanner.find(text)
        if more is not None:
            spans = more(document, text, spans)
        found.append(spans)
        for span in spans:
            placeholder = PLACEHOLDERS[span.kind]
            pieces += (view[copied : start + span.start], placeholder)
            copied = start + span.end
            lengths[document] += len(placeholder) - (span.end - span.start)
    pieces.append(view[copied : int(ends[-1])])
    new_ends = np.concatenate([[0], np.cumsum(lengths)])
    buffers = [None, pa.py_buffer(new_ends), pa.py_buffer(b"".join(pieces))]
    return Scrubbed(pa.Array.from_buffers(pa.large_string(), len(array), buffers), found)
