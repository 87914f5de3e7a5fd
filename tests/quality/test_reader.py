"""Scores against KenLM: as recorded in tests/quality/lmplz, and beside it where it is installed."""

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

from ray_jobs.quality import kenlm_scorer, reader
from ray_jobs.quality.reader import BLOCK_WORDS, read_arpa
from tests.dedup.corpus import debian_texts
from tests.quality.golden import FOLDER, PRUNINGS, WORDS, corpus, probes
from tests.quality.texts import arpa_of, ngrams_of, normalised, plain_score, read, scores_of


@pytest.mark.parametrize("name", PRUNINGS)
def test_scores_are_those_of_kenlm(name: str) -> None:
    model = read((FOLDER / f"{name}.arpa").read_bytes())
    expected = json.loads((FOLDER / "scores.json").read_text())[name]
    assert scores_of(model, probes()).logprob == pytest.approx(np.array(expected), abs=1e-4)


@pytest.mark.clients
def test_scores_are_those_of_kenlm_beside_it(data_dir: Path) -> None:
    pytest.importorskip("kenlm", reason="needs KenLM: pip install 'headrace[kenlm]'")
    texts = debian_texts(data_dir, 150)
    lines = normalised(texts)[0].tobytes().decode().splitlines()
    for least_counts in [(1, 1, 2), (1, 1, 2, 2, 2)]:
        model = arpa_of(lines[: len(lines) // 2], least_counts)
        ours, theirs = read_arpa(model), kenlm_scorer.read_arpa(model)
        data, offsets = normalised(lines)
        found, expected = reader.score(ours, data, offsets), kenlm_scorer.score(theirs, data, offsets)
        assert found.logprob == pytest.approx(expected.logprob, abs=1e-4, rel=1e-6)
        assert np.array_equal(found.num_words, expected.num_words)
        assert np.array_equal(found.num_unknown, expected.num_unknown)
        assert np.allclose(found.perplexity, expected.perplexity, rtol=1e-3, equal_nan=True)


def test_perplexity_is_a_words_and_a_text_without_words_has_none() -> None:
    model = read_arpa(arpa_of(corpus(), (1, 1, 1)))
    scores = scores_of(model, ["the mill turns\nthe river", "", "\n \n", "the mill turns\n\n\nthe river\n"])
    assert scores.num_words.tolist() == [3 + 1 + 2 + 1, 0, 0, 7]
    assert scores.perplexity[0] == np.float32(10 ** (-scores.logprob[0] / 7)) == scores.perplexity[3]
    assert np.isnan(scores.perplexity[1:3]).all()


def test_unknown_words_are_counted_and_raise_perplexity() -> None:
    scores = scores_of(read_arpa(arpa_of(corpus(), (1, 1, 1))), ["the mill turns", "the zzz turns", "zzz zzz zzz"])
    assert scores.num_unknown.tolist() == [0, 1, 3]
    assert scores.perplexity[0] < scores.perplexity[1] < scores.perplexity[2]


def test_real_pages_read_better_than_their_own_words_shuffled(data_dir: Path) -> None:
    texts = [text for text in debian_texts(data_dir, 300) if " the " in text and len(text) > 1000]
    half = len(texts) // 2
    model = read_arpa(arpa_of(normalised(texts[:half])[0].tobytes().decode().splitlines(), (1, 1, 2)))
    draw = random.Random(1)
    shuffled = [" ".join(draw.sample(words := text.split(), len(words))) for text in texts[half:]]
    whole = [" ".join(text.split()) for text in texts[half:]]
    worse = scores_of(model, shuffled).perplexity > scores_of(model, whole).perplexity
    assert len(worse) > 50
    assert worse.mean() > 0.98


@pytest.mark.parametrize("name", PRUNINGS)
def test_a_long_document_is_scored_as_its_words_one_by_one(name: str) -> None:
    """However it falls into blocks: as one sentence, as short ones, and as one that ends where a block does."""
    data = (FOLDER / f"{name}.arpa").read_bytes()
    ngrams, order, model = ngrams_of(data), len(PRUNINGS[name]), read(data)
    draw = random.Random(9)
    words = draw.choices([*WORDS, "unheard"], k=2 * BLOCK_WORDS + 77)
    lines = [" ".join(words[first : first + 5]) for first in range(0, len(words), 5)]
    texts = [" ".join(words), "\n".join(lines), *(" ".join(words[: BLOCK_WORDS - less]) for less in range(6))]
    scores = scores_of(model, texts)
    expected = [sum(plain_score(ngrams, line, order) for line in text.split("\n")) for text in texts]
    assert scores.logprob == pytest.approx(np.array(expected), abs=1e-2, rel=1e-6)
    assert scores.num_words.tolist() == [len(text.split()) + len(text.split("\n")) for text in texts]


def test_documents_are_scored_alone() -> None:
    model = read_arpa(arpa_of(corpus(), (1, 1, 1)))
    together = scores_of(model, probes())
    assert together.logprob.tolist() == [scores_of(model, [text]).logprob[0] for text in probes()]


ARPA = b"""\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.5\t<unk>\t0
0\t<s>\t-3e-1
-1.25E0\t</s>
-0.5\ta\t-0.25

\\2-grams:
-0.125\t<s> a
-.75\ta </s>

\\end\\
"""


def test_arpa_of_other_programs_is_read() -> None:
    scores = scores_of(read(ARPA), ["a", "b", "a a"])
    assert scores.logprob.tolist() == [-0.125 - 0.75, pytest.approx(-0.3 - 1.5 - 1.25), -0.125 - 0.25 - 0.5 - 0.75]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"\\data\\\n", b"", "no ARPA file"),
        (b"ngram 2=2", b"ngram 2=3", r"2-gram 3 of 3 cannot be read, or has no suffix: ''"),
        (b"-0.125\t<s> a", b"-0.125\t<s>", r"2-gram 1 of 2 cannot be read, or has no suffix: '-0.125\\t<s>'"),
        (b"-0.125\t<s> a", b"-0.125\t<s> a a", "2-gram 1 of 2 cannot be read"),
        (b"-0.125\t<s> a", b"-0.125\t<s> b", r"2-gram 1 of 2 cannot be read, or has no suffix"),
        (b"-0.125\t<s> a", b"x\t<s> a", "2-gram 1 of 2 cannot be read"),
        (b"\ta\t-0.25", b"\ta\tx", "1-gram 4 of 4 cannot be read"),
        (b"<unk>", b"unk", "has no <unk>"),
        (b"\\2-grams:", b"\\3-grams:", "has no section of 2-grams"),
        (ARPA[28:], b"", "has no section of"),
    ],
)
def test_a_damaged_model_is_refused_with_the_line(old: bytes, new: bytes, message: str) -> None:
    assert old in ARPA
    with pytest.raises(ValueError, match=message):
        read(ARPA.replace(old, new))


def test_kenlm_that_is_asked_for_and_missing_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "kenlm", None)
    with pytest.raises(ValueError, match=r"pip install 'headrace\[kenlm\]'"):
        kenlm_scorer.read_arpa(gzip.compress(ARPA))
