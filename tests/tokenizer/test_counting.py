"""Words are counted as Hugging Face's and SentencePiece's trainers cut them, whatever the batches."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.tokenizer import bpe, counting
from ray_jobs.tokenizer.counting import BLANKS, LONGEST_WORD, WordCounter
from ray_jobs.tokenizer.merges import byte_alphabet
from ray_jobs.tokenizer.merging import Words
from tests.tokenizer.test_pieces import PARTS

LETTER_OF = {byte: letter for letter, byte in byte_alphabet().items()}
BYTE_OF = {letter: byte for byte, letter in LETTER_OF.items()}


def counts(counter: WordCounter) -> dict[bytes, int]:
    return as_dict(counter.words)


def as_dict(words: Words) -> dict[bytes, int]:
    starts = np.concatenate([[0], words.ends[:-1]]).astype(int).tolist() if len(words.ends) else []
    data = words.data.tobytes()
    found = [data[a:b] for a, b in zip(starts, words.ends.tolist(), strict=True)]
    assert len(set(found)) == len(found)
    return dict(zip(found, words.counts.tolist(), strict=True))


def counted(texts: list[str], name: str) -> dict[bytes, int]:
    counter = WordCounter(bpe.PATTERNS[name])
    counter.add(texts)
    return counts(counter)


def cut_by_hugging_face(texts: list[str], name: str) -> Counter[bytes]:
    cut = bpe.new_tokenizer(name).pre_tokenizer
    return Counter(
        bytes(BYTE_OF[letter] for letter in word) for text in texts for word, _ in cut.pre_tokenize_str(text)
    )


@pytest.mark.parametrize("name", bpe.PRE_TOKENIZERS)
@given(texts=st.lists(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PARTS)).map("".join)), max_size=5))
def test_words_are_those_of_the_pre_tokenizer(name: str, texts: list[str]) -> None:
    assert counted(texts, name) == cut_by_hugging_face(texts, name)


@pytest.mark.parametrize("name", bpe.PRE_TOKENIZERS)
def test_words_of_real_text_in_75_languages_are_those_of_the_pre_tokenizer(name: str, data_dir: Path) -> None:
    texts = [path.read_text()[:8000] for path in sorted((data_dir / "lid" / "sentences").glob("*.txt"))]
    assert len(texts) == 75
    assert counted(texts, name) == cut_by_hugging_face(texts, name)


def lines_in_words(text: str) -> Counter[bytes]:
    """As SentencePiece splits a line that begins with its dummy blank: blanks open a word."""
    found: list[str] = []
    for line in text.split("\n"):
        if line:
            before = "x"
            for letter in " " + line:
                if letter == " " and before != " ":
                    found.append("")
                found[-1] += letter
                before = letter
    return Counter(word.encode() for word in found)


@given(st.lists(st.sampled_from(["a", "b", " ", " ", "\n", "é", "\t", "\0"]), max_size=30).map("".join))
def test_blanks_open_the_words_of_a_line(text: str) -> None:
    counter = WordCounter(BLANKS)
    counter.add([text])
    assert counts(counter) == lines_in_words(text)


@given(st.lists(st.lists(st.sampled_from(["ab", " c", "\nd ", "é"]), max_size=9).map("".join), max_size=9))
def test_counters_add_up(texts: list[str]) -> None:
    whole, parts = WordCounter(BLANKS), WordCounter(BLANKS)
    whole.add(texts)
    for text in texts:
        part = WordCounter(BLANKS)
        part.add([text])
        sink = pa.BufferOutputStream()
        pq.write_table(counting.to_table(part.words), sink)
        parts.add_words(counting.from_table(pq.read_table(sink.getvalue())))
    assert counts(parts) == counts(whole)


def test_many_words_and_batches_are_counted_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(3)
    words = [f" {chance.randrange(1 << 18):x}" for _ in range(400_000)]
    monkeypatch.setattr(counting, "BATCH_BYTES", 100_000)
    counter = WordCounter(BLANKS)
    counter.add("".join(words[first : first + 1000])[1:] for first in range(0, len(words), 1000))
    assert counts(counter) == Counter(word.encode() for word in words)


def test_a_word_of_a_megabyte_is_counted_in_parts_that_are_text() -> None:
    counter = WordCounter(bpe.PATTERNS["gpt2"])
    counter.add(["a " + "é€x" * 170_000 + " b"])
    found = counts(counter)
    assert max(map(len, found)) <= LONGEST_WORD
    for word in found:
        word.decode()
    assert sum(len(word) * count for word, count in found.items()) == len(("a " + "é€x" * 170_000 + " b").encode())


def test_tables_that_are_slices_or_empty_are_read(tmp_path: Path) -> None:
    counter = WordCounter(BLANKS)
    assert counts(counter) == {} and as_dict(counting.from_table(counting.to_table(counter.words))) == {}
    counter.add(["one two two three"])
    table = counting.to_table(counter.words)
    assert as_dict(counting.from_table(table.slice(1, 1))) == {b" two": 2}
