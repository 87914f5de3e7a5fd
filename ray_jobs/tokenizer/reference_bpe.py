"""Byte pair encoding as plainly as it can be written: what `merging.py` and the encoder do fast, to be read first.

A tokenizer is a list of **tokens** (byte strings, numbered) and an ordered list of **merges**, each of which joins two
neighbouring tokens into a longer one. To begin with every byte is a token. Training looks at the words of a corpus,
each cut into its bytes, and again and again joins the pair of neighbours that occurs most often; encoding replays these
merges on a new word in the order in which they were learned. Common words end as one token, rare ones as a few, and no
text is without tokens. Source: Sennrich, Haddow, Birch, "Neural Machine Translation of Rare Words with Subword Units"
(ACL 2016), algorithm 1; on bytes: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019),
section 2.2.

Two rules make the result unique: of pairs that occur equally often, the smaller pair of numbers is joined (by the left
token, then by the right), and in a row of overlapping pairs, such as `aaa`, the leftmost.

No two merges make the same bytes. Where a token stands, no earlier merge crossed its ends, so what went on inside was
decided by its own bytes alone; wherever these bytes become one token, they do so by the same last merge.

A merge never crosses the border between two words, so how text is cut into words (`splitting.py`) is a part of the
tokenizer. All this is quadratic: it is for reading, and for tests.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

Pair = tuple[int, int]


@dataclass(frozen=True)
class Vocabulary:
    """A trained byte pair encoding."""

    tokens: tuple[bytes, ...]
    """What each token stands for, by its number: the single bytes first, then what the merges made."""
    merges: Mapping[Pair, int]
    """(left, right) -> the token that joins them, in the order in which they were learned."""


def train(
    words: Mapping[bytes, int], first_tokens: Sequence[bytes], vocab_size: int, min_frequency: int = 1
) -> Vocabulary:
    """Learns merges until there are `vocab_size` tokens, or no pair is left that occurs `min_frequency` times.

    Args:
        words: each word of the corpus, and how often it occurs.
        first_tokens: all single bytes, in the order of their numbers.
        vocab_size: tokens in all, the first ones included.
        min_frequency: a rarer pair is not joined.
    """
    tokens = list(first_tokens)
    number = {token: place for place, token in enumerate(tokens)}
    texts = [([number[bytes([byte])] for byte in word], count) for word, count in words.items()]
    merges: dict[Pair, int] = {}
    while len(tokens) < vocab_size:
        counts = count_pairs(texts)
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        if counts[best] < min_frequency:
            break
        merges[best] = len(tokens)
        texts = [(join(text, best, len(tokens)), count) for text, count in texts]
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return Vocabulary(tuple(tokens), merges)


def count_pairs(texts: Iterable[tuple[Sequence[int], int]]) -> Counter[Pair]:
    """How often each pair of neighbours occurs. `aaa` holds the pair (a, a) twice."""
    counts: Counter[Pair] = Counter()
    for text, count in texts:
        for pair in pairwise(text):
            counts[pair] += count
    return counts


def join(text: Sequence[int], pair: Pair, token: int) -> list[int]:
    """The text with `token` in place of each `pair`, from the left."""
    joined: list[int] = []
    place = 0
    while place < len(text):
        if tuple(text[place : place + 2]) == pair:
            joined.append(token)
            place += 2
        else:
            joined.append(text[place])
            place += 1
    return joined


def encode(word: bytes, vocabulary: Vocabulary) -> list[int]:
    """The tokens of one word: of the merges that apply, the one learned first is done first."""
    number = {token: place for place, token in enumerate(vocabulary.tokens) if len(token) == 1}
    rank = {pair: place for place, pair in enumerate(vocabulary.merges)}
    text = [number[bytes([byte])] for byte in word]
    while True:
        known = [pair for pair in pairwise(text) if pair in rank]
        if not known:
            return text
        first = min(known, key=rank.__getitem__)
        text = join(text, first, vocabulary.merges[first])


def decode(tokens: Iterable[int], vocabulary: Vocabulary) -> bytes:
    """What the tokens stand for, end to end; a single token may be a part of a character only."""
    return b"".join(vocabulary.tokens[token] for token in tokens)
