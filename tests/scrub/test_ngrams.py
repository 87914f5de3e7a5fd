"""Words and n-grams of decontamination against plain Python: sets of tuples of words."""

import random
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.files.scripts import UNSPACED
from ray_jobs.scrub import words
from ray_jobs.scrub.ngrams import NgramIndex, find_matches, index_examples


def plain_words(text: bytes) -> list[str]:
    """The module's definition, a character at a time."""
    found = [""]
    for character in text.decode("utf-8", "surrogateescape"):
        category = unicodedata.category(character)
        if character.isspace():
            found.append("")
        elif category[0] in "PS" or category == "Cf":
            continue
        elif UNSPACED.match(character):
            found += [character, ""]
        else:
            found[-1] += character.lower() if len(character.lower()) == 1 else character
    return [word for word in found if word]


def split(text: bytes) -> list[str]:
    data = np.frombuffer(text, np.uint8)
    num_bytes, num_words = words.room_for(len(data))
    out, hashes = np.empty(num_bytes, np.uint8), np.empty(num_words, np.uint64)
    places = np.empty((num_words, 2), np.int64)
    found = words.split(data, 0, len(data), *words.character_tables(), out, hashes, places)
    normal = out[: places[found, 0]].tobytes()
    return normal.decode("utf-8", "surrogateescape").split(" ")[:-1]


LETTERS = [*"aBÉßΣİȺKяЯ日本กຂကខ", "z9", "\u0301", "\u093f", "\U00020001"]
SPACES = [" ", "\n", "\t", "\x1c", "\u00a0", "\u2003", "\u3000", "\x00", "\x7f"]
SIGNS = [*"'’-–_$«。🦀^`ª½", "\u00ad", "\u200b", "\ufeff"]
NO_UTF8 = [b"\xff", b"\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\xf0\x9f", b"\xc0\x80", b"\xf5\x80\x80"]
texts = st.lists(
    st.one_of(
        st.sampled_from([one.encode() for one in LETTERS + SPACES + SIGNS] + NO_UTF8),
        st.text(max_size=3).map(str.encode),
    ),
    max_size=30,
).map(b"".join)


@given(texts)
def test_words_are_those_of_the_definition(text: bytes) -> None:
    assert split(text) == plain_words(text)


def test_every_character_is_what_unicode_says() -> None:
    for first in range(0, 0x110000, 1 << 12):
        codes = [code for code in range(first, first + (1 << 12)) if not 0xD800 <= code < 0xE000]
        if first >= 0x10000:  # beyond, letters without case and symbols by block
            codes = [code for code in codes if unicodedata.category(chr(code)) in {"So", "Lo"} and code >= 0x1F000]
        text = "x".join(map(chr, codes)).encode()
        assert split(text) == plain_words(text), hex(first)


def ngrams(text: bytes, size: int) -> set[tuple[str, ...]]:
    found = plain_words(text)
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)}


def expected(documents: list[bytes], examples: list[bytes], size: int, least: int) -> list[set[tuple[str, ...]]]:
    """Of each document the n-grams that it shares with an example."""
    wanted: set[tuple[str, ...]] = set()
    for example in examples:
        num_words = len(plain_words(example))
        if num_words >= least:
            wanted |= ngrams(example, min(size, num_words))
    lengths = {len(one) for one in wanted}
    return [{one for length in lengths for one in ngrams(document, length)} & wanted for document in documents]


def index_of(examples: list[bytes], size: int, least: int, sets: list[int] | None = None) -> NgramIndex:
    column = pa.array(examples, pa.large_binary()).view(pa.large_string())
    return index_examples(column, np.array(sets or [0] * len(examples), np.int32), size, least)


def column_of(documents: list[bytes]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(documents, pa.large_binary()).view(pa.large_string())])


def found_in(documents: list[bytes], index: NgramIndex) -> list[set[tuple[str, ...]]]:
    matches = find_matches(column_of(documents), index)
    found: list[set[tuple[str, ...]]] = [set() for _ in documents]
    for document, ngram in zip(matches.document.tolist(), matches.ngram.tolist(), strict=True):
        start, end = index.bounds[ngram]
        text = index.normal[start:end].tobytes().decode("utf-8", "surrogateescape")
        found[document].add(tuple(text.split(" ")[:-1]))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_matches_are_those_of_sets_of_tuples_on_a_fuzzed_corpus(seed: int) -> None:
    """Few words, so that n-grams meet by the thousand; joints, case and punctuation differ."""
    choice = random.Random(seed)
    size = choice.randint(2, 6)
    least = choice.randint(1, size)
    vocabulary = choice.sample(["a", "b", "ab", "é", "日", "本", "zebra", "ก", "7"], choice.randint(2, 6))

    def text(most: int) -> bytes:
        joints = [" ", "  ", "\n", ", ", " – ", " 🦀 "]
        parts = [
            (
                choice.choice([str.upper, str.lower, str.title])(choice.choice(vocabulary))
                + choice.choice(["", "'", "."])
            )
            + choice.choice(joints)
            for _ in range(choice.randint(0, most))
        ]
        return "".join(parts).encode() + choice.choice([b"", b"\xff"])

    examples = [text(9) for _ in range(choice.randint(1, 12))]
    documents = [text(choice.choice([3, 30, 300])) for _ in range(60)]
    index = index_of(examples, size, least)
    assert found_in(documents, index) == expected(documents, examples, size, least)
    assert index.num_short == sum(len(plain_words(example)) < least for example in examples)
    assert len({index.words(ngram) for ngram in range(len(index))}) == len(index)


def test_a_hash_that_collides_matches_nothing() -> None:
    examples = [b"one two three", b"four five six"]
    index = index_of(examples, 3, 3)
    index.keys[1] = index.keys[0]  # as if both had one hash, in neighbouring slots
    index.slots[:] = 1
    index.slots[(int(index.keys[0]) + 1) % len(index.slots)] = 0
    index.slots[(int(index.keys[0]) + 2) % len(index.slots)] = -1
    index.bitmap[:] = 255
    assert found_in([b"One, two: three!", b"none two three"], index) == [{("one", "two", "three")}, set()]


def test_a_match_says_where_it_stands() -> None:
    index = index_of([b"the quick brown fox", b"lazy dog"], 3, 2)
    document = "«Éh» The QUICK, brown – fox; a lazy … Dog.".encode()
    matches = find_matches(column_of([b"", document]), index)
    spans = [document[a:b] for a, b in zip(matches.start.tolist(), matches.end.tolist(), strict=True)]
    assert spans == ["The QUICK, brown – ".encode(), "QUICK, brown – fox; ".encode(), "lazy … Dog.".encode()]
    assert matches.document.tolist() == [1, 1, 1]


def test_an_ngram_belongs_to_the_first_example_of_each_set_that_has_it() -> None:
    index = index_of([b"x a b c", b"a b c", b"a b c y", b"q"], 3, 3, [0, 0, 1, 1])
    owners = {index.words(ngram): index.examples(ngram) for ngram in range(len(index))}
    assert owners == {"x a b": [0], "a b c": [0, 2], "b c y": [2]}
    assert index.num_short == 1


def test_matches_beyond_the_first_buffer_are_all_there() -> None:
    document = b"a b " * 5000
    matches = find_matches(column_of([document]), index_of([b"a b", b"b a"], 2, 2))
    assert len(matches.ngram) == 9999 and matches.start.tolist() == list(range(0, 19998, 2))


def test_columns_of_any_layout_give_the_same() -> None:
    documents = [b"nothing", b"a b c", b"", b"c a b"]
    index = index_of([b"a b"], 2, 2)
    whole = column_of(documents)
    chunked = pa.chunked_array([whole.chunk(0)[:1], whole.chunk(0)[1:]])
    for column, document in ((whole, [1, 3]), (chunked, [1, 3]), (whole[1:], [0, 2]), (whole[:0], [])):
        assert find_matches(column, index).document.tolist() == document


def test_no_examples_match_nothing() -> None:
    assert found_in([b"a b c"], index_of([], 2, 2)) == [set()]
    assert found_in([b"a b c"], index_of([b"a"], 2, 2)) == [set()]
