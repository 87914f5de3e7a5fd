"""Text to token ids, for every room that reads raw text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from ray_jobs.files.columns import text_buffers
from ray_jobs.tokenizer.bpe import batches, decoded, pre_tokenizer_of
from ray_jobs.tokenizer.compiled import compiled
from ray_jobs.tokenizer.pieces import PIECE_CHARACTERS, pieces
from ray_jobs.tokenizer.special import number_of, special_tokens_of

Tokens: TypeAlias = npt.NDArray[np.unsignedinteger]
Lengths: TypeAlias = npt.NDArray[np.int64]

# Characters that the library is given at once.
_BATCH_CHARACTERS = 1 << 22


class Encoder:
    """A trained tokenizer whose special tokens never arise from text: "<|endoftext|>" in a page is thirteen bytes of
    that page.

    `data` is the content of a tokenizer.json. Byte-level BPE with a pre-tokenizer of `bpe` is encoded by compiled
    loops, all else by Hugging Face tokenizers; the tokens are the same.
    """

    def __init__(self, data: bytes):
        self.tokenizer = Tokenizer.from_str(data.decode())
        self.tokenizer.encode_special_tokens = True
        self._compiled = compiled(self.tokenizer)
        self._in_pieces = self._compiled is None and pre_tokenizer_of(self.tokenizer) is not None
        self.vocab_size: int = self.tokenizer.get_vocab_size()
        special = special_tokens_of(self.tokenizer)
        self.end_of_text = number_of(self.tokenizer, special.end)
        self.pad = number_of(self.tokenizer, special.pad)
        self.dtype = "uint16" if self.vocab_size <= 1 << 16 else "uint32"
        """Of stored tokens."""

    @classmethod
    def from_folder(cls, folder: Path) -> "Encoder":
        return cls((folder / "tokenizer.json").read_bytes())

    @property
    def is_compiled(self) -> bool:
        """Whether texts are encoded by compiled loops, some 30 times as fast as by the library."""
        return self._compiled is not None

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without any special token."""
        tokens, _ = self.encode_documents([text])
        return tokens[:-1].tolist()

    def encode_documents(self, texts: Sequence[str]) -> tuple[Tokens, Lengths]:
        """The documents' tokens end to end, each followed by end-of-text, and the length of each with it: int64 [n].

        A lone surrogate, which no UTF-8 has, is taken for its three bytes, none of which is UTF-8.
        """
        return self.encode_column(pa.array([text.encode(errors="surrogatepass") for text in texts], pa.large_binary()))

    def encode_column(self, column: pa.Array | pa.ChunkedArray) -> tuple[Tokens, Lengths]:
        """The same of a column of strings or of bytes; what is no UTF-8 becomes U+FFFD, as in `sound`."""
        column = sound(column)
        if self._compiled is not None:
            data, offsets = text_buffers(column)
            return self._compiled.encode(data, offsets, self.end_of_text, self.dtype)
        tokens, lengths = [np.empty(0, dtype=self.dtype)], [0]
        for texts in batches(column.to_pylist(), _BATCH_CHARACTERS):
            for some in self._by_library(texts):
                tokens.append(some)
                lengths.append(len(some))
        return np.concatenate(tokens), np.array(lengths[1:], dtype=np.int64)

    def _by_library(self, texts: list[str]) -> Iterator[Tokens]:
        """The tokens of each text with end-of-text. Of long texts the library's bulky form is held of one piece at a
        time."""
        end = np.array([self.end_of_text], dtype=self.dtype)
        if self._in_pieces and any(len(text) > PIECE_CHARACTERS for text in texts):
            for text in texts:
                parts = [np.array(self._encodings([piece])[0].ids, dtype=self.dtype) for piece in pieces(text)]
                yield np.concatenate([*parts, end])
            return
        for encoding in self._encodings(texts):
            yield np.concatenate([np.array(encoding.ids, dtype=self.dtype), end])

    def _encodings(self, texts: list[str]) -> list[Encoding]:
        return self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens written out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)


def sound(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The column as large_string of sound UTF-8: texts that are not are repaired as `bpe.decoded` does it."""
    column = column.cast(pa.large_binary())
    try:
        return column.cast(pa.large_string())  # looks at every byte
    except pa.ArrowInvalid:
        return pa.array([decoded(text.as_py()) for text in column], pa.large_string())
