import re
from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.files.columns import text_buffers
from ray_jobs.quality.features import END, LABEL_PREFIX, Features, Vocabulary, count_words, rows_of

# White space, words that are known, unknown and of several bytes a character, ends, labels, bytes that are no UTF-8.
pieces = st.sampled_from(
    [word.encode() for word in ("mill", "Mill", "wheel", "Straße", "水車", "x", "</s>", "__label__a", "__label", "<")]
    + [b">", b" ", b"\n", b"\0", b"\t", b"\xff"]
)
texts = st.lists(st.lists(pieces, max_size=14).map(b"".join), max_size=4)


def plain_hash(data: bytes) -> int:
    value = 2166136261
    for byte in data:
        value = ((value ^ (byte if byte < 128 else byte + 0xFFFFFF00)) * 16777619) % 2**32
    return value


def plain_rows(text: bytes, words: list[bytes], features: Features) -> list[int]:
    """The same by slow means: words first, with their character n-grams, then word n-grams."""
    if features.lowercase:
        text = text.lower()
    rows, hashes = [], []
    for word in [word for word in re.split(rb"[ \t\n\v\f\r\0]+", text) if word] + [END]:
        if word.startswith(LABEL_PREFIX):
            continue
        if word in words:
            rows.append(words.index(word))
        if features.max_characters and word != END:
            rows += [len(words) + plain_hash(gram) % features.num_buckets for gram in character_ngrams(word, features)]
        signed = plain_hash(word)
        hashes.append(signed - 2**32 if signed >= 2**31 else signed)
        if word == END:
            break
    for first in range(len(hashes)):
        value = hashes[first]
        for second in range(first + 1, min(len(hashes), first + features.word_ngrams)):
            value = (value * 116049371 + hashes[second]) % 2**64
            rows.append(len(words) + value % features.num_buckets)
    return rows


def character_ngrams(word: bytes, features: Features) -> list[bytes]:
    marked = b"<" + word + b">"
    starts = [place for place, byte in enumerate(marked) if byte & 0xC0 != 0x80] + [len(marked)]
    found = []
    for first in range(len(starts) - 1):
        for length in range(1, min(features.max_characters, len(starts) - 1 - first) + 1):
            a, b = starts[first], starts[first + length]
            # A mark alone is no n-gram.
            if length >= features.min_characters and not (length == 1 and (a == 0 or b == len(marked))):
                found.append(marked[a:b])
    return found


@settings(deadline=None)
@given(
    texts,
    st.lists(st.sampled_from([b"mill", b"wheel", "Straße".encode(), b"</s>", b"\xff"]), unique=True, max_size=5),
    st.integers(1, 3),
    st.sampled_from([(0, 0), (1, 2), (2, 4)]),
    st.booleans(),
)
def test_rows_are_those_of_a_plain_reading(
    texts: list[bytes], words: list[bytes], ngrams: int, characters: tuple[int, int], lowercase: bool
) -> None:
    features = Features(ngrams, 37, *characters, lowercase)
    column = pa.array([b"before", *texts], pa.large_binary())[1:]  # does not begin at its buffer's start
    rows, offsets = rows_of(*text_buffers(column), Vocabulary.of_words(words), features)
    for number, text in enumerate(texts):
        assert rows[offsets[number] : offsets[number + 1]].tolist() == plain_rows(text, words, features)


@settings(deadline=None)
@given(texts, st.booleans())
def test_words_are_counted_most_frequent_first(texts: list[bytes], lowercase: bool) -> None:
    found, counts = count_words(*text_buffers(pa.array(texts, pa.large_binary())), lowercase)
    expected = Counter[bytes]()
    for text in texts:
        for word in re.split(rb"[ \t\n\v\f\r\0]+", text.lower() if lowercase else text):
            if word == END:
                break
            if word and not word.startswith(LABEL_PREFIX):
                expected[word] += 1
    assert found[0] == END and counts[0] == len(texts)
    assert list(zip(found[1:], counts[1:].tolist(), strict=True)) == expected.most_common()


def test_a_vocabulary_finds_all_its_words_and_no_other() -> None:
    words = [f"word{number}".encode() for number in range(5000)]
    vocabulary = Vocabulary.of_words(words)
    assert vocabulary.words() == words
    column = pa.array([b" ".join(words), b"word5000 word word49999"], pa.large_binary())
    rows, offsets = rows_of(*text_buffers(column), vocabulary, Features())
    assert np.array_equal(rows, np.arange(5000)) and offsets.tolist() == [0, 5000, 5000]


def test_more_words_than_a_table_holds_are_counted() -> None:
    words = [f"w{number}".encode() for number in range(100_000)]
    column = pa.array([b" ".join(words), b" ".join(words[:10])], pa.large_binary())
    found, counts = count_words(*text_buffers(column), False)
    assert found == [END, *words] and counts.tolist() == [2] * 11 + [1] * 99_990
