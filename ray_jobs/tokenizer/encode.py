"""Text to token ids, for every room that reads raw text."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from ray_jobs.tokenizer.bpe import cuts_as_ours
from ray_jobs.tokenizer.pieces import PIECE_CHARACTERS, pieces
from ray_jobs.tokenizer.special import number_of, special_tokens_of


class Encoder:
    """A trained tokenizer whose special tokens never arise from text: "<|endoftext|>" in a page is thirteen bytes of
    that page.

    `data` is the content of a tokenizer.json.
    """

    def __init__(self, data: bytes):
        self.tokenizer = Tokenizer.from_str(data.decode())
        self.tokenizer.encode_special_tokens = True
        self._in_pieces = cuts_as_ours(self.tokenizer)
        self.vocab_size: int = self.tokenizer.get_vocab_size()
        special = special_tokens_of(self.tokenizer)
        self.end_of_text = number_of(self.tokenizer, special.end)
        self.pad = number_of(self.tokenizer, special.pad)
        self.dtype = "uint16" if self.vocab_size <= 1 << 16 else "uint32"
        """Of stored tokens."""

    @classmethod
    def from_folder(cls, folder: Path) -> "Encoder":
        return cls((folder / "tokenizer.json").read_bytes())

    def encode(self, text: str) -> list[int]:
        """Token ids of one text, without any special token."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]:
        """The documents' tokens end to end, each followed by end-of-text, and the length of each with it: int64 [n]."""
        if self._in_pieces and any(len(text) > PIECE_CHARACTERS for text in texts):
            return self._encode_in_pieces(texts)
        encodings = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        lengths = np.array([len(encoding) + 1 for encoding in encodings], dtype=np.int64)
        tokens = np.empty(int(lengths.sum()), dtype=self.dtype)
        start = 0
        for encoding, length in zip(encodings, lengths.tolist(), strict=True):
            tokens[start : start + length - 1] = encoding.ids
            tokens[start + length - 1] = self.end_of_text
            start += length
        return tokens, lengths

    def _encode_in_pieces(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]:
        """The same tokens, holding the library's bulky form of one piece at a time."""
        end = np.array([self.end_of_text], dtype=self.dtype)
        documents = []
        for text in texts:
            parts = []
            for piece in pieces(text):
                (encoding,) = self.tokenizer.encode_batch_fast([piece], add_special_tokens=False)
                parts.append(np.array(encoding.ids, dtype=self.dtype))
            documents.append(np.concatenate([*parts, end]))
        return np.concatenate(documents), np.array([len(document) for document in documents], dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens written out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False)
