"""Long texts in pieces that the tokenizer cuts into the same words as the whole.

The library holds some 120 bytes for every byte of a text that it encodes and 90 of one that it trains on, so a
document of 100 MB would take 12 GB. A piece ends where both of our patterns (gpt2's and llama3's) end a word whatever
stands further away: before a space between ASCII letters, or after a line end between letters, digits and full stops.
"""

import re
from collections.abc import Iterable, Iterator

PIECE_CHARACTERS = 1 << 18

# Letters and digits, not \S: what white space is differs between regular expression libraries.
_SAFE = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])|(?<=[^\W_]\n)(?=[^\W_])|(?<=[.!?。！？]\n)(?=[^\W_])")


LONGEST_WORD = 2048
_RUN = re.compile(rf"\S{{{LONGEST_WORD}}}|\s{{{LONGEST_WORD}}}")
# Letters, digits, white space and all else are words of their own kinds in both patterns.
_LONG = re.compile("|".join(rf"{kind}{{{LONGEST_WORD}}}" for kind in (r"[^\W\d_]", r"\d", r"\s", r"(?:[^\w\s]|_)")))


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


def trainable(texts: Iterable[str]) -> Iterator[str]:
    """The texts in pieces, cut within words of more than LONGEST_WORD characters as well.

    Training takes time quadratic in the longest word: a minute for one of 200,000 characters, which is data that
    somebody left in a page.
    """
    for text in texts:
        for piece in pieces(text):
            first = 0
            for match in _LONG.finditer(piece) if _RUN.search(piece) else ():
                yield piece[first : match.end()]
                first = match.end()
            yield piece[first:]
