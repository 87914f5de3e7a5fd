"""The cache of words changes nothing but the time that encoding takes."""

import json
import random

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer

from ray_jobs.files.columns import text_buffers
from ray_jobs.tokenizer import compiled, words
from ray_jobs.tokenizer.compiled import CompiledBpe
from tests.tokenizer.vocabularies import random_text, trained

CHANCE = random.Random(11)
TEXTS = [random_text(CHANCE, CHANCE.randrange(400)) for _ in range(300)]
TEXTS += [" ".join("x" * size for size in range(1, 200)) for _ in range(3)]
COLUMN = pa.array(TEXTS, pa.large_string())


def encoder() -> CompiledBpe:
    made = compiled.compiled(trained("llama3"))
    assert made is not None
    return made


def tokens_by(encoder: CompiledBpe) -> tuple[list[int], list[int]]:
    data, offsets = text_buffers(COLUMN)
    tokens, lengths = encoder.encode(data, offsets, 0, "uint16")
    return tokens.tolist(), lengths.tolist()


@pytest.mark.parametrize(
    ("num_slots", "num_tokens", "num_bytes"), [(4, 200, 128), (64, 1 << 20, 300), (1024, 999, 1024)]
)
def test_a_cache_that_is_emptied_again_and_again_gives_the_same_tokens(
    num_slots: int, num_tokens: int, num_bytes: int
) -> None:
    wanted = tokens_by(encoder())
    other = encoder()
    other._cache = words.new_cache(num_slots, num_tokens, num_bytes)
    for _ in range(2):
        assert tokens_by(other) == wanted
        assert 0 < 2 * other._cache.used[0] <= num_slots
        assert other._cache.used[1] <= num_tokens and other._cache.used[2] <= num_bytes


def test_words_are_told_apart_by_their_bytes_where_hashes_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain Python of the loops, with a hash that is the same for all."""
    for name in ("_key", "_stored", "_copy", "_same", "_encode_word", "_slot"):
        monkeypatch.setattr(words, name, getattr(words, name).py_func)
    monkeypatch.setattr(words, "_mixed", lambda low, high: np.uint64(5))
    one = encoder()
    texts = [
        "abcdefghijklmnopq",
        "abcdefghijklmnopr",
        "bbcdefghijklmnopq",
        "abc",
        "abd",
        "ab",
        "a\x00",
        "a",
        "\x00\x00",
    ]
    for text in [*texts, *reversed(texts)]:
        data, tokens = np.frombuffer(text.encode(), np.uint8), np.empty(99, np.uint16)
        end = words._encode_word(data, 0, len(data), one._merges, one._room, one._cache, tokens, 0)
        assert trained("llama3").decode(tokens[:end].tolist()) == text
    assert one._cache.used[0] == len(texts)


def test_what_stands_around_a_document_makes_no_difference() -> None:
    whole = encoder()
    data, offsets = text_buffers(COLUMN)
    tokens, lengths = whole.encode(data, offsets, 0, "uint16")
    ends = np.cumsum(lengths)
    for i in range(0, len(TEXTS), 7):
        alone, (length,) = whole.encode(data, offsets[i : i + 2], 0, "uint16")
        assert length == lengths[i]
        assert alone.tolist() == tokens[ends[i] - length : ends[i]].tolist()


def test_blocks_of_a_few_bytes_give_the_tokens_of_one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tokens_by(encoder())
    for size in (1, 100, 5_000):
        monkeypatch.setattr(compiled, "BLOCK_BYTES", size)
        assert tokens_by(encoder()) == wanted


def test_two_runs_give_the_same_tokens_and_what_was_encoded_before_makes_no_difference() -> None:
    one, other = encoder(), encoder()
    data, offsets = text_buffers(pa.array(["other words entirely"] * 10, pa.large_string()))
    other.encode(data, offsets, 0, "uint16")
    assert tokens_by(one) == tokens_by(other) == tokens_by(one)


def test_large_token_numbers_are_kept_whole() -> None:
    """uint32 tokens up to 2**20, as a vocabulary of a million has them."""
    described = json.loads(trained("gpt2").to_str())
    highest = (1 << 20) - 2
    vocabulary = described["model"]["vocab"]
    described["model"]["vocab"] = {token: highest - number for token, number in vocabulary.items()}
    described["added_tokens"] = []
    far = Tokenizer.from_str(json.dumps(described))
    made = compiled.compiled(far)
    assert made is not None
    for text in TEXTS[:50]:
        data, offsets = text_buffers(pa.array([text], pa.large_string()))
        for _ in range(2):
            tokens, _ = made.encode(data, offsets, 7, "uint32")
            assert tokens.tolist() == [*far.encode(text).ids, 7]
