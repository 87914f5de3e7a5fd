"""Classifiers as files: our own safetensors, and fastText's .bin, read and written. Nothing that runs code is read.

safetensors   `logits` float32 [rows, labels], `words` uint8 and `word_offsets` int64 [words + 1]; the metadata's one
              entry `config` is JSON: labels, loss and the fields of `Features`
fastText      version 12 (and 11) of its format, trained by softmax, one-vs-all or negative sampling; not quantized
"""

import dataclasses
import io
import json
import struct
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ray_jobs.quality.features import LABEL_PREFIX, Features, Vocabulary
from ray_jobs.quality.linear import ONE_VS_ALL, SOFTMAX, LinearModel, Matrix, fold

FORMAT = "headrace-classifier-1"

# Of fastText's files: the first number, and the numbers of enumerations in its args.h.
_MAGIC, _VERSIONS = 793712314, (11, 12)
_SUPERVISED = 3
_LOSSES = {2: ONE_VS_ALL, 3: SOFTMAX, 4: ONE_VS_ALL}
_HIERARCHICAL = 1
_WORD, _LABEL = 0, 1
_ARGS = struct.Struct("<12id")
_SIZES = struct.Struct("<3i2q")
_ENTRY = struct.Struct("<qb")
# Of a .bin, in memory at once: of its dictionary so many bytes, of its embeddings so many rows.
_DICTIONARY_BYTES = 1 << 22
_ROWS = 1 << 16


def read_model(file: BinaryIO, name: str, lowercase: bool = False) -> LinearModel:
    """The classifier that a seekable file holds, told by its content.

    Args:
        name: the file's URL, for messages.
        lowercase: texts are lower-cased before a fastText model sees them; safetensors say so themselves.

    Raises:
        ValueError: it is no such file, or one of a kind that is not read; the message says what to do.
    """
    begin = file.read(9)
    file.seek(0)
    if begin[:4] == struct.pack("<i", _MAGIC):
        return _read_fasttext(file, name, lowercase)
    if begin[:1] == b"\x80" or begin[:2] in {b"PK", b"\x1f\x8b", b"x\x9c"}:
        raise ValueError(
            f"{name} is a pickle, or an archive that may hold one (joblib, .pt, .pth, .npz): loading it would run code "
            "that it holds. Give safetensors or a fastText .bin"
        )
    if begin[8:9] == b"{":
        return _read_safetensors(file.read(), name)
    raise ValueError(f"{name} is neither safetensors nor a fastText .bin: convert it to one of them")


def safetensors_of(model: LinearModel) -> bytes:
    """The same bytes for the same model."""
    from safetensors.numpy import save

    config = {
        "format": FORMAT,
        "labels": list(model.labels),
        "loss": model.loss,
        **dataclasses.asdict(model.features),
    }
    tensors: dict[str, npt.NDArray[Any]] = {
        "logits": np.ascontiguousarray(model.logits),
        "words": np.ascontiguousarray(model.vocabulary.data),
        "word_offsets": model.vocabulary.offsets,
    }
    # One entry: of several, safetensors writes the order of a hash map.
    return save(tensors, {"config": json.dumps(config, sort_keys=True)})


def _read_safetensors(data: bytes, name: str) -> LinearModel:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        config = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["config"])
        written_as = config.pop("format")
        labels, loss = tuple(config.pop("labels")), config.pop("loss")
        features = Features(**config)
        logits, words, offsets = (tensors[key] for key in ("logits", "words", "word_offsets"))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} is no classifier that Headrace wrote ({type(error).__name__}: {error}): give the file "
            "classifier.safetensors of a node `classifier`, or a fastText .bin"
        ) from error
    sound = (
        written_as == FORMAT
        and loss in {SOFTMAX, ONE_VS_ALL}
        and (logits.dtype, words.dtype, offsets.dtype) == (np.float32, np.uint8, np.int64)
        and offsets.ndim == words.ndim == 1
        and len(offsets) > 0
        and offsets[0] == 0
        and offsets[-1] == len(words)
        and bool((np.diff(offsets) >= 0).all())
        and (features.num_buckets > 0 or not features.hashed)
        and logits.shape == (len(offsets) - 1 + (features.num_buckets if features.hashed else 0), len(labels))
    )
    if not sound:
        raise ValueError(f"{name} is damaged, or of a newer format than {FORMAT}: take it anew from its source")
    return LinearModel(labels, Vocabulary.of(words, offsets), features, logits, loss)


def _read_fasttext(file: BinaryIO, name: str, lowercase: bool) -> LinearModel:
    """Its two matrices are folded into logits as they are read: beside the file a piece is in memory."""
    try:
        _, version = struct.unpack("<2i", file.read(8))
        dimension, _, _, _, _, ngrams, loss, kind, buckets, minn, maxn, _, _ = _ARGS.unpack(file.read(_ARGS.size))
        size, num_words, num_labels, _, pruned = _SIZES.unpack(file.read(_SIZES.size))
    except struct.error as error:
        raise ValueError(f"{name} ends within its header: take it anew from its source") from error
    if version not in _VERSIONS:
        raise ValueError(f"{name} is version {version} of fastText's format, read are {_VERSIONS}: save it anew")
    if kind != _SUPERVISED:
        raise ValueError(f"{name} holds word vectors and no classifier: give one that `fasttext supervised` trained")
    if loss not in _LOSSES:
        raise ValueError(f"{name} was trained by hierarchical softmax (-loss hs): give one trained by softmax or ova")
    entries = _dictionary(file, name, size)
    words = [word for word, entry in entries if entry == _WORD]
    labels = [word.removeprefix(LABEL_PREFIX).decode(errors="replace") for word, entry in entries if entry == _LABEL]
    if (len(words), len(labels)) != (num_words, num_labels) or num_labels < 1:
        raise ValueError(f"{name} is damaged: its dictionary is not what its header says. Take it anew from its source")
    features = Features(
        word_ngrams=ngrams,
        num_buckets=buckets,
        min_characters=minn,
        # As fastText does: version 11 wrote a length that classifiers did not use.
        max_characters=0 if version == 11 else maxn,
        lowercase=lowercase,
    )
    num_rows, start = _shape(file, name, dimension, pruned > 0)
    file.seek(4 * num_rows * dimension, io.SEEK_CUR)
    num_outputs, _ = _shape(file, name, dimension)
    outputs = _matrix(file, name, num_outputs, dimension)
    if num_outputs != num_labels or num_rows < num_words + (buckets if features.hashed else 0):
        raise ValueError(f"{name} is damaged: its matrices do not fit its dictionary. Take it anew from its source")
    file.seek(start)
    # fastText keeps rows for buckets that it does not use.
    wanted = num_words + (buckets if features.hashed else 0)
    logits = np.empty((wanted, num_labels), dtype=np.float32)
    for first in range(0, wanted, _ROWS):
        rows = min(_ROWS, wanted - first)
        logits[first : first + rows] = fold(_matrix(file, name, rows, dimension), outputs)
    return LinearModel(tuple(labels), Vocabulary.of_words(words), features, logits, _LOSSES[loss])


def _dictionary(file: BinaryIO, name: str, size: int) -> list[tuple[bytes, int]]:
    """(word, its kind) of all entries; the file then stands behind them."""
    start = file.tell()
    entries: list[tuple[bytes, int]] = []
    buffer, at = b"", 0
    for _ in range(size):
        while (end := buffer.find(b"\0", at)) < 0 or end + _ENTRY.size >= len(buffer):
            piece = file.read(_DICTIONARY_BYTES)
            if not piece:
                raise ValueError(f"{name} ends within its dictionary: take it anew from its source")
            start += at
            buffer, at = buffer[at:] + piece, 0
        _, kind = _ENTRY.unpack_from(buffer, end + 1)
        entries.append((buffer[at:end], kind))
        at = end + 1 + _ENTRY.size
    file.seek(start + at)
    return entries


def _shape(file: BinaryIO, name: str, dimension: int, is_pruned: bool = False) -> tuple[int, int]:
    """A matrix's rows, and where its numbers begin."""
    head = file.read(17)
    if len(head) < 17:
        raise ValueError(f"{name} ends before a matrix: take it anew from its source")
    if is_pruned or head[0]:
        raise ValueError(f"{name} is quantized (.ftz): give the .bin that it was made of")
    rows, columns = struct.unpack("<2q", head[1:])
    if columns != dimension or rows < 0:
        raise ValueError(f"{name} is damaged: a matrix is {rows} x {columns}. Take it anew from its source")
    return rows, file.tell()


def _matrix(file: BinaryIO, name: str, rows: int, columns: int) -> Matrix:
    data = file.read(4 * rows * columns)
    if len(data) < 4 * rows * columns:
        raise ValueError(f"{name} ends within a matrix: take it anew from its source")
    matrix: npt.NDArray[np.float32] = np.frombuffer(data, dtype="<f4").reshape(rows, columns)
    return matrix


def fasttext_of(model: LinearModel) -> bytes:
    """The model as a .bin that fastText loads: embeddings are the rows' logits, outputs the unit matrix."""
    features = model.features
    num_labels = len(model.labels)
    loss = next(number for number, name in sorted(_LOSSES.items(), reverse=True) if name == model.loss)
    # What does not matter for predicting: window, epochs, least count, negatives, update rate, sampling threshold.
    args = _ARGS.pack(
        num_labels,
        5,
        5,
        1,
        5,
        features.word_ngrams,
        loss,
        _SUPERVISED,
        features.num_buckets if features.hashed else 0,
        features.min_characters,
        features.max_characters,
        100,
        1e-4,
    )
    words = model.vocabulary.words()
    out = [struct.pack("<2i", _MAGIC, _VERSIONS[-1]), args]
    out.append(_SIZES.pack(len(words) + num_labels, len(words), num_labels, 0, -1))
    # Counts are not kept; fastText wants none in descending order.
    out += [word + b"\0" + _ENTRY.pack(1, _WORD) for word in words]
    out += [LABEL_PREFIX + label.encode() + b"\0" + _ENTRY.pack(1, _LABEL) for label in model.labels]
    for matrix in (model.logits, np.eye(num_labels, dtype=np.float32)):
        out += [b"\0", struct.pack("<2q", *matrix.shape), np.ascontiguousarray(matrix, dtype="<f4").tobytes()]
    return b"".join(out)
