from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.repeats import suffix_array, windows
from ray_jobs.repeats.words import Words
from tests.dedup.corpus import debian_texts
from tests.repeats.test_windows import documents, words_in


def by_windows(words: Words, num_words: int) -> npt.NDArray[np.int64]:
    return windows.first_places(words, windows.window_hashes(words, num_words), num_words)


@given(st.lists(st.integers(0, 3), max_size=60))
def test_suffixes_stand_in_the_order_of_sorted_lists(ids: list[int]) -> None:
    array = suffix_array.suffix_array(np.array(ids, dtype=np.int32), 4)
    assert array.tolist() == sorted(range(len(ids)), key=lambda place: ids[place:])


@pytest.mark.parametrize("period", [1, 2, 3, 50, 1000])
def test_suffixes_of_periodic_text_stand_in_order(period: int) -> None:
    ids = np.tile(np.random.default_rng(period).permutation(period), 3000 // period).astype(np.int32)
    wanted = sorted(range(len(ids)), key=lambda place: ids[place:].tolist())
    assert suffix_array.suffix_array(ids, period).tolist() == wanted


@given(documents, st.integers(1, 6))
def test_first_places_are_those_of_windows(texts: list[str], num_words: int) -> None:
    words = words_in(texts)
    assert suffix_array.first_places(words, num_words).tolist() == by_windows(words, num_words).tolist()


def test_words_of_equal_hashes_have_numbers_of_their_own() -> None:
    words = words_in(["a b a c b"])
    words.hashes[:] = 7
    ids, num_ids = suffix_array.word_ids(words)
    assert ids.tolist() == [0, 1, 0, 2, 1]
    assert num_ids == 3


@pytest.mark.parametrize("num_words", [8, 50])
def test_on_a_real_crawl_both_methods_find_the_same_places(data_dir: Path, num_words: int) -> None:
    words = words_in(debian_texts(data_dir, 600))
    first = suffix_array.first_places(words, num_words)
    assert np.array_equal(first, by_windows(words, num_words))
    assert np.count_nonzero((first >= 0) & (first != np.arange(len(words)))) > 10_000
