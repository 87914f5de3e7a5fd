"""A linear text classifier: fastText's training, and scoring that reads one row of logits a feature.

**Training** (Joulin et al. 2016, arXiv:1607.01759): each row of the features has an embedding e of `dimension` numbers,
drawn evenly from ±1/dimension; each label a vector o, at first 0. A text with the rows R has the hidden vector
h = mean of e over R, the probabilities softmax(o·h), and the loss -log p of its label. Stochastic gradient descent, one
text a step, its rate falling linearly to 0; o moves by rate·(y - p)·h and each e of R by rate·(y - p)·o / |R|.

**Scoring.** Nothing stands between mean and logits, so o·(mean of e) = mean of (o·e): after training each row is folded
into one logit a label. That is all that is kept and read: 8 bytes a row for two labels, whatever the dimension was.

Everything is computed on one thread in a fixed order: the same seed and texts leave the same bytes.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ray_jobs.files.columns import text_buffers
from ray_jobs.quality.features import (
    Bytes,
    Features,
    Offsets,
    Rows,
    Vocabulary,
    count_words,
    mapped_bytes,
    most_rows,
    most_words,
    rows_of,
    settings_of,
    text_rows,
)

Matrix: TypeAlias = npt.NDArray[np.float32]

SOFTMAX, ONE_VS_ALL = "softmax", "one_vs_all"


@dataclass(frozen=True)
class LinearModel:
    """A trained classifier of k labels."""

    labels: tuple[str, ...]
    vocabulary: Vocabulary
    features: Features
    logits: Matrix
    """[words + buckets, k]: what each row adds to the mean."""
    loss: str = SOFTMAX
    """SOFTMAX: the labels' probabilities add up to 1. ONE_VS_ALL: each is a sigmoid of its own."""

    def __post_init__(self) -> None:
        rows = len(self.vocabulary) + (self.features.num_buckets if self.features.hashed else 0)
        assert self.logits.shape == (rows, len(self.labels)), f"{self.logits.shape} logits of {rows} rows"

    def probabilities(self, column: pa.Array | pa.ChunkedArray, label: str) -> npt.NDArray[np.float32]:
        """The label's probability for each text; a text without rows has equal logits.

        Raises:
            ValueError: the model has no such label.
        """
        if label not in self.labels:
            raise ValueError(f"the classifier has no label {label!r}: name one of {', '.join(self.labels)}")
        place = self.labels.index(label)
        return _probabilities(self.mean_logits(*text_buffers(column)), place, self.loss).astype(np.float32)

    def mean_logits(self, data: Bytes, offsets: Offsets) -> npt.NDArray[np.float64]:
        """float64 [n, k]"""
        num_bytes = int(np.diff(offsets).max(initial=0))
        out = np.zeros((len(offsets) - 1, len(self.labels)), dtype=np.float64)
        _mean_logits(
            data,
            offsets,
            mapped_bytes(self.features),
            self.vocabulary.data,
            self.vocabulary.offsets,
            self.vocabulary.table,
            settings_of(self.features),
            self.logits,
            np.empty(most_words(num_bytes), dtype=np.uint64),
            np.empty(most_rows(num_bytes, self.features), dtype=np.int32),
            out,
        )
        return out


def _probabilities(logits: npt.NDArray[np.float64], place: int, loss: str) -> npt.NDArray[np.float64]:
    own = logits[:, place]
    if loss == ONE_VS_ALL:
        return 1 / (1 + np.exp(-own))
    top = logits.max(axis=1)
    return np.exp(own - top) / np.exp(logits - top[:, None]).sum(axis=1)


def train(
    column: pa.Array | pa.ChunkedArray,
    targets: npt.NDArray[np.int64],
    labels: tuple[str, ...],
    features: Features,
    *,
    min_word_count: int,
    max_words: int,
    dimension: int,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> LinearModel:
    """A classifier of the texts.

    Args:
        column: n texts.
        targets: [n], each the place of the text's label in `labels`.
        min_word_count: rarer words are no rows of their own.
        max_words: the most frequent so many are.
    """
    data, offsets = text_buffers(column)
    words, counts = count_words(data, offsets, features.lowercase)
    known = 1 + int((counts[1:] >= min_word_count).sum())  # counts fall
    vocabulary = Vocabulary.of_words(words[: min(known, max_words)])
    rows, row_offsets = rows_of(data, offsets, vocabulary, features)

    generator = np.random.Generator(np.random.PCG64(seed))
    num_rows = len(vocabulary) + (features.num_buckets if features.hashed else 0)
    embeddings = generator.random((num_rows, dimension), dtype=np.float32)
    embeddings -= np.float32(0.5)
    embeddings *= np.float32(2 / dimension)
    outputs = np.zeros((len(labels), dimension), dtype=np.float32)
    num_texts = len(targets)
    for epoch in range(epochs):
        order = generator.permutation(num_texts)
        done, total = epoch * num_texts, epochs * num_texts
        _train(rows, row_offsets, targets, order, embeddings, outputs, learning_rate, done, total)
    return LinearModel(labels, vocabulary, features, fold(embeddings, outputs))


def fold(embeddings: Matrix, outputs: Matrix) -> Matrix:
    """[rows, d] and [k, d] → the rows' logits [rows, k]."""
    folded = np.empty((len(embeddings), len(outputs)), dtype=np.float32)
    _fold(embeddings, outputs, folded)
    return folded


@numba.njit(cache=True)
def _fold(embeddings: Matrix, outputs: Matrix, folded: Matrix) -> None:  # pragma: no cover
    # Not a matrix product: BLAS adds in an order that depends on its threads.
    for row in range(len(embeddings)):
        for label in range(len(outputs)):
            total = 0.0
            for i in range(embeddings.shape[1]):
                total += np.float64(embeddings[row, i]) * np.float64(outputs[label, i])
            folded[row, label] = total


@numba.njit(cache=True)
def _train(
    rows: Rows,
    row_offsets: Offsets,
    targets: npt.NDArray[np.int64],
    order: npt.NDArray[np.int64],
    embeddings: Matrix,
    outputs: Matrix,
    learning_rate: float,
    done: int,
    total: int,
) -> None:  # pragma: no cover
    """One epoch, of whose steps `done` of `total` lie behind."""
    num_labels, dimension = outputs.shape
    hidden = np.empty(dimension, dtype=np.float32)
    gradient = np.empty(dimension, dtype=np.float32)
    p = np.empty(num_labels, dtype=np.float64)
    for step in range(len(order)):
        text = order[step]
        first, end = row_offsets[text], row_offsets[text + 1]
        if first == end:
            continue
        rate = learning_rate * (1.0 - (done + step) / total)
        hidden[:] = 0
        for place in range(first, end):
            embedding = embeddings[rows[place]]
            for i in range(dimension):
                hidden[i] += embedding[i]
        scale = np.float32(1.0 / (end - first))
        for i in range(dimension):
            hidden[i] *= scale
        top = -np.inf
        for label in range(num_labels):
            p[label] = 0.0
            for i in range(dimension):
                p[label] += np.float64(outputs[label, i]) * np.float64(hidden[i])
            top = max(top, p[label])
        norm = 0.0
        for label in range(num_labels):
            p[label] = np.exp(p[label] - top)
            norm += p[label]
        gradient[:] = 0
        for label in range(num_labels):
            step_size = np.float32(rate * ((1.0 if label == targets[text] else 0.0) - p[label] / norm))
            for i in range(dimension):
                gradient[i] += step_size * outputs[label, i]
                outputs[label, i] += step_size * hidden[i]
        for i in range(dimension):
            gradient[i] *= scale
        for place in range(first, end):
            embedding = embeddings[rows[place]]
            for i in range(dimension):
                embedding[i] += gradient[i]


@numba.njit(cache=True)
def _mean_logits(
    data: Bytes,
    offsets: Offsets,
    mapped: Bytes,
    words: Bytes,
    word_offsets: Offsets,
    table: npt.NDArray[np.int32],
    settings: npt.NDArray[np.int64],
    logits: Matrix,
    hashes: npt.NDArray[np.uint64],
    rows: Rows,
    out: npt.NDArray[np.float64],
) -> None:  # pragma: no cover
    for text in range(len(offsets) - 1):
        found = text_rows(
            data, offsets[text], offsets[text + 1], mapped, words, word_offsets, table, settings, hashes, rows
        )
        for place in range(found):
            for label in range(logits.shape[1]):
                out[text, label] += logits[rows[place], label]
        if found:
            for label in range(logits.shape[1]):
                out[text, label] /= found
