"""The sentences of `ray_jobs.quality.sentences` as its docstring says them, in plain Python, slow and obvious."""

import unicodedata

from configs.quality import Tokens
from ray_jobs.files.scripts import UNSPACED
from ray_jobs.quality.sentences import ASCII_MARKS


def sentences(data: bytes, tokens: Tokens) -> list[list[str]]:
    text = data.decode(errors="surrogateescape")  # a byte that is no part of UTF-8 becomes a surrogate
    made = [words(line, tokens) for line in text.split("\n")]
    return [line for line in made if line]


def words(line: str, tokens: Tokens) -> list[str]:
    return [word for word in "".join(written(character, tokens) for character in line).split(" ") if word]


def written(character: str, tokens: Tokens) -> str:
    category = unicodedata.category(character)
    if character.isspace() or category == "Cs":
        return " "
    if 0x20000 <= ord(character) < 0x40000:
        return f" {character} "
    if category[0] in "PS":
        return " " if tokens == "ccnet-words" else " . . . " if character == "…" else f" {mark(character)} "
    if category == "Mn" or category[0] == "C":
        return ""
    if category == "Nd":
        return "0"
    lowered = character.lower()
    bare = "".join(c for c in unicodedata.normalize("NFD", lowered) if unicodedata.category(c) != "Mn")
    letter = bare if len(bare) == 1 else lowered[0]
    return f" {letter} " if UNSPACED.match(letter) else letter


def mark(character: str) -> str:
    return ASCII_MARKS.get(character, character)
