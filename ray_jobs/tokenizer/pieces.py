"""Long texts in pieces that the tokenizer cuts into the same words as the whole.

The library holds some 120 bytes for every byte of a text that it encodes, so a document of 100 MB would take 12 GB. A
piece ends where both of our patterns (gpt2's and llama3's) end a word whatever stands further away: before a space
between ASCII letters, or after a line end between letters, digits and full stops.
"""

import re
from collections.abc import Iterator

PIECE_CHARACTERS = 1 << 18

# Letters and digits, not \S: what white space is differs between regular expression libraries.
_SAFE = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])|(?<=[^\W_]\n)(?=[^\W_])|(?<=[.!?。！？]\n)(?=[^\W_])")


def pieces(text: str, size: int = PIECE_CHARACTERS) -> Iterator[str]:
    """The text in pieces of `size` characters or more, which go on to the next safe place; one, where there is none."""
    first = 0
    while len(text) - first > size:
        match = _SAFE.search(text, first + size)
        if match is None:
            break
        yield text[first : match.start()]
        first = match.start()
    yield text[first:] if first else text
