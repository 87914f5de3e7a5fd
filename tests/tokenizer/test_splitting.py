"""Words are those of the regular expressions, as Hugging Face's engine reads them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from ray_jobs.tokenizer import bpe
from ray_jobs.tokenizer.characters import classes
from ray_jobs.tokenizer.merges import byte_alphabet
from ray_jobs.tokenizer.splitting import Pattern, split
from tests.tokenizer.vocabularies import PARTS, random_text

# GPT-2's encoder.py (OpenAI, 2019).
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PATTERNS = {Pattern.GPT2: GPT2, Pattern.LLAMA3: bpe._LLAMA3}
ORACLES = {pattern: pre_tokenizers.Split(Regex(written), behavior="isolated") for pattern, written in PATTERNS.items()}
BOTH = pytest.mark.parametrize("pattern", list(Pattern))


def words(text: str, pattern: Pattern) -> list[str]:
    return [word.decode() for word in split(text.encode(), classes(), pattern)]


def wanted(text: str, pattern: Pattern) -> list[str]:
    return [word for word, _ in ORACLES[pattern].pre_tokenize_str(text)]


def test_words_of_a_known_text() -> None:
    text = "It's 12345  apples,\r\n\n  we'LL_eat!\n"
    assert words(text, Pattern.GPT2) == [
        *["It", "'s", " 12345", " ", " apples", ",", "\r\n\n ", " we", "'", "LL", "_", "eat", "!", "\n"]
    ]
    assert words(text, Pattern.LLAMA3) == [
        *["It", "'s", " ", "123", "45", " ", " apples", ",\r\n\n", " ", " we", "'LL", "_eat", "!\n"]
    ]
    assert words("", Pattern.GPT2) == words("", Pattern.LLAMA3) == []


@BOTH
def test_words_are_the_library_s_in_random_texts(pattern: Pattern) -> None:
    chance = random.Random(int(pattern))
    for _ in range(10_000):
        text = random_text(chance, chance.randrange(40))
        assert words(text, pattern) == wanted(text, pattern), text


@BOTH
@given(text=st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PARTS), max_size=30).map("".join)))
def test_words_are_the_library_s_in_any_text(pattern: Pattern, text: str) -> None:
    assert words(text, pattern) == wanted(text, pattern)


@BOTH
def test_every_code_point_is_cut_as_the_library_cuts_it_among_all_kinds_of_neighbours(pattern: Pattern) -> None:
    """Code points of a class are cut alike: which is which, test_characters has of all of them."""
    chance = random.Random(7)
    for start in range(0, 0x110000, 0x1000):
        points = [point for point in range(start, start + 0x1000) if not 0xD800 <= point < 0xE000]
        if start >= 0x20000:
            points = points[::101]
        text = "".join(chr(point) + chance.choice(["", "a", " ", "1", "!", "\n", " b"]) for point in points)
        assert words(text, pattern) == wanted(text, pattern), hex(start)


@pytest.mark.parametrize("before", ["'", "'l", "'r", "x'"])
@BOTH
def test_contractions_take_the_letters_of_another_case_that_the_library_takes(pattern: Pattern, before: str) -> None:
    """Of all of Unicode ſ (U+017F) is the one letter besides ASCII's that is another's other case here."""
    points = [point for point in range(0x30000) if not 0xD800 <= point < 0xE000]
    for start in range(0, len(points), 0x1000):
        text = " ".join(before + chr(point) + "e" for point in points[start : start + 0x1000])
        assert words(text, pattern) == wanted(text, pattern), hex(start)
    assert words("i'ſ", Pattern.LLAMA3) == ["i", "'ſ"]


def test_gpt_2_s_pattern_is_the_byte_level_pre_tokenizer_s_own() -> None:
    alphabet, chance = byte_alphabet(), random.Random(3)
    library = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    for _ in range(2_000):
        text = random_text(chance, 30)
        theirs = [bytes(alphabet[character] for character in word) for word, _ in library.pre_tokenize_str(text)]
        assert split(text.encode(), classes(), Pattern.GPT2) == theirs


@BOTH
@pytest.mark.parametrize("length", [*range(30), 1000])
def test_words_end_where_the_text_ends_though_eight_bytes_are_read_at_once(pattern: Pattern, length: int) -> None:
    for text in ("a" * length, " " + "a" * length, "é" * length, "a" * length + "é", "1" * length, " " * length):
        assert words(text, pattern) == wanted(text, pattern)
