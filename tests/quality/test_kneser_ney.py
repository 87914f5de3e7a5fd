"""Probabilities against KenLM's lmplz, and against the axioms."""

import gzip
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.quality.counts import add
from ray_jobs.quality.kneser_ney import FALLBACK
from tests.dedup.corpus import debian_texts
from tests.quality.golden import FOLDER, PRUNINGS, corpus
from tests.quality.texts import arpa_of, logprob, model_of, ngrams_of, normalised, plain_score, read, run_of, scores_of


def assert_equal_models(ours: bytes, theirs: bytes) -> None:
    found, expected = ngrams_of(ours), ngrams_of(theirs)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[n] for n in expected], list(expected.values()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PRUNINGS)
def test_models_are_those_of_lmplz(name: str) -> None:
    ours = gzip.decompress(arpa_of(corpus(), PRUNINGS[name]))
    assert_equal_models(ours, (FOLDER / f"{name}.arpa").read_bytes())


@pytest.mark.clients
@pytest.mark.parametrize("least_counts", [(1, 1, 1), (1, 1, 2), (1, 1, 2, 3, 3)])
def test_models_of_real_text_are_those_of_lmplz(data_dir: Path, tmp_path: Path, least_counts: tuple[int, ...]) -> None:
    lmplz = os.environ.get("HEADRACE_LMPLZ")
    if not lmplz:
        pytest.skip("needs KenLM's lmplz: set HEADRACE_LMPLZ to the program")
    text = normalised(debian_texts(data_dir, 100))[0].tobytes() + b"the last word comes once : qqq\n"
    prune = [str(count - 1) for count in least_counts]
    command = [lmplz, "-o", str(len(least_counts)), "-S", "200M", "-T", str(tmp_path), "--discount_fallback"]
    made = subprocess.run([*command, "--prune", *prune], input=text, capture_output=True, check=True).stdout
    assert_equal_models(gzip.decompress(arpa_of(text.decode().splitlines(), least_counts)), made)


words = st.sampled_from(["a", "b", "c", "d", "ß", "."])
sentences = st.lists(st.lists(words, min_size=1, max_size=6).map(" ".join), min_size=1, max_size=12)


@given(sentences, st.sampled_from([(1, 1), (1, 1, 1), (1, 1, 2), (1, 2, 2), (1, 1, 2, 3)]))
def test_after_every_context_the_probabilities_of_all_words_sum_to_one(
    text: list[str], least_counts: tuple[int, ...]
) -> None:
    ngrams = ngrams_of(gzip.decompress(arpa_of(text, least_counts)))
    vocabulary = [ngram for ngram in ngrams if " " not in ngram and ngram != "<s>"]
    contexts = [ngram.split() for ngram in ngrams if not {"</s>", "<unk>"} & set(ngram.split())]
    for context in [[], ["c", "<unk>"], *contexts]:
        total = sum(10 ** logprob(ngrams, [*context, word], len(least_counts)) for word in vocabulary)
        assert total == pytest.approx(1, abs=1e-5)


@given(sentences, st.integers(2, 5))
def test_a_text_scores_as_its_words_do_one_by_one(text: list[str], order: int) -> None:
    data = gzip.decompress(arpa_of(text, (1,) * order))
    ngrams = ngrams_of(data)
    probe = ["a b c d", "d unheard a", *text[:3]]
    scores = scores_of(read(data), ["\n".join(probe)])
    assert scores.logprob[0] == pytest.approx(sum(plain_score(ngrams, line, order) for line in probe), abs=1e-4)
    assert scores.num_words[0] == sum(len(line.split()) + 1 for line in probe)


@given(st.lists(sentences, min_size=1, max_size=4), st.integers(2, 4))
def test_runs_of_parts_add_up_to_the_run_of_the_whole(parts: list[list[str]], order: int) -> None:
    whole = run_of([sentence for part in parts for sentence in part], order)
    added = add([run_of(part, order) for part in parts], order)
    assert added.words.equals(whole.words)
    assert np.array_equal(added.ngrams, whole.ngrams) and np.array_equal(added.counts, whole.counts)


def test_a_run_counts_every_ngram_that_ends_in_a_word(order: int = 3) -> None:
    text = ["b a b", "a", "b a b"]
    run = run_of(text, order)
    named = ["<unk>", "<s>", "</s>", *(word.decode() for word in run.words.to_pylist())]
    found = {
        tuple(named[n] for n in ngram): count for ngram, count in zip(run.ngrams, run.counts.tolist(), strict=True)
    }
    assert found == counted(text, order)
    assert [ngram[::-1].tolist() for ngram in run.ngrams] == sorted(ngram[::-1].tolist() for ngram in run.ngrams)


def counted(text: Sequence[str], order: int) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    for sentence in text:
        line = ["<s>"] * (order - 1) + [*sentence.split(), "</s>"]
        for end in range(order, len(line) + 1):
            ngram = tuple(line[end - order : end])
            found[ngram] = found.get(ngram, 0) + 1
    return found


def test_long_ngrams_of_many_words_are_told_apart() -> None:
    """Six numbers of 12 bits take more than 64."""
    text = [" ".join(f"w{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)}" for n in range(3000))] * 2
    run = run_of([*text, "waaa wbaa wcaa wdaa"], 6)
    assert len(run.ngrams) == 3001 + 1  # of the short sentence only its end is new
    assert run.counts.sum() == 2 * 3001 + 5


def test_a_text_too_small_to_tell_discounts_takes_lmplzs() -> None:
    model = model_of(run_of(["a b", "b a"], 2), (1, 1))
    assert all(discounts.is_fallback and discounts.by_count == FALLBACK for discounts in model.discounts)
