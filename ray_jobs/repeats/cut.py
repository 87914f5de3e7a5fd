"""Documents without some of their words."""

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.repeats.words import Bytes, Offsets, Words


def cut(words: Words, documents: Offsets, removed: npt.NDArray[np.bool_]) -> pa.Array:
    """The texts (large_string [n]) without the words marked in `removed` [w].

    `documents` are the texts' byte offsets (int64 [n + 1]). Where words were cut out, of the white space before and
    behind them one is left: that with more newlines. A document that loses nothing keeps every byte.
    """
    size = int(documents[-1] - documents[0])
    out = np.empty(size, dtype=np.uint8)
    offsets = np.zeros(len(documents), dtype=np.int64)
    _cut(words.data, documents, words.starts, words.ends, words.offsets, removed, out, offsets)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(out[: offsets[-1]])]
    return pa.Array.from_buffers(pa.large_string(), len(documents) - 1, buffers)


@numba.njit(cache=True)
def _copy(data: Bytes, start: int, end: int, out: Bytes, place: int) -> int:  # pragma: no cover
    for i in range(start, end):
        out[place] = data[i]
        place += 1
    return place


@numba.njit(cache=True)
def _newlines(data: Bytes, start: int, end: int) -> int:  # pragma: no cover
    number = 0
    for i in range(start, end):
        number += data[i] == 10
    return number


@numba.njit(cache=True)
def _cut(
    data: Bytes,
    documents: Offsets,
    starts: Offsets,
    ends: Offsets,
    offsets: Offsets,
    removed: npt.NDArray[np.bool_],
    out: Bytes,
    out_offsets: Offsets,
) -> None:  # pragma: no cover
    place = 0
    for document in range(len(documents) - 1):
        first, last = offsets[document], offsets[document + 1]
        copied = documents[document]  # what stands before this byte was copied or cut
        word = first
        while word < last:
            if not removed[word]:
                word += 1
                continue
            end = word
            while end < last and removed[end]:
                end += 1
            before = ends[word - 1] if word > first else documents[document]
            place = _copy(data, copied, before, out, place)
            behind = starts[end] if end < last else documents[document + 1]
            if word == first or end == last:
                copied = behind  # nothing to keep apart
            elif _newlines(data, before, starts[word]) >= _newlines(data, ends[end - 1], behind) and (
                before < starts[word]
            ):
                place = _copy(data, before, starts[word], out, place)
                copied = behind
            else:
                copied = ends[end - 1]
            word = end
        place = _copy(data, copied, documents[document + 1], out, place)
        out_offsets[document + 1] = place
