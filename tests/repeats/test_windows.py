from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.files.columns import text_buffers
from ray_jobs.repeats import windows
from ray_jobs.repeats.words import Words, split, split_one
from tests.repeats.reference import cut_by_windows, words_of

documents = st.lists(
    st.text(alphabet="ab ", max_size=40).map(lambda text: " ".join(text.replace(" ", ""))), min_size=1, max_size=5
)


def words_in(texts: Sequence[str]) -> Words:
    return split(*text_buffers(pa.array(texts, pa.large_string())))


def cut_within(words: Words, num_words: int) -> list[list[bool]]:
    """The rule applied to one file."""
    first = windows.first_places(words, windows.window_hashes(words, num_words), num_words)
    places = np.arange(len(words))
    other = words.document_of(np.maximum(first, 0)) != words.document_of(places)
    repeats = (first >= 0) & (first != places) & (other | (places - first >= num_words))
    removed = windows.covered(repeats, num_words).tolist()
    return [removed[a:b] for a, b in zip(words.offsets[:-1], words.offsets[1:], strict=True)]


@given(documents, st.integers(2, 6))
def test_windows_and_brute_force_cut_the_same_words(texts: list[str], num_words: int) -> None:
    assert cut_within(words_in(texts), num_words) == cut_by_windows([words_of(text) for text in texts], num_words)


def test_text_of_a_short_period_keeps_its_beginning() -> None:
    assert cut_within(words_in(["a b c " * 5]), 5) == [[False] * 6 + [True] * 9]


@given(documents, st.integers(2, 6))
def test_what_was_cut_stands_in_what_is_kept(texts: list[str], num_words: int) -> None:
    words = words_in(texts)
    first = windows.first_places(words, windows.window_hashes(words, num_words), num_words)
    removed = np.array([flag for document in cut_within(words, num_words) for flag in document], dtype=bool)
    kept = {words.text(i, i + 1) for i in np.flatnonzero(~removed)}
    assert {words.text(i, i + 1) for i in np.flatnonzero(removed)} <= kept
    assert all(place <= i for i, place in enumerate(first))


def test_equal_hashes_of_different_words_are_no_repeat() -> None:
    words = words_in(["a b c d", "a b x d", "a b c d e", "a b x d"])
    forged = windows.window_hashes(words, 3)
    forged[forged != 0] = 7
    first = windows.first_places(words, forged, 3)
    # All windows claim to equal the first. Those that do not stand for themselves; none is cut.
    assert first.tolist() == [0, 1, -1, -1, 4, 5, -1, -1, 0, 9, 10, -1, -1, 13, 14, -1, -1]


def test_window_hashes_of_any_start_equal_those_made_anew() -> None:
    text = " ".join(str(number % 97) for number in range(400))
    hashes = windows.window_hashes(split_one(text.encode()), 50)
    assert np.count_nonzero(hashes) == 351
    for start in (0, 1, 200, 350):
        window = split_one(" ".join(text.split(" ")[start : start + 50]).encode())
        assert windows.window_hashes(window, 50)[0] == hashes[start]
    assert hashes[0] == hashes[97] != hashes[1]


@pytest.mark.parametrize(("other", "equal"), [("b c", 2), ("b x", 1), ("x", 0), ("b c d e", 3)])
def test_agreement_counts_equal_words_from_a_start(other: str, equal: int) -> None:
    assert windows.agreement(split_one(b"a b\nc  d"), 1, split_one(other.encode())) == equal
