"""What the heuristic filters measure of a text: one compiled pass over the UTF-8 bytes of many documents.

**Characters** are Unicode code points. A byte that is no part of valid UTF-8 is a character without properties where it
could begin one, and nothing where it could only continue one.

**Words** are what stands between white space (as `str.split` has it). In scripts written without spaces every character
is a word (`ray_jobs.files.scripts`). Words are told apart byte by byte: case and punctuation count.

**Lines** stand between newlines, white space at their ends set aside; blank ones are none. **Paragraphs** are lines in
succession, without a blank one between them.

**Shares** are of all lines, paragraphs or words. Shares of characters in lines are of those of all lines (without the
white space at their ends), so that each reaches 1. Shares of characters in n-grams are of all of the document's: what
stands between words is in no n-gram, so that they stay below 1 in scripts with spaces. A document without words has 0
everywhere.

**Equality** of words, lines and n-grams is that of 64-bit hashes. Among a document's 100,000 n-grams two that differ
are taken for equal with a probability of 3e-10. Only n-grams whose first n - 1 words stand in the document twice can
do so themselves, so each width looks at what the one before left over, which in prose is little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt

from ray_jobs.files.scripts import RANGES, TABLE_END

Bytes: TypeAlias = npt.NDArray[np.uint8]
Offsets: TypeAlias = npt.NDArray[np.int64]
Hashes: TypeAlias = npt.NDArray[np.uint64]

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
"""Of Rae et al. 2021, appendix A.1.1."""
BULLETS = "•‣◦●○▪■⁃∙·-*"
SENTENCE_ENDS = ".!?…。！？｡؟۔।॥።။។"
CLOSING = "\"'”’»)]」』"
"""What may stand between a sentence's end and the white space after it."""
TERMINAL = SENTENCE_ENDS + "\"'”’»」』"
"""What ends a line that is a sentence: C4's marks and end quotes, and those of other scripts."""
SHORT_LINE_CHARACTERS = 30
FEW_WORDS = 3
TOKEN_BYTES = 4


@dataclass(frozen=True, slots=True)
class Statistics:
    """The kernel writes them in this order."""

    num_words: int
    mean_word_length: float
    """In characters."""
    symbol_ratio: float
    """Hash signs or ellipses (three dots in succession, or the character), whichever are more, over words."""
    bullet_lines: float
    """Share of lines that begin with one of `BULLETS`."""
    ellipsis_lines: float
    """Share of lines that end in an ellipsis."""
    alphabetic_words: float
    """Share of words with a letter, as `str.isalpha` has it."""
    num_stop_words: int
    """How many of `STOP_WORDS` stand in it, in whatever case."""
    duplicate_lines: float
    """Share of lines that stood before."""
    duplicate_line_characters: float
    """Share of characters in them."""
    duplicate_paragraphs: float
    duplicate_paragraph_characters: float
    top_2_grams: float
    """Share of characters in the occurrences, without overlap, of the most frequent 2-gram of words; of several as
    frequent the one that makes the most of it, and 0 where none stands twice."""
    top_3_grams: float
    top_4_grams: float
    duplicate_5_grams: float
    """Share of characters in 5-grams of words that stood before. They are counted from left to right and do not
    overlap: reading goes on behind one that is found, so that each character counts once. As datatrove counts."""
    duplicate_6_grams: float
    duplicate_7_grams: float
    duplicate_8_grams: float
    duplicate_9_grams: float
    duplicate_10_grams: float
    punctuated_lines: float
    """Share of lines that end in one of `TERMINAL`."""
    short_lines: float
    """Share of lines of fewer than 30 characters."""
    newlines_per_word: float
    """Lines after the first, over words. Blank lines do not count: texts on which the threshold was set have none."""
    few_word_lines: float
    """Share of lines of fewer than 3 words."""
    javascript_lines: float
    """Share of lines that hold "javascript", in whatever case."""
    num_sentences: int
    """Words that end in one of `SENTENCE_ENDS`, `CLOSING` set aside."""
    num_lorem_ipsum: int
    """How often "lorem ipsum" stands in it, in whatever case."""
    num_curly_brackets: int
    num_tokens: int
    """Estimated: one in 4 bytes of UTF-8, begun ones whole. GPT-2's are of 4.3 bytes in English (wikitext-2), and those
    of a tokenizer trained on another language roughly so in it."""


NAMES = tuple(field.name for field in fields(Statistics))

# Multipliers of the hashes: odd 64-bit constants of xxHash64 (Collet) and of MurmurHash3's fmix64 (Appleby).
_BYTE = np.uint64(0x9E3779B185EBCA87)
_STEP = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)

# Bits of the table of characters.
_SPACE, _UNSPACED, _ALPHABETIC, _BULLET, _SENTENCE_END, _CLOSING, _TERMINAL = (1 << bit for bit in range(7))
_NUM_CLASSED = TABLE_END
"""No character beyond has any of these properties, but for language tags and private use."""

_NEWLINE, _DOT, _HASH, _CURLY_OPEN, _CURLY_CLOSE = (ord(character) for character in "\n.#{}")
_ELLIPSIS = ord("…")
_LOREM_IPSUM = np.frombuffer(b"lorem ipsum", dtype=np.uint8)
_JAVASCRIPT = np.frombuffer(b"javascript", dtype=np.uint8)
# A word's bytes after a 1, which tells NULs at its beginning from nothing.
_STOP_CODES = np.array([int.from_bytes(b"\1" + word.encode(), "big") for word in STOP_WORDS], dtype=np.int64)
_LONGEST_STOP_WORD = max(map(len, STOP_WORDS))


def measure_texts(texts: Sequence[str]) -> list[Statistics]:
    """Statistics of each text."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    rows = statistics(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)
    return [statistics_of(dict(zip(NAMES, row, strict=True))) for row in rows.tolist()]


def statistics_of(values: Mapping[str, Any]) -> Statistics:
    """Out of a row that has them among others, such as the audit's."""
    numbers: dict[str, Any] = {
        name: int(values[name]) if name.startswith("num_") else float(values[name]) for name in NAMES
    }
    return Statistics(**numbers)


def statistics(data: Bytes, offsets: Offsets) -> npt.NDArray[np.float64]:
    """Statistics of documents that lie end to end: float64 [n, len(NAMES)].

    Args:
        data: UTF-8; bytes that are not are measured as the module says.
        offsets: where each document begins and ends, [n + 1].
    """
    out = np.zeros((len(offsets) - 1, len(NAMES)), dtype=np.float64)
    if len(out):
        _statistics(data, offsets, _classes(), out)
    return out


@cache
def _classes() -> Bytes:
    """The properties of each character, by Python's Unicode tables."""
    classes = np.zeros(_NUM_CLASSED, dtype=np.uint8)
    for code in range(_NUM_CLASSED):
        character = chr(code)
        if character.isspace():
            classes[code] = _SPACE
        elif character.isalpha():
            classes[code] = _ALPHABETIC
    for first, last in RANGES:
        classes[first : last + 1] |= _UNSPACED
    for characters, bit in (
        (BULLETS, _BULLET),
        (SENTENCE_ENDS, _SENTENCE_END),
        (CLOSING, _CLOSING),
        (TERMINAL, _TERMINAL),
    ):
        for character in characters:
            classes[ord(character)] |= bit
    return classes


@numba.njit(nogil=True, cache=True)
def _mix(value: np.uint64) -> np.uint64:  # pragma: no cover
    value = (value ^ (value >> np.uint64(33))) * _MIX_1
    value = (value ^ (value >> np.uint64(33))) * _MIX_2
    return value ^ (value >> np.uint64(33))


@numba.njit(nogil=True, cache=True)
def _code_point(data: Bytes, i: int, end: int) -> tuple[int, int]:  # pragma: no cover
    """(code point, bytes) of the character that begins at a byte beyond ASCII; (-1, 1) where none does."""
    lead: Any = np.int64(data[i])
    if lead < 0xC2 or lead > 0xF4:
        return -1, 1
    size = 2 if lead < 0xE0 else (3 if lead < 0xF0 else 4)
    if i + size > end:
        return -1, 1
    code = lead & (0x7F >> size)
    for k in range(1, size):
        byte = np.int64(data[i + k])
        if byte & 0xC0 != 0x80:
            return -1, 1
        code = code << 6 | byte & 0x3F
    # Neither longer than it need be, nor half of a UTF-16 pair.
    if size == 3 and (code < 0x800 or 0xD800 <= code <= 0xDFFF):
        return -1, 1
    if size == 4 and (code < 0x10000 or code > 0x10FFFF):
        return -1, 1
    return code, size


@numba.njit(nogil=True, cache=True)
def _stands_at(data: Bytes, i: int, end: int, wanted: Bytes) -> bool:  # pragma: no cover
    if i + len(wanted) > end:
        return False
    for k in range(len(wanted)):
        byte = data[i + k]
        if byte != wanted[k] and (byte < 65 or byte > 90 or byte + 32 != wanted[k]):
            return False
    return True


@numba.njit(nogil=True, cache=True)
def _slot(key: np.uint64, mask: np.uint64, keys: Hashes, stamps: Offsets, stamp: int) -> np.uint64:  # pragma: no cover
    """Where the key is in the table, or where it belongs. What has another stamp is left over and counts as empty."""
    slot = key & mask
    while stamps[slot] == stamp and keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@numba.njit(nogil=True, cache=True)
def _mask(num_keys: int) -> np.uint64:  # pragma: no cover
    """Of a table at most half full."""
    size = 4
    while size < 2 * num_keys:
        size *= 2
    return np.uint64(size - 1)


@numba.njit(nogil=True, cache=True)
def _repeated(
    hashes: Hashes, characters: Offsets, num: int, keys: Hashes, stamps: Offsets, stamp: int
) -> tuple[int, int]:  # pragma: no cover
    """How many of the first `num` hashes stood before, and the characters of these."""
    mask = _mask(num)
    num_repeated = num_characters = 0
    for i in range(num):
        slot = _slot(hashes[i], mask, keys, stamps, stamp)
        if stamps[slot] == stamp:
            num_repeated += 1
            num_characters += characters[i]
        else:
            stamps[slot] = stamp
            keys[slot] = hashes[i]
    return num_repeated, num_characters


@numba.njit(nogil=True, cache=True)
def _n_grams(
    words: Hashes,
    before: Offsets,
    num_words: int,
    num_characters: int,
    keys: Hashes,
    stamps: Offsets,
    stamp: int,
    out: npt.NDArray[np.float64],
) -> None:  # pragma: no cover
    """Top 2- to 4-grams and duplicate 5- to 10-grams into out[0:9].

    Args:
        before: characters of the words before each.
        num_characters: of the document.
        stamp: the first of ten that no earlier call was given.
    """
    mask = _mask(num_words)
    occurrences = np.empty(mask + np.uint64(1), dtype=np.int32)
    apart = np.empty(mask + np.uint64(1), dtype=np.int32)
    ends = np.empty(mask + np.uint64(1), dtype=np.int32)
    grams = words[:num_words].copy()
    places = np.arange(num_words)
    slots = np.empty(num_words, dtype=np.uint64)
    num_places = num_words
    num_characters = max(1, num_characters)
    for width in range(1, 11):
        mask = _mask(num_places)
        most = top = num_used = 0
        for k in range(num_places):
            place = places[k]
            end = place + width
            if end > num_words:
                break
            if width > 1:
                grams[place] = grams[place] * _STEP + words[end - 1]
            key = _mix(grams[place])
            slot = _slot(key, mask, keys, stamps, stamp + width)
            if stamps[slot] != stamp + width:
                stamps[slot] = stamp + width
                keys[slot] = key
                occurrences[slot] = apart[slot] = 1
                ends[slot] = end
            else:
                occurrences[slot] += 1
                if place >= ends[slot]:
                    apart[slot] += 1
                    ends[slot] = end
                    total = apart[slot] * (before[end] - before[place])
                    if apart[slot] > most or (apart[slot] == most and total > top):
                        most, top = apart[slot], total
            places[num_used] = place
            slots[num_used] = slot
            num_used += 1
        if 2 <= width <= 4:
            out[width - 2] = top / num_characters
        elif width >= 5:
            covered = covered_to = 0
            for k in range(num_used):
                if occurrences[slots[k]] > 1 and places[k] >= covered_to:
                    if apart[slots[k]] < 0:
                        covered_to = places[k] + width
                        covered += before[covered_to] - before[places[k]]
                    apart[slots[k]] = -1  # it stood here
            out[width - 2] = covered / num_characters
        num_places = 0
        for k in range(num_used):
            if occurrences[slots[k]] > 1:
                places[num_places] = places[k]
                num_places += 1
        if num_places == 0:
            break


@numba.njit(nogil=True, cache=True)
def _statistics(
    data: Bytes, offsets: Offsets, classes: Bytes, out: npt.NDArray[np.float64]
) -> None:  # pragma: no cover
    longest = 0
    for document in range(len(offsets) - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    # Words and lines of one byte are kept apart by another; words without white space between them have three bytes.
    room = longest // 2 + 2
    words = np.empty(room, dtype=np.uint64)
    before = np.zeros(room + 1, dtype=np.int64)
    line_hashes, paragraph_hashes = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.uint64)
    line_characters, paragraph_characters = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    table_size = np.int64(_mask(room)) + 1
    keys = np.empty(table_size, dtype=np.uint64)
    stamps = np.zeros(table_size, dtype=np.int64)
    stamp = 0

    for document in range(len(offsets) - 1):
        begin, end = offsets[document], offsets[document + 1]
        num_words = num_lines = num_paragraphs = 0
        num_hashes = num_ellipses = num_alphabetic = num_sentences = stop_words = 0
        num_bullets = num_ellipsis_lines = num_punctuated = num_short = num_few_words = num_javascript = 0
        num_lorem_ipsum = num_curly_brackets = num_characters = 0
        # Of the word that is being read.
        word_hash, word_bytes, word_characters, word_code = np.uint64(0), 0, 0, 1
        word_class = 0
        is_sentence_end = is_whole = False
        # Of the line: up to here, and up to its last character that is no white space.
        line_hash, line_size, line_words = np.uint64(0), 0, 0
        trimmed_hash, trimmed_size, last_class = np.uint64(0), 0, 0
        is_line = has_javascript = ends_in_ellipsis = False
        num_dots = 0
        paragraph_hash, paragraph_size, paragraph_lines = np.uint64(0), 0, 0

        i = begin
        # The end is read as one more newline, which closes what is open.
        while i <= end:
            size, character = 1, 1
            code: Any = _NEWLINE
            if i < end and data[i] < 0x80:
                code = np.int64(data[i])
            elif i < end:
                code, size = _code_point(data, i, end)
                if code < 0 and data[i] & 0xC0 == 0x80:
                    character = 0
            num_characters += character
            kind: Any = np.int64(classes[code]) if 0 <= code < _NUM_CLASSED else 0

            if word_bytes and (is_whole or kind & (_SPACE | _UNSPACED)):
                words[num_words] = _mix(word_hash)
                before[num_words + 1] = before[num_words] + word_characters
                num_words += 1
                line_words += 1
                num_alphabetic += (word_class & _ALPHABETIC) != 0
                num_sentences += is_sentence_end
                if word_bytes <= _LONGEST_STOP_WORD:
                    for k in range(len(_STOP_CODES)):
                        if word_code == _STOP_CODES[k]:
                            stop_words |= 1 << k
                word_hash, word_bytes, word_characters, word_code = np.uint64(0), 0, 0, 1
                word_class = 0
                is_sentence_end = is_whole = False

            if code == _DOT:
                num_dots += 1
                num_ellipses += num_dots % 3 == 0
            elif not kind & _SPACE:
                num_dots = 0

            if kind & _SPACE:
                if code == _NEWLINE:
                    if is_line:
                        hashed = _mix(trimmed_hash)
                        line_hashes[num_lines] = hashed
                        line_characters[num_lines] = trimmed_size
                        num_lines += 1
                        num_punctuated += (last_class & _TERMINAL) != 0
                        num_ellipsis_lines += ends_in_ellipsis
                        num_short += trimmed_size < SHORT_LINE_CHARACTERS
                        num_few_words += line_words < FEW_WORDS
                        num_javascript += has_javascript
                        paragraph_hash = paragraph_hash * _STEP + hashed
                        paragraph_size += trimmed_size
                        paragraph_lines += 1
                    if paragraph_lines and (i == end or not is_line):
                        paragraph_hashes[num_paragraphs] = _mix(paragraph_hash)
                        paragraph_characters[num_paragraphs] = paragraph_size
                        num_paragraphs += 1
                        paragraph_hash, paragraph_size, paragraph_lines = np.uint64(0), 0, 0
                    line_hash, line_size, line_words = np.uint64(0), 0, 0
                    is_line = has_javascript = False
                elif is_line:
                    line_size += 1
                    for k in range(size):
                        line_hash = line_hash * _BYTE + np.uint64(data[i + k]) + np.uint64(1)
                num_dots = 0
                i += size
                continue

            if not is_line:
                is_line = True
                num_bullets += (kind & _BULLET) != 0
            for k in range(size):
                byte = np.uint64(data[i + k]) + np.uint64(1)
                line_hash = line_hash * _BYTE + byte
                word_hash = word_hash * _BYTE + byte
            line_size += character
            trimmed_hash, trimmed_size, last_class = line_hash, line_size, kind
            ends_in_ellipsis = num_dots >= 3 or code == _ELLIPSIS
            word_bytes += size
            word_characters += character
            word_class |= kind
            if kind & _SENTENCE_END:
                is_sentence_end = True
            elif not kind & _CLOSING:
                is_sentence_end = False
            is_whole = (kind & _UNSPACED) != 0
            if code < 0 or code >= 0x80:
                num_ellipses += code == _ELLIPSIS
                word_code = word_code << 8 | 0xFF
            else:
                lower = code + 32 if 65 <= code <= 90 else code
                word_code = word_code << 8 | lower
                if lower == _LOREM_IPSUM[0]:
                    num_lorem_ipsum += _stands_at(data, i, end, _LOREM_IPSUM)
                elif lower == _JAVASCRIPT[0]:
                    has_javascript = has_javascript or _stands_at(data, i, end, _JAVASCRIPT)
                elif code == _HASH:
                    num_hashes += 1
                elif code in (_CURLY_OPEN, _CURLY_CLOSE):
                    num_curly_brackets += 1
            i += size

        if num_words == 0:
            continue
        row = out[document]
        repeated_lines, repeated_line_size = _repeated(line_hashes, line_characters, num_lines, keys, stamps, stamp + 1)
        repeated_paragraphs, repeated_paragraph_size = _repeated(
            paragraph_hashes, paragraph_characters, num_paragraphs, keys, stamps, stamp + 2
        )
        # The newline that closes the document is not its own.
        _n_grams(words, before, num_words, num_characters - 1, keys, stamps, stamp + 2, row[11:20])
        stamp += 12
        all_line_characters = max(1, line_characters[:num_lines].sum())
        num_stop_words = 0
        for k in range(len(_STOP_CODES)):
            num_stop_words += stop_words >> k & 1
        row[0] = num_words
        row[1] = before[num_words] / num_words
        row[2] = max(num_hashes, num_ellipses) / num_words
        row[3] = num_bullets / num_lines
        row[4] = num_ellipsis_lines / num_lines
        row[5] = num_alphabetic / num_words
        row[6] = num_stop_words
        row[7] = repeated_lines / num_lines
        row[8] = repeated_line_size / all_line_characters
        row[9] = repeated_paragraphs / num_paragraphs
        row[10] = repeated_paragraph_size / all_line_characters
        row[20] = num_punctuated / num_lines
        row[21] = num_short / num_lines
        row[22] = (num_lines - 1) / num_words
        row[23] = num_few_words / num_lines
        row[24] = num_javascript / num_lines
        row[25] = num_sentences
        row[26] = num_lorem_ipsum
        row[27] = num_curly_brackets
        row[28] = (end - begin + TOKEN_BYTES - 1) // TOKEN_BYTES
