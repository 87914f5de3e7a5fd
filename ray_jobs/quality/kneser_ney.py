"""Interpolated modified Kneser-Ney smoothing: from counts of n-grams to probabilities and back-off weights.

Chen and Goodman, "An empirical study of smoothing techniques for language modeling" (1998, TR-10-98), section 3; the
form that it takes with sentences and with pruning is that of Heafield et al., "Scalable modified Kneser-Ney language
model estimation" (2013), and so are the results, to rounding.

    a(w1..wk)      adjusted count: at the highest order, and where w1 is <s>, how often the n-gram comes; else how many
                   different words come before it
    D(a)           discount, for a = 1, 2, 3 and more, from how many n-grams of the order have a = 1 to 4
    u(wk|w1..)     (a(w1..wk) - D) / sum over x of a(w1..x)
    b(w1..)        back-off weight: what the discounts and the pruned n-grams leave over, by the same sum
    p(wk|w1..)     u(wk|w1..) + b(w1..) · p(wk|w2..), and uniform over all words below the first order

N-grams of each order are numbered in the order of their last word, then of the one before. An n-gram is known by
the number of itself without its first word (its *suffix*), and that first word: adjusted counts and suffixes'
probabilities are then found by number, with no search.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ray_jobs.quality.counts import BEGIN, Run

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

FALLBACK = (0.5, 1.0, 1.5)
"""Discounts of an order that has too few n-grams to tell: lmplz's, under --discount_fallback."""
LEAST = 1e-99
"""Stands for 0 in the format of ARPA, which is logarithmic."""
_SUFFIX = np.uint64(32)
"""Bits above the first word."""


@dataclass(frozen=True)
class Discounts:
    by_count: tuple[float, float, float]
    """D1, D2, D3+."""
    is_fallback: bool

    def of(self, adjusted: Integers) -> Floats:
        return np.array([0.0, *self.by_count])[np.minimum(adjusted, 3)]


@dataclass(frozen=True)
class Order:
    """The n-grams of one order that the model keeps. n of them; a suffix is a number in the order below."""

    suffix: Integers
    first_word: npt.NDArray[np.uint32]
    logprob: Floats
    """log10 p of the last word after the others."""
    backoff: Floats
    """log10 b of the n-gram as a context; 0 where nothing is known to come after it, and at the highest order."""


@dataclass(frozen=True)
class Model:
    orders: list[Order]
    """Of single words, in the order of their numbers, of pairs, and so on."""
    discounts: list[Discounts]
    num_counted: list[int]
    """Distinct n-grams of each order before pruning."""


@dataclass(frozen=True)
class _Level:
    """All n-grams of one order."""

    keys: npt.NDArray[np.uint64]
    """suffix << 32 | first word; ascending."""
    counts: Integers

    @property
    def suffix(self) -> Integers:
        return (self.keys >> _SUFFIX).astype(np.int64)

    @property
    def first_word(self) -> Integers:
        return (self.keys & np.uint64(0xFFFFFFFF)).astype(np.int64)


def estimate(run: Run, num_words: int, least_counts: tuple[int, ...]) -> Model:
    """The model of a run's n-grams.

    Args:
        run: of one text or many.
        num_words: numbers of words in use, those of <unk>, <s> and </s> among them.
        least_counts: of each order: n-grams that come less often are not kept. The first is 1, and none is less than
            the one before, so that with an n-gram its suffix and its context are kept, too.
    """
    levels = _levels(run, num_words)
    order = len(levels)
    assert len(least_counts) == order and least_counts[0] == 1 and list(least_counts) == sorted(least_counts)
    discounts: list[Discounts] = []
    probabilities: list[Floats] = []
    backoffs: list[Floats] = []
    kept: list[npt.NDArray[np.bool_]] = []
    contexts = np.zeros(num_words, dtype=np.int64)
    for k, level in enumerate(levels, start=1):
        adjusted = _adjusted(level, levels[k] if k < order else None)
        discounts.append(_discounts(adjusted))
        spared = discounts[-1].of(adjusted)
        keep = level.counts >= least_counts[k - 1]
        if k == 1:
            # All words but <s>, which nothing predicts, share what is spared.
            total = adjusted.sum()
            own, backoff = (adjusted - spared) / total, np.array([spared.sum() / total])
            lower = np.full(num_words, 1.0 / (num_words - 1))
            keep = np.ones(num_words, dtype=bool)
        else:
            contexts = _contexts(level, levels[k - 2], contexts) if k > 2 else level.first_word
            size = len(levels[k - 2].keys)
            totals = np.bincount(contexts, adjusted, size)
            left_over = np.bincount(contexts, np.where(keep, spared, adjusted), size)
            backoff = np.divide(left_over, totals, out=np.ones(size), where=totals > 0)
            own, lower = (adjusted - spared) / totals[contexts], probabilities[-1][level.suffix]
            backoffs.append(backoff)
        probability = own + backoff[contexts] * lower
        if k == 1:
            probability[BEGIN] = 1.0  # as lmplz writes it; no text asks for it
        probabilities.append(probability)
        kept.append(keep)
    backoffs.append(np.ones(len(levels[-1].keys)))
    return Model(_kept(levels, probabilities, backoffs, kept), discounts, [len(level.keys) for level in levels])


def _levels(run: Run, num_words: int) -> list[_Level]:
    order = run.ngrams.shape[1]
    last = run.ngrams[:, -1].astype(np.int64)
    counts = np.bincount(last, run.counts, num_words).astype(np.int64)
    levels = [_Level(np.arange(num_words, dtype=np.uint64), counts)]
    rows, number = np.arange(len(last)), last
    for back in range(2, order + 1):
        # What begins with <s> has nothing before it.
        inside = run.ngrams[rows, order + 1 - back] != BEGIN
        rows, number = rows[inside], number[inside]
        keys = number.astype(np.uint64) << _SUFFIX | run.ngrams[rows, order - back]
        # Rows are sorted: equal keys stand together.
        is_first = np.concatenate([np.ones(min(len(keys), 1), bool), keys[1:] != keys[:-1]])
        number = np.cumsum(is_first) - 1
        counts = np.bincount(number, run.counts[rows], int(is_first.sum())).astype(np.int64)
        levels.append(_Level(keys[is_first], counts))
    return levels


def _adjusted(level: _Level, longer: _Level | None) -> Integers:
    if longer is None:
        return level.counts
    num_before = np.bincount(longer.suffix, minlength=len(level.keys)).astype(np.int64)
    return np.where(level.first_word == BEGIN, level.counts, num_before)


def _contexts(level: _Level, shorter: _Level, of_suffix: Integers) -> Integers:
    """The number, in the order below, of each n-gram without its last word: that is its suffix's context (the middle)
    with the same first word."""
    wanted = of_suffix[level.suffix].astype(np.uint64) << _SUFFIX | level.first_word.astype(np.uint64)
    found = np.searchsorted(shorter.keys, wanted)
    assert np.array_equal(shorter.keys[found], wanted), "every context is an n-gram itself"
    return found


def _discounts(adjusted: Integers) -> Discounts:
    """Chen and Goodman 1998, equation 26 (section 3, modified Kneser-Ney)."""
    n = np.bincount(np.minimum(adjusted, 5), minlength=6).astype(np.float64)
    if n[1] and n[2] and n[3]:
        y = n[1] / (n[1] + 2 * n[2])
        found = [k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3)]
        if all(0 <= discount <= k for k, discount in enumerate(found, start=1)):
            return Discounts((float(found[0]), float(found[1]), float(found[2])), False)
    return Discounts(FALLBACK, True)


def _kept(
    levels: list[_Level], probabilities: list[Floats], backoffs: list[Floats], kept: list[npt.NDArray[np.bool_]]
) -> list[Order]:
    orders = []
    number = np.zeros(0, dtype=np.int64)
    for level, probability, backoff, keep in zip(levels, probabilities, backoffs, kept, strict=True):
        suffix = level.suffix[keep]
        orders.append(
            Order(
                number[suffix] if len(number) else suffix,
                level.first_word[keep].astype(np.uint32),
                np.minimum(np.log10(probability[keep]), 0.0),
                np.log10(np.maximum(backoff[keep], LEAST)),
            )
        )
        number = np.cumsum(keep) - 1
    return orders
