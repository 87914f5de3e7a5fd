"""The rules of `repeats` written plainly; slow, for small corpora."""

import re
import unicodedata
from collections.abc import Sequence

from ray_jobs.files.scripts import UNSPACED

Place = tuple[int, int]


def words_of(text: str) -> list[str]:
    words: list[str] = []
    for run in re.split(r"[ \t\n\v\f\r]+", text):
        word = ""
        for character in run:
            if UNSPACED.match(character):
                words += [word] * bool(word) + [character]
                word = ""
            else:
                word += character
        words += [word] * bool(word)
    return words


def cut_by_windows(documents: Sequence[list[str]], num_words: int) -> list[list[bool]]:
    """Which words a window covers that stands at an earlier place: by comparing words with a table of first places."""
    first: dict[tuple[str, ...], Place] = {}
    removed = [[False] * len(words) for words in documents]
    for number, words in enumerate(documents):
        for start in range(len(words) - num_words + 1):
            document, place = first.setdefault(tuple(words[start : start + num_words]), (number, start))
            if document < number or start - place >= num_words:
                removed[number][start : start + num_words] = [True] * num_words
    return removed


def normalised(line: str) -> str:
    """CCNet's: lower case, digits 0, neither accents nor punctuation; white space once."""
    decomposed = unicodedata.normalize("NFD", "".join(c.lower() for c in line))
    kept = [c for c in decomposed if unicodedata.category(c)[0] not in "MP" and unicodedata.category(c) != "Cf"]
    visible = [c for c in kept if c in "\t\n\v\f\r" or (c >= " " and c != "\x7f")]
    zeros = ["0" if unicodedata.category(c) == "Nd" else c for c in visible]
    return " ".join(word for word in re.split(r"[ \t\n\v\f\r]+", "".join(zeros)) if word)


def units_of(text: str, kind: str, min_characters: int) -> list[tuple[str, int, int]]:
    """(normalised, first word, past the last word) of each unit that is long enough."""
    found = []
    lines = text.split("\n")
    groups: list[list[int]] = [[]]
    for number, line in enumerate(lines):
        blank = not line.strip(" \t\v\f\r")
        if kind == "lines":
            groups.append([number])
        elif blank:
            groups.append([])
        else:
            groups[-1].append(number)
    for group in groups:
        if not group:
            continue
        first = len(words_of("\n".join(lines[: group[0]])))
        end = len(words_of("\n".join(lines[: group[-1] + 1])))
        key = "\n".join(filter(None, (normalised(lines[number]) for number in group)))
        if len(key) >= min_characters:
            found.append((key, first, end))
    return found


def cut_by_units(texts: Sequence[str], kind: str, max_documents: int, min_characters: int) -> list[list[bool]]:
    having: dict[str, set[int]] = {}
    removed = []
    for number, text in enumerate(texts):
        flags = [False] * len(words_of(text))
        for key, first, end in units_of(text, kind, min_characters):
            earlier = having.setdefault(key, set())
            if len(earlier - {number}) >= max_documents:
                flags[first:end] = [True] * (end - first)
            earlier.add(number)
        removed.append(flags)
    return removed
