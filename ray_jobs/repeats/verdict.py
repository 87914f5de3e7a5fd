"""Which words of one file's documents are cut out, by which rule, and where they stood first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numba
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ray_jobs.repeats.sharing import UNIT_KINDS
from ray_jobs.repeats.windows import agreement, covered
from ray_jobs.repeats.words import Offsets, Words, split_one


@dataclass
class Marks:
    """What one rule takes of w words in n documents."""

    words: npt.NDArray[np.bool_]
    """[w]: which words it cuts out."""
    pieces: npt.NDArray[np.int64]
    """[n]: lines, paragraphs or runs of words cut out of each document."""
    first_words: npt.NDArray[np.int64]
    """[n]: the first word of the first piece, w where there is none."""
    sources: dict[int, str] = field(default_factory=dict)
    """Document -> the id of the document where that first piece stood first."""


def mark_units(kind: str, own: pa.Table, words: Words, shared: pa.Table) -> Marks:
    """Lines, or paragraphs, among OWN_UNITS whose hash is among QUOTED_UNITS, past the documents where they stay."""
    marks = _no_marks(words)
    is_kind = pc.field("kind") == UNIT_KINDS.index(kind)
    table, units = shared.filter(is_kind).sort_by("hash"), own.filter(is_kind)
    hashes, wanted = table["hash"].to_numpy(), units["hash"].to_numpy()
    if not len(hashes):
        return marks
    rows = np.minimum(np.searchsorted(hashes, wanted), len(hashes) - 1)
    having = np.flatnonzero(hashes[rows] == wanted)
    having = having[np.argsort(rows[having], kind="stable")]  # by hash, then document
    row, documents = rows[having], units["document"].to_numpy()[having]
    is_new = np.ones(len(having), dtype=bool)
    is_new[1:] = (row[1:] != row[:-1]) | (documents[1:] != documents[:-1])
    number = np.cumsum(is_new)  # of the document, among those of all hashes
    starts = np.searchsorted(row, row)
    is_over = number - number[starts] >= table["allowed"].to_numpy()[row]
    taken = np.sort(having[is_over])

    first_words, end_words = units["word"].to_numpy()[taken], units["end"].to_numpy()[taken]
    edges = np.zeros(len(words) + 1, dtype=np.int64)
    np.add.at(edges, first_words, 1)
    np.add.at(edges, end_words, -1)
    marks.words = np.cumsum(edges)[:-1] > 0
    documents = units["document"].to_numpy()[taken]
    marks.pieces = np.bincount(documents, minlength=len(marks.pieces))
    found, firsts = np.unique(documents, return_index=True)
    marks.first_words[found] = first_words[firsts]
    sources = table["source_id"].take(pa.array(rows[taken[firsts]])).to_pylist()
    marks.sources = dict(zip(found.tolist(), sources, strict=True))
    return marks


def mark_substrings(words: Words, num_words: int, within: pa.Table, quotes: pa.Table, ids: Sequence[str]) -> Marks:
    """Windows of `num_words` words that stand at an earlier place.

    Args:
        within: columns word, first: windows that equal an earlier one of this file, by their first words, ascending.
        quotes: columns target_word, windows, text, source_id: windows that may equal as many in an earlier file, and
            the text there. They are compared word by word.
        ids: of the documents.
    """
    marks = _no_marks(words)
    repeats = np.zeros(len(words), dtype=bool)
    quoted = np.full(len(words), -1, dtype=np.int64)
    for row, (start, windows, text) in enumerate(
        zip(*(quotes[name].to_pylist() for name in ("target_word", "windows", "text")), strict=True)
    ):
        for window in _equal_windows(words, start, windows, text, num_words):
            quoted[window] = row
    repeats[quoted >= 0] = True

    again, first = within["word"].to_numpy(), within["first"].to_numpy()
    _follow(again, first, words.offsets, num_words, quoted, repeats)
    marks.words = covered(repeats, num_words)

    begins = marks.words.copy()
    begins[1:] &= ~marks.words[:-1]
    inner = words.offsets[:-1][np.diff(words.offsets) > 0]
    begins[inner] = marks.words[inner]  # a run ends with its document
    marks.pieces = np.bincount(words.document_of(np.flatnonzero(begins)), minlength=len(marks.pieces))
    _first_marked(repeats, words.offsets, marks.first_words)
    for document in np.flatnonzero(marks.first_words < len(words)).tolist():
        place = int(marks.first_words[document])
        row = int(quoted[place])
        if row >= 0:
            marks.sources[document] = quotes["source_id"][row].as_py()
        else:
            source = first[np.searchsorted(again, place)]
            marks.sources[document] = ids[int(np.searchsorted(words.offsets, source, side="right")) - 1]
    return marks


@numba.njit(cache=True)
def _follow(
    again: Offsets, first: Offsets, offsets: Offsets, num_words: int, quoted: Offsets, repeats: npt.NDArray[np.bool_]
) -> None:  # pragma: no cover
    """Marks the windows of `within` in `repeats`, and in `quoted` what their first places are quoted from."""
    document = 0
    for row in range(len(again)):
        word, earlier = again[row], first[row]
        while offsets[document + 1] <= word:
            document += 1
        quoted[word] = quoted[earlier]
        repeats[word] = quoted[word] >= 0 or earlier < offsets[document] or word - earlier >= num_words


@numba.njit(cache=True)
def _first_marked(marked: npt.NDArray[np.bool_], offsets: Offsets, out: Offsets) -> None:  # pragma: no cover
    """Writes the first marked word of each document that has one."""
    for document in range(len(offsets) - 1):
        for word in range(offsets[document], offsets[document + 1]):
            if marked[word]:
                out[document] = word
                break


def _equal_windows(words: Words, start: int, windows: int, text: bytes, num_words: int) -> list[slice]:
    """Which windows, of so many from word `start` on, have the words of the quoted text: runs of them."""
    quote = split_one(text)
    assert len(quote) == windows + num_words - 1, "a quote splits into the words that it was made of"
    equal = agreement(words, start, quote)
    if equal == len(quote):
        return [slice(start, start + windows)]
    # Two different windows had one hash. Word by word: it happens once in 2^64 pairs, or where someone wants it to.
    same = [agreement(words, start + i, split_one(quote.text(i, i + 1))) == 1 for i in range(len(quote))]
    return [slice(start + i, start + i + 1) for i in range(windows) if all(same[i : i + num_words])]


def first_sources(marks: Mapping[str, Marks], num_documents: int) -> list[str | None]:
    """For each document, where the first of all that it lost stood first."""
    out: list[str | None] = [None] * num_documents
    for document in range(num_documents):
        having = [rule for rule in marks.values() if document in rule.sources]
        if having:
            out[document] = min(having, key=lambda rule: int(rule.first_words[document])).sources[document]
    return out


def per_document(marked: npt.NDArray[np.bool_], offsets: Offsets) -> npt.NDArray[np.int64]:
    """How many words of each document are marked: int64 [n]."""
    sums = np.concatenate([[0], np.cumsum(marked, dtype=np.int64)])
    return sums[offsets[1:]] - sums[offsets[:-1]]


def _no_marks(words: Words) -> Marks:
    num_documents = len(words.offsets) - 1
    return Marks(
        np.zeros(len(words), dtype=bool),
        np.zeros(num_documents, dtype=np.int64),
        np.full(num_documents, len(words), dtype=np.int64),
    )
