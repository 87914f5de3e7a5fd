"""The compiled statistics against an obviously correct reference."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.crawl import statistics as module
from ray_jobs.crawl.records import Faults, read_records
from ray_jobs.crawl.statistics import NAMES, Statistics, measure_texts, statistics, statistics_of
from ray_jobs.files.streams import LocalFile
from tests.crawl.archive_bytes import PROSE
from tests.crawl.reference_statistics import reference

# Words so few that n-grams, lines and paragraphs repeat, and each mark that a score looks for.
FRAGMENTS = (
    *("the", "The", "of", "with", "a", "b", "c d e", "wherewith", "3", "…", "...", "....", ".", "!", "?)", '."', "#"),
    *(
        "-",
        "• ",
        "{",
        "}",
        "Lorem Ipsum",
        "lorem  ipsum",
        "JavaScript",
        "水",
        "車。",
        "ไทย",
        "ア",
        "é",
        "ß",
        "\U0001f600",
    ),
    *(" ", " ", " ", "\n", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u2028", "\u3000", "\x1c", "\0", "x" * 29, "y" * 30),
)
BROKEN = (
    b"\xff",
    b"\x80",
    b"\xe2\x80",
    b"\xc0\xaf",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",
    b"\xe0\x80\x80",
)


def kernel(*documents: bytes) -> list[Statistics]:
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    rows = statistics(np.frombuffer(b"".join(documents), dtype=np.uint8), offsets)
    return [statistics_of(dict(zip(NAMES, row, strict=True))) for row in rows.tolist()]


fragments = st.lists(st.sampled_from([*(fragment.encode() for fragment in FRAGMENTS), *BROKEN]), max_size=120)


@settings(max_examples=200)
@given(st.lists(fragments.map(b"".join), max_size=4))
def test_any_mixture_of_marks_words_and_broken_bytes_measures_as_the_reference(documents: list[bytes]) -> None:
    assert kernel(*documents) == [reference(document) for document in documents]


@settings(max_examples=150)
@given(st.text(max_size=300))
def test_any_text_measures_as_the_reference(text: str) -> None:
    assert measure_texts([text]) == [reference(text.encode())]


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_measure_as_the_reference(data: bytes) -> None:
    assert kernel(data) == [reference(data)]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n" * 1000,
        b" \t\r\n\x1c" * 100,
        b"\0" * 1000,
        b"\0 \0\0 \0\n\0\0",
        b"\x80" * 1000,
        b"\xe6\xb0",
        b"\xff\n" * 50,
        b"w" * 2**20,
        "水車小屋は川の水で回る。".encode() * 200,
        b"a " * 5000,
        b"a\n\n" * 5000,
        b"{" * 100,
        ("…" * 99 + "." * 100).encode(),
    ],
    ids=lambda data: f"{data[:8]!r}x{len(data)}",
)
def test_odd_documents_measure_as_the_reference(data: bytes) -> None:
    assert kernel(data, b"one more", data) == [reference(data), reference(b"one more"), reference(data)]


def test_real_text_measures_as_the_reference(data_dir: Path) -> None:
    wikitext = (data_dir / "corpora/wikitext2-valid.txt").read_bytes()
    plays = (data_dir / "corpora/tinyshakespeare.txt").read_bytes()
    # Cut wherever the thousands fall: within words, and within characters.
    documents = [
        text[i : i + size] for text in (wikitext, plays) for size in (1000, 7001) for i in range(0, 90_000, size)
    ]
    assert kernel(*documents) == [reference(document) for document in documents]


def test_pages_of_a_real_crawl_measure_as_the_reference(data_dir: Path) -> None:
    path = data_dir / "warc/whirlwind-python/whirlwind.warc.gz"
    blocks = [record.block for record in read_records(LocalFile(path), 2**22, Faults())]
    documents = [block[i : i + 20_000] for block in blocks for i in range(0, len(block), 20_000)]
    assert documents and kernel(*documents) == [reference(document) for document in documents]


def test_documents_do_not_depend_on_their_neighbours() -> None:
    documents = [PROSE.encode() * n for n in range(40)]
    together = kernel(*documents)
    assert together == [kernel(document)[0] for document in documents]
    assert together[::-1] == kernel(*documents[::-1])


def test_hand_counted_scores() -> None:
    (measured,) = measure_texts(["- The mill turns.\n- The mill turns.\n\nWater...\n"])
    assert (measured.num_words, measured.num_stop_words, measured.num_sentences) == (9, 1, 3)
    assert measured.bullet_lines == pytest.approx(2 / 3) and measured.ellipsis_lines == pytest.approx(1 / 3)
    assert measured.duplicate_lines == pytest.approx(1 / 3) and measured.duplicate_paragraphs == 0
    assert measured.duplicate_line_characters == pytest.approx(17 / 42)
    assert measured.top_2_grams == pytest.approx(2 * 10 / 46)  # "mill turns.", of "- The", "The mill" and itself
    assert measured.top_4_grams == pytest.approx(28 / 46)
    assert measured.newlines_per_word == pytest.approx(2 / 9) and measured.few_word_lines == pytest.approx(1 / 3)


def test_no_character_beyond_the_table_has_a_property() -> None:
    beyond = map(chr, range(module._NUM_CLASSED, sys.maxunicode + 1))
    assert not any(character.isspace() or character.isalpha() for character in beyond)
