"""Classes of characters are those of the library that the tokens are compared with."""

import functools

import pytest

from ray_jobs.tokenizer import characters
from ray_jobs.tokenizer.characters import LETTER, NEWLINE, NUMBER, OTHER, SPACE, asked, classes, stored

POINTS = [point for point in range(0x110000) if point not in range(0xD800, 0xE000)]


def test_every_code_point_has_the_class_that_the_installed_library_gives_it() -> None:
    """Where this fails, `classes` asks the library in every process, which takes 2 s: take the tables anew."""
    table = stored()
    assert len(POINTS) == 1_112_064
    assert asked(POINTS) == table[POINTS].tolist()
    assert not table[0xD800:0xE000].any()


def test_classes_of_well_known_characters() -> None:
    wanted = {"a": LETTER, "é": LETTER, "日": LETTER, "ſ": LETTER, "ª": LETTER, "1": NUMBER, "½": NUMBER, "Ⅷ": NUMBER}
    wanted |= {" ": SPACE, "\x85": SPACE, "\u2028": SPACE, "\u3000": SPACE, "\x0b": SPACE, "\n": NEWLINE, "\r": NEWLINE}
    wanted |= {"\x1c": OTHER, "\u200b": OTHER, "\u0301": OTHER, "_": OTHER, "\x00": OTHER, "😀": OTHER, "\ufffd": OTHER}
    assert {character: classes()[ord(character)] for character in wanted} == wanted


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("_LETTERS", lambda text: text.replace("41-5a", "41-59")),  # a shorter range
        ("_LETTERS", lambda text: text.replace(" 16e40-16e7f", "")),  # a script that is not known
        ("_NUMBERS", lambda text: text.replace(" 1d7ce-1d7ff", "")),
        ("_SPACES", lambda text: text + " 1c-1f"),  # what Python takes for white space
    ],
)
def test_a_library_that_differs_is_asked_for_all_characters(
    name: str, change: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = getattr(characters, name)
    assert callable(change) and change(before) != before
    monkeypatch.setattr(characters, name, change(before))
    fresh = functools.cache(classes.__wrapped__)
    assert (fresh() == classes()).all()
    assert not fresh().flags.writeable
