"""The table of scripts without spaces against Unicode's own properties, and all rooms' words against the table."""

import unicodedata
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.crawl.statistics import measure_texts
from ray_jobs.dedup import minhash
from ray_jobs.files import scripts
from ray_jobs.quality import sentences
from ray_jobs.quality import words as terms
from ray_jobs.repeats.words import split_one
from ray_jobs.scrub import words as scrubbed

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


def is_known(character: str) -> bool:
    """To this Python, whose Unicode may be older or newer than the table's."""
    return unicodedata.category(character) != "Cn"


def test_the_ranges_are_those_of_the_scripts() -> None:
    regex = pytest.importorskip("regex")
    pattern = regex.compile("[" + "".join(rf"\p{{Script={name}}}" for name in scripts.SCRIPTS) + "]")
    for character in CHARACTERS:
        code = ord(character)
        if code >= scripts.HAN_PLANES[0] or code in (0x2EA, 0x2EB):
            continue
        ours = scripts.UNSPACED.match(character) and not any(a <= code <= b for a, b in scripts.SHARED_LETTERS)
        theirs = pattern.match(character)
        # A later Unicode than the table's may have more.
        assert bool(ours) == bool(theirs) or (theirs and not is_known(character)), hex(code)


def test_shared_letters_are_the_letters_and_marks_that_these_scripts_alone_share() -> None:
    regex = pytest.importorskip("regex")
    scripts_of = {name: regex.compile(rf"\p{{Script_Extensions={name}}}") for name in scripts.SCRIPTS}
    common = regex.compile(r"[\p{Script=Common}\p{Script=Inherited}&&[\p{L}\p{M}]]", regex.VERSION1)
    # No regular expression asks for all scripts of a character: those that are neither ours nor these share none.
    other = regex.compile(r"[\p{Script_Extensions=Hangul}\p{Script_Extensions=Mongolian}\p{Script_Extensions=Latin}]")
    found = [
        ord(one)
        for one in filter(common.match, CHARACTERS)
        if any(pattern.match(one) for pattern in scripts_of.values()) and not other.match(one)
    ]
    assert found == [code for first, last in scripts.SHARED_LETTERS for code in range(first, last + 1)]


def test_the_ranges_ascend_and_each_character_takes_three_bytes_or_four() -> None:
    assert all(one[1] < other[0] for one, other in pairwise(scripts.RANGES))
    assert all(0x800 <= first <= last < scripts.TABLE_END for first, last in scripts.RANGES)


def test_kernels_know_the_same_characters() -> None:
    bits = scripts.unspaced_bits()
    for character in CHARACTERS:
        data = np.frombuffer(character.encode(), np.uint8)
        wanted = len(data) if scripts.UNSPACED.match(character) else 0
        assert scripts.unspaced_length(data, 0, len(data), bits) == wanted, hex(ord(character))
        assert scripts.is_unspaced(ord(character), bits) == bool(wanted)


@given(
    st.binary(min_size=1, max_size=5), st.sampled_from([b"", b"\xe6", b"\xe6\x97", b"\xf0\xa0\x80", b"\xf0\x83\xb0"])
)
def test_bytes_that_are_no_utf_8_begin_none(data: bytes, before: bytes) -> None:
    data = before + data
    length = scripts.unspaced_length(np.frombuffer(data, np.uint8), 0, len(data), scripts.unspaced_bits())
    first = data.decode(errors="surrogateescape")[0]
    assert length == (len(first.encode(errors="surrogateescape")) if scripts.UNSPACED.match(first) else 0)


# Han of two planes, both kana with what they share, half-width, Yi; Thai, Lao, Khmer, Burmese, Tai Le, Tibetan.
SAMPLES = ["日本", "𠀀𪛖", "カー", "ｶﾞ", "ひゝ", "ꀀꒌ", "กข", "ກຂ", "កខ", "ကꩠ", "ᥐᥑ", "ཀཁ", "ㄅㄆ", "々〆"]


@pytest.mark.parametrize("text", SAMPLES)
def test_every_room_takes_each_character_for_a_word(text: str) -> None:
    assert measure_texts([text])[0].num_words == 2
    data = text.encode()
    assert len(split_one(data)) == 2
    sets, _ = minhash.shingle_sets(*minhash.normalise(np.frombuffer(data, np.uint8), np.array([0, len(data)])), 1)
    assert len(sets) == 2
    num_bytes, num_words = scrubbed.room_for(len(data))
    out, hashes, places = np.empty(num_bytes, np.uint8), np.empty(num_words, np.uint64), np.empty((num_words, 2), int)
    as_bytes = np.frombuffer(data, np.uint8)
    assert scrubbed.split(as_bytes, 0, len(data), *scrubbed.character_tables(), out, hashes, places) == 2
    # A mark is no word of a language model, whose accents go.
    num_letters = sum(unicodedata.category(one) != "Mn" for one in text)
    assert [len(line) for line in sentences.words_of(text)] == [num_letters]
    assert {int(terms.classes()[ord(one)]) for one in text} == {terms.UNSPACED}


@pytest.mark.parametrize("text", ["한국", "ab", "яб", "हि", "፩፪", "。。", "აბ"])
def test_other_scripts_are_written_with_spaces(text: str) -> None:
    assert measure_texts([text])[0].num_words == 1
    assert len(split_one(text.encode())) == 1
