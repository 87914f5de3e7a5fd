"""Unigram and trigram models over tokens: what a language model must beat.

The trigram model is Chen and Goodman's interpolated modified Kneser-Ney (1999, section 3.4): each order takes a
discount that depends on the count (1, 2, 3 or more) and gives what it took to the order below; below the highest order,
a word counts by how many words it follows, not by how often it comes. Everything is sorted arrays of packed n-grams.
"""

from dataclasses import dataclass

import numpy as np

# Three tokens are packed into one signed 64-bit number.
MAX_VOCABULARY = 1 << 21


def unigram_logprobs(train: np.ndarray, num_tokens: int) -> np.ndarray:
    """log p of every token, float64 [num_tokens], by its count in `train` plus one."""
    counts = np.bincount(train, minlength=num_tokens) + 1.0
    return np.log(counts / counts.sum())


@dataclass(frozen=True)
class _Order:
    """One order's counts: of n-grams, and summed over the n-grams that begin with a context."""

    ngrams: np.ndarray
    """Packed, sorted: context · num_tokens + token."""
    discounted: np.ndarray
    """max(count − discount, 0) of each."""
    contexts: np.ndarray
    """Packed, sorted."""
    totals: np.ndarray
    """Sum of counts after each context."""
    spared: np.ndarray
    """Sum of discounts taken after each context."""

    @classmethod
    def count(cls, ngrams: np.ndarray, counts: np.ndarray, num_tokens: int) -> "_Order":
        discounts = _discounts(counts)[np.minimum(counts, 3)]
        contexts, firsts = np.unique(ngrams // num_tokens, return_index=True)
        return cls(
            ngrams,
            counts - discounts,
            contexts,
            np.add.reduceat(counts, firsts).astype(np.float64),
            np.add.reduceat(discounts, firsts),
        )

    def interpolate(self, contexts: np.ndarray, tokens: np.ndarray, lower: np.ndarray, num_tokens: int) -> np.ndarray:
        """p(token | context), given the lower order's; that itself where the context was never seen."""
        place = _find(self.contexts, contexts)
        seen = place >= 0
        found = _find(self.ngrams, contexts * num_tokens + tokens)
        own = np.where(found >= 0, self.discounted[found], 0.0)
        return np.where(seen, (own + self.spared[place] * lower) / self.totals[place], lower)


class TrigramModel:
    """Interpolated modified Kneser-Ney of order 3 over a stream of tokens."""

    def __init__(self, train: np.ndarray, num_tokens: int):
        """`train`: the stream, at least three tokens, each below `num_tokens` (at most MAX_VOCABULARY)."""
        assert num_tokens <= MAX_VOCABULARY and len(train) >= 3
        self.num_tokens = num_tokens
        stream = train.astype(np.int64)
        trigrams, counts = np.unique(_pack(stream[:-2], stream[1:-1], stream[2:], num_tokens), return_counts=True)
        # A bigram counts once for every kind of token before it, a token once for every kind of bigram that it ends.
        bigrams, bigram_counts = np.unique(trigrams % num_tokens**2, return_counts=True)
        tokens, token_counts = np.unique(bigrams % num_tokens, return_counts=True)
        self._trigrams = _Order.count(trigrams, counts, num_tokens)
        self._bigrams = _Order.count(bigrams, bigram_counts, num_tokens)
        # The unigram's own lower order is uniform, so that no token has probability 0.
        self._unigrams = _Order.count(tokens, token_counts, num_tokens)

    def logprobs(self, document: np.ndarray) -> np.ndarray:
        """log p of document[1:], each given the one or two tokens before it: float64 [len(document) − 1]."""
        tokens = document.astype(np.int64)
        last, target = tokens[:-1], tokens[1:]
        uniform = np.full(len(target), 1.0 / self.num_tokens)
        p = self._unigrams.interpolate(np.zeros_like(target), target, uniform, self.num_tokens)
        p = self._bigrams.interpolate(last, target, p, self.num_tokens)
        pairs = tokens[:-2] * self.num_tokens + tokens[1:-1]
        p[1:] = self._trigrams.interpolate(pairs, target[1:], p[1:], self.num_tokens)
        return np.log(p)


def _pack(first: np.ndarray, second: np.ndarray, third: np.ndarray, num_tokens: int) -> np.ndarray:
    return (first * num_tokens + second) * num_tokens + third


def _discounts(counts: np.ndarray) -> np.ndarray:
    """By count 0, 1, 2, 3+, from how many n-grams have counts 1 to 4 (Chen and Goodman 1999, equation 26)."""
    kinds = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    if kinds.min() == 0:  # a tiny corpus: one discount for all, which any count can bear
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = kinds[0] / (kinds[0] + 2 * kinds[1])
    found = [k - (k + 1) * y * kinds[k] / kinds[k - 1] for k in (1, 2, 3)]
    return np.array([0.0, *(min(max(discount, 0.0), k) for k, discount in enumerate(found, start=1))])


def _find(sorted_values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Places of `wanted`, −1 where there is none."""
    places = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return np.where(sorted_values[places] == wanted, places, -1)
