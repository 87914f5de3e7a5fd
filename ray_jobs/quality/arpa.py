"""A language model's file, ARPA: text that KenLM, SRILM and others read; here compressed by gzip.

    \\data\\
    ngram 1=<number>
    ...
    \\1-grams:
    <log10 p>\t<words>\t<log10 back-off weight>     the last left out at the highest order
    ...
    \\end\\
"""

import gzip
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.quality.counts import SPECIAL
from ray_jobs.quality.kneser_ney import Model, Order

LINES_AT_ONCE = 1 << 20
# 34 % of the size, at 90 MB a second of a core; level 6 gives 30 %, at 27.
COMPRESSION = 2


def arpa(model: Model, words: pa.Array) -> bytes:
    """The compressed file. Probabilities and weights have the precision of float32, as readers keep them.

    Args:
        words: those that are numbered from len(SPECIAL), as in the run that the model was made of.
    """
    vocabulary = pa.concat_arrays([pa.array([word.encode() for word in SPECIAL], pa.large_binary()), words])
    sink = io.BytesIO()
    with gzip.GzipFile(fileobj=sink, mode="wb", compresslevel=COMPRESSION, mtime=0) as file:
        sizes = [f"ngram {k}={len(order.logprob)}\n" for k, order in enumerate(model.orders, start=1)]
        file.write(("\\data\\\n" + "".join(sizes)).encode())
        for k, order in enumerate(model.orders, start=1):
            file.write(f"\n\\{k}-grams:\n".encode())
            for first in range(0, len(order.logprob), LINES_AT_ONCE):
                rows = np.arange(first, min(first + LINES_AT_ONCE, len(order.logprob)))
                file.write(_lines(model.orders[:k], rows, vocabulary, is_highest=k == len(model.orders)))
        file.write(b"\n\\end\\\n")
    return sink.getvalue()


def _lines(orders: list[Order], rows: npt.NDArray[np.int64], vocabulary: pa.Array, is_highest: bool) -> bytes:
    """Those of the last of the orders' n-grams."""
    longest, words, place = orders[-1], [], rows
    for order in reversed(orders):
        words.append(vocabulary.take(pa.array(order.first_word[place])))
        place = order.suffix[place]
    columns = [_figures(longest.logprob[rows]), _joined(words, b" ")]
    if not is_highest:
        columns.append(_figures(longest.backoff[rows]))
    lines = _joined([_joined(columns, b"\t"), pa.scalar(b"", pa.large_binary())], b"\n")
    data: bytes = lines.buffers()[2].to_pybytes()
    return data


def _joined(columns: Sequence[pa.Array | pa.Scalar], separator: bytes) -> pa.Array:
    return pc.binary_join_element_wise(*columns, pa.scalar(separator, pa.large_binary()))


def _figures(values: npt.NDArray[np.float64]) -> pa.Array:
    shortest = pa.array(values.astype(np.float32) + np.float32(0)).cast(pa.string())  # no "-0"
    return shortest.cast(pa.large_binary())
