"""The array model against the definition, written out in dictionaries."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from ray_jobs.evaluate.ngram import TrigramModel, unigram_logprobs

NUM_TOKENS = 30


def stream(length: int, seed: int = 0) -> np.ndarray:
    """Tokens of a random walk, so that bigrams and trigrams repeat; the last three tokens never occur."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return (np.cumsum(generator.integers(1, 5, length)) % (NUM_TOKENS - 3)).astype(np.uint16)


def kneser_ney(train: list[int]) -> dict[int, dict[tuple[int, ...], Counter[int]]]:
    """Counts by order, context and token: of trigrams, and of the different continuations below."""
    by_order: dict[int, dict[tuple[int, ...], Counter[int]]] = {n: defaultdict(Counter) for n in (1, 2, 3)}
    trigrams = Counter(zip(train, train[1:], train[2:], strict=False))
    for (a, b, c), count in trigrams.items():
        by_order[3][a, b][c] = count
    for b, c in {(b, c) for _, b, c in trigrams}:
        by_order[2][b,][c] = len({a for a, *rest in trigrams if rest == [b, c]})
    for c in {c for _, _, c in trigrams}:
        by_order[1][()][c] = len({b for _, b, last in trigrams if last == c})
    return by_order


def probability(
    by_order: dict[int, dict[tuple[int, ...], Counter[int]]], context: tuple[int, ...], token: int
) -> float:
    """Chen and Goodman 1999, section 3.4, by recursion."""
    n = len(context) + 1
    lower = 1 / NUM_TOKENS if n == 1 else probability(by_order, context[1:], token)
    counts = by_order[n].get(context)
    if counts is None:
        return lower
    kinds = Counter(count for each in by_order[n].values() for count in each.values())
    discount = {1: 0.5, 2: 0.5, 3: 0.5}
    if all(kinds[k] for k in (1, 2, 3, 4)):
        y = kinds[1] / (kinds[1] + 2 * kinds[2])
        discount = {k: k - (k + 1) * y * kinds[k + 1] / kinds[k] for k in (1, 2, 3)}
    discount = {k: min(max(value, 0.0), k) for k, value in discount.items()} | {0: 0.0}
    taken = sum(discount[min(count, 3)] for count in counts.values())
    own = counts[token] - discount[min(counts[token], 3)]
    return (own + taken * lower) / counts.total()


@pytest.mark.parametrize("length", [5, 60, 3000])
def test_it_is_interpolated_modified_kneser_ney(length: int) -> None:
    train = stream(length)
    model, reference = TrigramModel(train, NUM_TOKENS), kneser_ney(train.tolist())
    document = stream(200, seed=1)
    document[50] = NUM_TOKENS - 1  # never seen
    tokens = document.tolist()
    expected = [math.log(probability(reference, (tokens[0],), tokens[1]))]
    expected += [
        math.log(probability(reference, (a, b), c)) for a, b, c in zip(tokens, tokens[1:], tokens[2:], strict=False)
    ]
    np.testing.assert_allclose(model.logprobs(document), expected, rtol=1e-10)


@pytest.mark.parametrize("context", [(3, 7), (7, 10), (NUM_TOKENS - 1, 4), (NUM_TOKENS - 1, NUM_TOKENS - 2)])
def test_probabilities_of_all_tokens_sum_to_one_whatever_the_context(context: tuple[int, int]) -> None:
    model = TrigramModel(stream(3000), NUM_TOKENS)
    p = [math.exp(model.logprobs(np.array([*context, token]))[1]) for token in range(NUM_TOKENS)]
    assert sum(p) == pytest.approx(1, rel=1e-10)
    assert min(p) > 0


def test_unigram_is_the_count_plus_one() -> None:
    p = np.exp(unigram_logprobs(np.array([0, 0, 2], dtype=np.uint16), 4))
    np.testing.assert_allclose(p, [3 / 7, 1 / 7, 2 / 7, 1 / 7])
