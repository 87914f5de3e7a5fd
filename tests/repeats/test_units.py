import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.files.columns import text_buffers
from ray_jobs.repeats.normalise import normalise
from ray_jobs.repeats.units import find_units
from ray_jobs.repeats.words import split
from tests.repeats.reference import normalised, units_of, words_of

pieces = st.sampled_from(
    ["a", "A", "é", "É", "e\u0301", " ", "\t", "\n", "\n\n", "7", "٣", "!", "。", "-", "日", "\x00"]
)
texts = st.lists(pieces, max_size=24).map("".join)


@given(st.lists(texts, max_size=5), st.sampled_from(["lines", "paragraphs"]), st.integers(1, 4))
def test_units_are_those_of_the_plain_rule(documents: list[str], kind: str, min_characters: int) -> None:
    column = pa.array(documents, pa.large_string())
    units = find_units(column, [kind], min_characters)[kind]
    words = split(*text_buffers(column))
    found = []
    for start, end, document in zip(units.starts, units.ends, units.documents, strict=True):
        inside = [i for i in range(len(words)) if start <= words.starts[i] < end]
        found.append((document, inside[0] - words.offsets[document], inside[-1] + 1 - words.offsets[document]))
    wanted = [
        (number, first, end, key)
        for number, text in enumerate(documents)
        for key, first, end in units_of(text, kind, min_characters)
    ]
    assert found == [row[:3] for row in wanted]
    names = dict(zip(units.hashes.tolist(), [row[3] for row in wanted], strict=True))
    assert [names[value] for value in units.hashes.tolist()] == [row[3] for row in wanted]
    assert len(names) == len({row[3] for row in wanted})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Page 12 of 90", "page 34 of 56"),
        ("Privacy Policy | Terms", "  privacy  policy |\tterms\r"),
        ("L'été, déjà!", "lete deja"),
        ("«Привет», мир…", "привет мир"),
        ("Год 2024", "год 1999"),
    ],
)
def test_lines_that_differ_in_case_digits_accents_or_punctuation_are_one(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    units = find_units(pa.array([one, other], pa.large_string()), ["lines"], 1)["lines"]
    assert units.hashes[0] == units.hashes[1]


def test_every_character_becomes_what_unicode_says() -> None:
    characters = [chr(point) for point in range(0x20000) if not 0xD800 <= point < 0xE000]
    data = np.frombuffer("".join(characters).encode(), dtype=np.uint8)
    ends = np.cumsum([0, *(len(character.encode()) for character in characters)])
    out, offsets = normalise(data, ends)
    text = out.tobytes()
    wrong = [
        character
        for character, start, end in zip(characters, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        if text[start:end].decode() != plain_character(character)
    ]
    assert wrong == []


def plain_character(character: str) -> str:
    is_kept_whole = character in "\t\n\v\f\r" or "가" <= character <= "힣"
    return character if is_kept_whole else normalised(f"a{character}a")[1:-1]


def test_a_line_and_a_paragraph_of_the_same_words_are_two_units() -> None:
    found = find_units(pa.array(["one line"], pa.large_string()), ["lines", "paragraphs"], 1)
    assert found["lines"].hashes[0] != found["paragraphs"].hashes[0]


def test_bytes_that_are_no_utf_8_are_judged_like_the_rest() -> None:
    column = pa.array([b"caf\xe9 is open\nplain", b"caf\xe9 is open", b"\xff\xfe"], pa.large_binary()).view(
        pa.large_string()
    )
    units = find_units(column, ["lines"], 5)["lines"]
    assert units.documents.tolist() == [0, 0, 1]
    assert units.hashes[0] == units.hashes[2] != units.hashes[1]
    assert (units.starts.tolist(), units.ends.tolist()) == ([0, 13, 18], [12, 18, 30])
    assert words_of("caf\ufffd is open") == ["caf\ufffd", "is", "open"]
