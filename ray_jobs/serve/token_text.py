"""A token as text and as bytes, for log-probabilities: alone it may be a part of a character."""

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte in SentencePiece's vocabularies."""
SPACE = "▁"
"""A space there."""


def byte_of_character() -> dict[str, int]:
    """Byte-level vocabularies write each byte as a character that can be seen (Radford et al. 2019, GPT-2's
    `bytes_to_unicode`): its own where it has a visible one in Latin-1, else the next free one from 256 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


class TokenTexts:
    """Of one tokenizer."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase"):
        self._tokenizer: Any = tokenizer
        backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        decoder = "" if backend is None else json.dumps(json.loads(backend.to_str()).get("decoder"))
        self._bytes = byte_of_character() if "ByteLevel" in decoder else None
        self._special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)

    def bytes_of(self, token: int) -> bytes:
        written = self._tokenizer.convert_ids_to_tokens(token)
        if written is None:  # in the embedding, but not in the vocabulary
            return b""
        if token in self._special:
            return str(written).encode()
        if self._bytes is not None:
            return bytes(self._bytes[character] for character in written)
        byte = BYTE.fullmatch(written)
        return bytes([int(byte[1], 16)]) if byte else str(written).replace(SPACE, " ").encode()

    def text_of(self, token: int) -> str:
        """As OpenAI's API writes what is not whole characters, `bytes:\\xe2\\x82`: different tokens stay so."""
        written = self.bytes_of(token)
        try:
            return written.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)
