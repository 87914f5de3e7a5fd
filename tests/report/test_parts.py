"""Figures, differences and pieces of text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from ray_jobs.report.duplicates import differences, words_of
from ray_jobs.report.figures import compact, data_size, dollars, duration, excerpt, figure, masked, printable, share
from ray_jobs.report.nodes import spread
from ray_jobs.report.tokens import cut, token_sizes


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (compact(0), "0"),
        (compact(812), "812"),
        (compact(1803), "1,803"),
        (compact(281_236), "281k"),
        (compact(1_120_000), "1.12M"),
        (compact(0.00412), "0.00412"),
        (compact(math.inf), "inf"),
        (data_size(999), "999 bytes"),
        (data_size(4.2e6), "4.2 MB"),
        (duration(0.42), "0.4 s"),
        (duration(59), "59 s"),
        (duration(185), "3 min 5 s"),
        (duration(120), "2 min"),
        (duration(7800), "2 h 10 min"),
        (duration(86400 * 3.5), "3.5 days"),
        (share(1, 3), "33.3%"),
        (share(0, 3), "0%"),
        (share(1, 5000), "< 0.1%"),
        (share(1, 0), "–"),
        (dollars(0), "$0.00"),
        (dollars(12.345), "$12.35"),
        (dollars(0.0004), "$0.0004"),
        (dollars(0.000004), "< $0.0001"),
        (figure(1_837_797_212_160), "1.84T"),
        (figure(1.5), "1.5"),
        (figure(True), "True"),
    ],
)
def test_figures_are_short_and_exact(shown: str, expected: str) -> None:
    assert shown == expected


def test_an_excerpt_ends_at_a_word() -> None:
    assert excerpt("  one\n two  three four", 12) == "one two …"
    assert excerpt("short", 12) == "short"
    assert len(excerpt("x" * 10_000_000, 50)) <= 52


def test_printable_keeps_text_and_drops_what_html_forbids() -> None:
    assert printable("a\tb\nc é 漢 😀") == "a\tb\nc é 漢 😀"
    assert printable("\x00\u202e\ud800\uffff") == "\ufffd" * 4


@pytest.mark.parametrize(
    "personal",
    [
        "a.b+c@mail.example.co.uk",
        "+49 30 1234567",
        "555-010-0199",
        "078-05-1120",
        "203.0.113.7",
        "2001:db8:0:1:2:3:4:5",
        "4111 1111 1111 1111",
        "GB29 NWBK 6016 1331 9268 19",
        "MT84MALT011000012345MTLCAST001S",
        "ghp_" + "a1B2" * 9,
        "AKIA" + "Q3EG" * 4,
        "-----BEGIN RSA PRIVATE KEY-----\n" + "a1B2" * 16,
    ],
)
def test_what_looks_personal_is_masked(personal: str) -> None:
    assert masked(f"see {personal} for") == "see [masked] for"


def test_dates_versions_and_short_numbers_are_not_masked() -> None:
    text = "on 2024-05-06 release 1.2.3 of 12 345 units at 10:20:30"
    assert masked(text) == text


def test_spread_is_even_and_stable() -> None:
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(2), 3) == [0, 1]
    assert spread(range(10), 0) == spread(range(10), -1) == []


def test_differences_begin_shortly_before_the_first_one() -> None:
    same = [f"w{n}" for n in range(100)]
    (kept, dropped), begin = differences([*same, "old", "end"], [*same, "new", "words", "end"])
    assert begin == (88, 88)
    assert [words for differs, words in kept if differs] == ["old"]
    assert [words for differs, words in dropped if differs] == ["new words"]
    assert differences(["a"], ["a"]) == (([(False, "a")], [(False, "a")]), (0, 0))
    assert differences([], []) == (([], []), (0, 0))


def test_a_page_of_one_word_does_not_fill_the_report() -> None:
    assert sum(map(len, words_of("x" * 10_000_000 + " y"))) <= 100


def sentence_pieces() -> Tokenizer:
    """A tokenizer in the form of SentencePiece's, with few pieces."""
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "é", "\u2581a", "n\u2581a"]
    scored = [(piece, -20.0 if piece[0] == "<" else -float(place)) for place, piece in enumerate(["<unk>", *pieces])]
    made = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    made.add_special_tokens(["<unk>"])
    return made


SENTENCE_PIECES = sentence_pieces()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["the other words of the text"], trainer)
    return made


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_pieces_are_the_whole_text_in_order(tokenizer: Tokenizer, text: str) -> None:
    pieces = cut(tokenizer, text)
    assert "".join(piece.text for piece in pieces) == text.replace("\n", "⏎")
    assert [int(token) for piece in pieces for token in piece.ids.split()] == tokenizer.encode(text).ids


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_sentence_pieces_are_the_whole_text_in_order(text: str) -> None:
    pieces = cut(SENTENCE_PIECES, text)
    assert "".join(piece.text for piece in pieces) == text.replace("\n", "⏎")
    assert [int(token) for piece in pieces for token in piece.ids.split()] == SENTENCE_PIECES.encode(text).ids


def test_sizes_of_tokens_are_the_bytes_that_they_stand_for(tokenizer: Tokenizer) -> None:
    sizes = sorted(token_sizes(SENTENCE_PIECES))
    assert sizes == [1] * 257 + [2, 2, 3]  # the bytes, the blank, "é" and " a", "an "
    assert token_sizes(tokenizer).count(1) == 256


def test_tokens_within_one_character_are_one_piece(tokenizer: Tokenizer) -> None:
    (piece,) = cut(tokenizer, "😀")
    assert piece.text == "😀" and len(piece.ids.split()) == 4


def test_text_that_spells_a_special_token_is_cut_as_text(tokenizer: Tokenizer) -> None:
    made = Tokenizer.from_str(tokenizer.to_str())
    made.add_special_tokens(["<|endoftext|>"])
    number = made.token_to_id("<|endoftext|>")
    assert made.encode("<|endoftext|>").ids == [number]
    pieces = cut(made, "<|endoftext|>")
    assert len(pieces) > 1 and str(number) not in {piece.ids for piece in pieces}
