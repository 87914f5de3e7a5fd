"""The pieces of an answer are its text, and none is a part of a character or of a stop text."""

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from ray_jobs.inference.loading import load
from ray_jobs.serve.detokenizer import Detokenizer
from ray_jobs.serve.token_text import TokenTexts

BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}


def byte_level(tokens: list[int]) -> str:
    """A byte-level decoder where a token is a byte."""
    return bytes(tokens).decode(errors="replace")


def byte_fallback() -> Any:
    """As SentencePiece's: a space in front is left out, and a run of bytes that is no text is U+FFFD for each."""
    words = ["<unk>", "▁the", "▁mill", "s", "▁"]
    pieces = [(word, 0.0) for word in [*words, *BYTES]]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def pieces_of(tokens: list[int], decode: Any, prompt: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    detokenizer = Detokenizer(decode, prompt, stop)
    found = []
    for token in tokens:
        found.append(detokenizer.add(token))
        if detokenizer.stopped:
            break
    return [*found, detokenizer.finish()]


TEXTS = st.text(st.sampled_from("ab €日🙂é "), max_size=120)


@given(TEXTS)
def test_pieces_are_whole_characters_and_together_the_text(text: str) -> None:
    pieces = pieces_of(list(text.encode()), byte_level, list(b"prompt"))
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


@given(st.binary(max_size=150))
def test_bytes_that_are_no_text_are_not_held_for_ever(written: bytes) -> None:
    text = written.decode(errors="replace")
    pieces = pieces_of(list(written), byte_level, [])
    assert "".join(pieces) == text


@given(TEXTS)
def test_a_space_that_only_a_beginning_leaves_out_is_kept(text: str) -> None:
    tokenizer = byte_fallback()
    tokens = [1, 2]
    for character in text:
        tokens += [4] if character == " " else [5 + byte for byte in character.encode()]
    pieces = pieces_of(tokens, lambda ids: str(tokenizer.decode(ids)), [1, 2, 3])
    assert "".join(pieces) == " the mill" + text
    assert not any("\ufffd" in piece for piece in pieces)


@given(TEXTS, st.lists(st.text(st.sampled_from("ab €é"), min_size=1, max_size=4), min_size=1, max_size=3))
def test_text_ends_before_the_first_stop_text_and_never_shows_its_beginning(text: str, stop: list[str]) -> None:
    places = [place for place in map(text.find, stop) if place >= 0]
    # One stop text within another: the first that is complete ends the answer.
    ends = min((text.find(one) + len(one) for one in stop if one in text), default=None)
    detokenizer, shown = Detokenizer(byte_level, [], stop), ""
    for count, byte in enumerate(text.encode(), start=1):
        shown += detokenizer.add(byte)
        assert not any(one in shown for one in stop)
        if detokenizer.stopped:
            break
        so_far = text.encode()[:count].decode(errors="ignore")
        begun = [length for one in stop for length in range(len(one)) if so_far.endswith(one[:length])]
        assert len(shown) == len(so_far) - max(begun)
    shown += detokenizer.finish()
    if ends is None:
        assert shown == text and not detokenizer.stopped
    else:
        assert detokenizer.stopped
        assert shown == text[: min(text[:ends].find(one) for one in stop if one in text[:ends])]
        assert len(shown) >= min(places) and detokenizer.length == len(shown)


def test_random_tokens_of_a_real_tokenizer_are_what_it_decodes(tiny_model: Path) -> None:
    tokenizer: Any = load(str(tiny_model), device="cpu", dtype="fp32").tokenizer
    chance = random.Random(0)
    for _ in range(50):
        tokens = [chance.randrange(len(tokenizer)) for _ in range(100)]
        decoded = tokenizer.decode(tokens, skip_special_tokens=True)
        assert (
            "".join(pieces_of(tokens, lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)), [])) == decoded
        )


@pytest.mark.parametrize("text", ["größer als 10 €", "日本語 🙂", " the mill"])
def test_the_bytes_of_tokens_are_those_of_their_text(tiny_model: Path, text: str) -> None:
    tokenizer: Any = load(str(tiny_model), device="cpu", dtype="fp32").tokenizer
    texts = TokenTexts(tokenizer)
    tokens = tokenizer.encode(text)
    assert b"".join(map(texts.bytes_of, tokens)).decode() == text
    fallback = byte_fallback()
    assert TokenTexts(fallback).bytes_of(5 + 0xE2) == b"\xe2" and TokenTexts(fallback).bytes_of(1) == b" the"
    assert TokenTexts(fallback).text_of(5 + 0xE2) == "bytes:\\xe2"
