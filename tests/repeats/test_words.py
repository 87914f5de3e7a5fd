import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.files.columns import text_buffers
from ray_jobs.repeats.cut import cut
from ray_jobs.repeats.words import split, split_one
from tests.repeats.reference import words_of

pieces = st.sampled_from(["a", "Bc", " ", "\n", "\t", "é", "日", "本", "ไ", "က", "႟", "Ⴀ", "ក", "\u3000", "ꀀ", "丁"])
texts = st.lists(pieces, max_size=20).map("".join)
# Bytes that begin, continue or cut short a character of three bytes.
odd_bytes = st.lists(st.sampled_from([b"a", b" ", b"\xe3", b"\xe0", b"\xe1", b"\xb8", b"\x80", b"\xff"]), max_size=12)


@given(st.lists(texts, max_size=4), st.integers(0, 2))
def test_words_stand_between_white_space_and_unspaced_characters_alone(documents: list[str], skipped: int) -> None:
    column = pa.array(documents, pa.large_string())[skipped:]
    words = split(*text_buffers(column))
    found = [words.text(i, i + 1).decode() for i in range(len(words))]
    assert [found[a:b] for a, b in zip(words.offsets[:-1], words.offsets[1:], strict=True)] == [
        words_of(text) for text in documents[skipped:]
    ]
    assert words.document_of(np.arange(len(words))).tolist() == [
        number for number, text in enumerate(documents[skipped:]) for _ in words_of(text)
    ]
    assert len(set(words.hashes.tolist())) == len(set(found))


@given(odd_bytes.map(b"".join), st.integers(0, 8), st.integers(1, 8))
def test_a_run_of_words_splits_into_the_same_words_again(data: bytes, first: int, length: int) -> None:
    words = split_one(data)
    end = min(len(words), first + length)
    if first >= end:
        return
    again = split_one(words.text(first, end))
    assert [again.text(i, i + 1) for i in range(len(again))] == [words.text(i, i + 1) for i in range(first, end)]


def cut_one(text: str, removed: list[int]) -> str:
    column = pa.array(["before", text, "behind"], pa.large_string())
    data, offsets = text_buffers(column)
    words = split(data, offsets)
    mask = np.zeros(len(words), dtype=bool)
    mask[np.array(removed, dtype=np.int64) + 1] = True
    before, out, behind = cut(words, offsets, mask).to_pylist()
    assert (before, behind) == ("before", "behind")
    return str(out)


def test_a_cut_leaves_one_white_space_that_with_more_newlines() -> None:
    assert cut_one(" a  b ", []) == " a  b "
    assert cut_one("a b c", [1]) == "a c"
    assert cut_one("a\nb c", [1]) == "a\nc"
    assert cut_one("a b\n\nc", [1]) == "a\n\nc"
    assert cut_one("a b c d", [1, 2]) == "a d"
    assert cut_one("a b c d e", [1, 3]) == "a c e"
    assert cut_one("日本 c", [1]) == "日 c"
    assert cut_one("a日c", [1]) == "ac"


def test_a_cut_at_an_end_leaves_no_white_space_there() -> None:
    assert cut_one("\n a b", [0]) == "b"
    assert cut_one("a b \n", [1]) == "a"
    assert cut_one(" a b ", [0, 1]) == ""


@given(texts, st.sets(st.integers(0, 19)))
def test_a_cut_text_has_the_words_that_were_not_cut(text: str, chosen: set[int]) -> None:
    words = words_of(text)
    removed = [i for i in sorted(chosen) if i < len(words)]
    out = cut_one(text, removed)
    # Where no white space stood on either side, neighbours may join.
    assert "".join(words_of(out)) == "".join(word for i, word in enumerate(words) if i not in chosen)
