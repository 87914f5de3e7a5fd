"""Byte-level BPE by compiled loops: which tokenizers that takes, and their documents to tokens.

Tokenizers of other kinds are left to Hugging Face tokenizers (`encode.Encoder`). Compiling takes 14 s, once an
installation: numba keeps the result beside this file, or where NUMBA_CACHE_DIR says.
"""

import json
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ray_jobs.tokenizer import bpe, words
from ray_jobs.tokenizer.characters import classes
from ray_jobs.tokenizer.merges import Merges, from_vocabulary, new_room
from ray_jobs.tokenizer.splitting import Pattern, eights

Tokens: TypeAlias = npt.NDArray[np.unsignedinteger]
Integers: TypeAlias = npt.NDArray[np.int64]

BLOCK_BYTES = 1 << 24
"""Of documents that are encoded at once; of a longer document, all."""
# Views of fewer are of another type to numba, for which it would compile once more.
_LEAST_BYTES = 16
# What the loops know nothing of, and the values that say that there is none of it.
_WITHOUT: dict[str, tuple[Any, ...]] = {
    "dropout": (None,),
    "unk_token": (None,),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (False,),
    "ignore_merges": (False,),
}


class CompiledBpe:
    """Encodes as one tokenizer does where no special token arises from text.

    Holds 16 MB of words that it has encoded, for as long as it lives. Calls of several threads wait for one another
    (for Python's lock), as they share these.
    """

    def __init__(self, pattern: Pattern, merges: Merges):
        self._pattern = int(pattern)
        self._merges = merges
        self._classes = classes()
        self._room = new_room()
        self._cache = words.new_cache()

    def encode(
        self, data: npt.NDArray[np.uint8], offsets: Integers, end_of_text: int, dtype: str
    ) -> tuple[Tokens, Integers]:
        """Documents of sound UTF-8 by their byte offsets (int64 [n + 1]) to tokens end to end, each document's followed
        by `end_of_text`, and the length of each with it: int64 [n]."""
        lengths = np.empty(len(offsets) - 1, dtype=np.int64)
        parts = [np.empty(0, dtype=dtype)]
        first = 0
        while first < len(lengths):
            end = max(first + 1, int(np.searchsorted(offsets, offsets[first] + BLOCK_BYTES, side="right")) - 1)
            parts.append(self._block(data, offsets[first : end + 1], end_of_text, dtype, lengths[first:end]))
            first = end
        return np.concatenate(parts), lengths

    def _block(
        self, data: npt.NDArray[np.uint8], offsets: Integers, end_of_text: int, dtype: str, lengths: Integers
    ) -> Tokens:
        start = int(offsets[0])
        data, offsets = data[start : int(offsets[-1])], _read_only(offsets - start)
        if len(data) < _LEAST_BYTES:
            data = np.concatenate([data, np.zeros(_LEAST_BYTES, dtype=np.uint8)])
        data = _read_only(data)
        tokens = np.empty(len(data) + len(lengths) + words.INLINE, dtype=np.uint32)  # one type: compiled once
        num_tokens = words.encode(
            data,
            eights(data),
            offsets,
            self._pattern,
            self._classes,
            self._merges,
            self._room,
            self._cache,
            end_of_text,
            tokens,
            lengths,
        )
        return tokens[:num_tokens].astype(dtype)


def compiled(tokenizer: Tokenizer) -> CompiledBpe | None:
    """None where the tokenizer is of another kind, or does anything besides."""
    described = json.loads(tokenizer.to_str())
    name = bpe.pre_tokenizer_of(tokenizer)
    model = described["model"]
    if (
        name is None
        or model["type"] != "BPE"
        or any(model[name] not in values for name, values in _WITHOUT.items())
        or any(described[part] is not None for part in ("truncation", "padding"))
        or not all(token["special"] for token in described["added_tokens"])
    ):
        return None
    merges = from_vocabulary(model["vocab"], model["merges"])
    return None if merges is None else CompiledBpe(bpe.PATTERNS[name], merges)


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Loops are compiled once for arrays that may be written and once for those that may not."""
    view = array.view()
    view.flags.writeable = False
    return view
