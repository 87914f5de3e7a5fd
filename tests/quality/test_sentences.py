from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.quality import Tokens
from ray_jobs.files.columns import text_buffers
from ray_jobs.quality.sentences import normalise, words_of
from tests.dedup.corpus import debian_texts
from tests.quality.reference_sentences import sentences
from tests.quality.texts import normalised


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't STOP", "don ' t stop"),
        ("at 3.14 of ٣ and Ⅷ", "at 0 . 00 of 0 and ⅷ"),
        ("Éclairs İstanbul naïve Ⱥ ß ﬁ", "eclairs istanbul naive ⱥ ß ﬁ"),
        ("“so” — well… «no»！", '" so " - well . . . " no " !'),
        ("日本語です。", "日 本 語 て す ."),
        ("한국어 हिन्दी", "한국어 हिनदी"),
        ("zero\u200bwidth \ufeff nul\x00 tab\tno\u00a0break", "zerowidth nul tab no break"),
        ("<s> </s> <unk>", "< s > < / s > < unk >"),
        ("two\n\n \n lines \r\n", "two\nlines"),
        ("\U00020000𝒜😀", "\U00020000 𝒜 😀"),
        (" \n\t\n", ""),
    ],
)
def test_a_line_becomes_words(text: str, expected: str) -> None:
    assert words_of(text) == [line.split(" ") for line in expected.split("\n") if line]


def test_punctuation_is_white_space_where_words_alone_are_asked_for() -> None:
    assert words_of("“Don't” — stop… 1+1", "ccnet-words") == [["don", "t", "stop", "0", "0"]]


def test_what_is_no_utf8_separates_words() -> None:
    data, _ = normalised([b"a\xffb \xc3\xa9\xc3 \xed\xa0\x80c\xe2\x82", b"\xf0\x9f\x98", b"\xc0\xaf x"])
    assert data.tobytes() == b"a b e c\nx\n"


pieces = st.one_of(
    st.text(max_size=8).map(str.encode),
    st.binary(max_size=6),
    st.sampled_from([b"\n", b" ", b"...", "…".encode(), "Ⱥ".encode(), b"It's", "日本".encode(), b"\xed\xa0\x80"]),
)
documents = st.lists(pieces, max_size=8).map(b"".join)


@given(st.lists(documents, max_size=4), st.sampled_from(["ccnet", "ccnet-words"]), st.integers(0, 2))
def test_documents_are_normalised_as_the_plain_reference_says(texts: list[bytes], tokens: Tokens, skipped: int) -> None:
    column = pa.array(texts, pa.large_binary())[skipped:]  # a slice does not begin at its buffer's start
    data, offsets = normalise(*text_buffers(column), tokens)
    for document, text in enumerate(texts[skipped:]):
        lines = data[offsets[document] : offsets[document + 1]].tobytes().decode().split("\n")
        assert lines.pop() == ""
        assert [line.split(" ") for line in lines] == sentences(text, tokens)


def test_every_character_is_normalised_as_the_plain_reference_says() -> None:
    characters = [chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000]
    text = "".join(f"x{character}y\n" for character in characters).encode()
    data, _ = normalised([text])
    assert [line.split(" ") for line in data.tobytes().decode().split("\n")[:-1]] == sentences(text, "ccnet")


def test_real_pages_are_normalised_as_the_plain_reference_says(data_dir: Path) -> None:
    for text in debian_texts(data_dir, 200):
        assert words_of(text) == sentences(text.encode(), "ccnet")


def test_a_column_in_chunks_is_that_of_its_documents() -> None:
    whole = pa.chunked_array([["one a"], ["two\nb", ""]], pa.large_string())
    data, offsets = normalise(*text_buffers(whole), "ccnet")
    assert data.tobytes() == b"one a\ntwo\nb\n"
    assert np.array_equal(offsets, [0, 6, 12, 12])
