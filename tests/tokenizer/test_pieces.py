"""A text in pieces becomes the same tokens as the whole text."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.tokenizer import bpe, encode
from ray_jobs.tokenizer.encode import Encoder
from ray_jobs.tokenizer.pieces import PIECE_CHARACTERS, pieces

SAMPLE = ["it's the mill's wheel,\nthat they'll turn. \n\n  12345 times!\n日本語。\nテキスト ünï\r\n\tend"] * 30
MODELS = {name: bpe.train(SAMPLE, 400, name, 2) for name in bpe.PRE_TOKENIZERS}
ENCODERS = {name: Encoder(bpe.files(model)["tokenizer.json"]) for name, model in MODELS.items()}
# What words, their ends and white space are made of; \x1c is white space to Python alone.
PARTS = [*"aZé日字_1٣'.!。,-", " ", "  ", "\n", "\n\n", "\r\n", "\t", "\x0b", "\x1c", "\x85", "\u00a0", "\u2028"]
PARTS += ["\u3000", "\u200b", "'s", "'ll", "'S", "ſ", "word", "e\u0301", "😀", "\x00", "\ufffd", "<|endoftext|>"]
PARTS += [" a", "a ", "a\n", "\na"]
fuzz = st.lists(st.sampled_from(PARTS), max_size=60).map("".join)


@pytest.mark.parametrize("name", bpe.PRE_TOKENIZERS)
@given(text=fuzz, size=st.integers(1, 8))
def test_pieces_give_the_tokens_of_the_whole(name: str, text: str, size: int) -> None:
    encoder = ENCODERS[name]
    cut = list(pieces(text, size))
    assert "".join(cut) == text
    assert [token for piece in cut for token in encoder.encode(piece)] == encoder.encode(text)


@pytest.mark.parametrize("name", bpe.PRE_TOKENIZERS)
def test_pieces_give_the_tokens_of_the_whole_in_many_random_texts(name: str) -> None:
    chance = random.Random(5)
    num_cut = 0
    for _ in range(3_000):
        text = "".join(chance.choices(PARTS, k=80))
        cut = list(pieces(text, 4))
        num_cut += len(cut) - 1
        assert [token for piece in cut for token in ENCODERS[name].encode(piece)] == ENCODERS[name].encode(text), text
    assert num_cut > 5_000


def test_long_documents_among_short_ones_are_encoded_as_ever(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    long = (data_dir / "corpora" / "tinyshakespeare.txt").read_text()
    assert len(long) > 3 * PIECE_CHARACTERS and len(list(pieces(long))) > 3
    texts = ["one fox", long, "", "日本語" * 10]
    tokens, lengths = ENCODERS["llama3"].encode_documents(texts)
    monkeypatch.setattr(encode, "PIECE_CHARACTERS", len(long))
    whole, whole_lengths = ENCODERS["llama3"].encode_documents(texts)
    assert np.array_equal(tokens, whole) and lengths.tolist() == whole_lengths.tolist()
    assert tokens.dtype == whole.dtype


def test_tokenizers_of_others_are_given_whole_texts() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    assert {name: bpe.pre_tokenizer_of(model) for name, model in MODELS.items()} == {name: name for name in MODELS}
    other = Tokenizer(models.BPE())
    other.pre_tokenizer = pre_tokenizers.Metaspace()
    assert bpe.pre_tokenizer_of(other) is None


def test_a_text_without_a_safe_place_is_one_piece() -> None:
    assert list(pieces("x" * 100, 10)) == ["x" * 100]
    assert list(pieces("", 10)) == [""]
