"""Replaces spans of a text column without turning its documents into Python strings."""

from collections import Counter
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
    counts: list[Counter[str]]
    """How many of each kind were replaced in each document."""
    first: list[Span | None]
    """What was replaced first in each, at its place in the old text, which is that of its placeholder in the new."""


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
        return Scrubbed(array.view(pa.large_string()), [Counter() for _ in range(len(array))], [None] * len(array))
    ends = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    view = memoryview(data)
    out = bytearray()
    new_ends = np.zeros(len(ends), dtype=np.int64)
    counts: list[Counter[str]] = []
    first: list[Span | None] = []
    for document, (start, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
        text = bytes(view[start:end])
        spans = scanner.find(text)
        if more is not None:
            spans = more(document, text, spans)
        copied = 0
        for span in spans:
            out += text[copied : span.start]
            out += PLACEHOLDERS[span.kind]
            copied = span.end
        out += view[start + copied : end]
        new_ends[document + 1] = len(out)
        counts.append(Counter(span.kind for span in spans))
        first.append(spans[0] if spans else None)
    buffers = [None, pa.py_buffer(new_ends), pa.py_buffer(out)]
    return Scrubbed(pa.Array.from_buffers(pa.large_string(), len(array), buffers), counts, first)
