"""One word's tokens are those of plain BPE, whatever its length and whatever the order of the merges."""

import itertools
import json
import random
import string
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ray_jobs.tokenizer import merges as compiled
from ray_jobs.tokenizer.merges import WINDOW, byte_alphabet, encode_word, from_vocabulary
from tests.tokenizer.vocabularies import random_merges, trained

Vocabulary = dict[str, int]
Pairs = list[tuple[str, str]]
CHARACTER = {byte: character for character, byte in byte_alphabet().items()}


def plain(word: bytes, vocabulary: Vocabulary, merges: Pairs) -> list[int]:
    """BPE as it is defined: the lowest merge anywhere, the leftmost of it, again and again."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    symbols = [CHARACTER[byte] for byte in word]
    while True:
        found = [(ranks[pair], i) for i, pair in enumerate(itertools.pairwise(symbols)) if pair in ranks]
        if not found:
            return [vocabulary[symbol] for symbol in symbols]
        _, i = min(found)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


def library(vocabulary: Vocabulary, merges: Pairs) -> Tokenizer:
    """Takes a whole text for one word."""
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def chain(length: int) -> tuple[Vocabulary, Pairs]:
    """Merges by which the end of a word decides on its beginning: of "abcabc…" whether ab, bc or ca are joined."""
    letters = [chr(0x61 + i) for i in range(20)]
    # t s, s r, r q …: the later letters' pairs come first, so each pair waits for what stands to its right.
    pairs = [(letters[i], letters[i + 1]) for i in reversed(range(len(letters) - 1))][:length]
    tokens = [*byte_alphabet(), *("".join(pair) for pair in pairs)]
    return {token: number for number, token in enumerate(tokens)}, pairs


@pytest.mark.parametrize("seed", range(8))
def test_random_merges_give_the_tokens_of_plain_bpe_and_of_the_library(seed: int) -> None:
    chance = random.Random(seed)
    letters = "ab" if seed % 2 else "abcdefgh"
    vocabulary, merges = random_merges(chance, letters, 60)
    ours, theirs = from_vocabulary(vocabulary, merges), library(vocabulary, merges)
    assert ours is not None
    for length in [*range(1, 40), *chance.choices(range(40, 400), k=20)]:
        word = "".join(chance.choices(letters, k=length))
        assert encode_word(word.encode(), ours) == theirs.encode(word).ids == plain(word.encode(), vocabulary, merges)


@pytest.mark.parametrize("window", [4, 8, 16])
def test_windows_of_a_few_bytes_give_the_tokens_of_the_whole_word(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain Python of the loops, whose constants can be changed: at this size nearly every window's end is in the
    middle of a token, and many windows have to begin again further left."""
    monkeypatch.setattr(compiled, "WINDOW", window)
    monkeypatch.setattr(compiled, "_TAIL", window // 4)
    for name in ("_group", "_join", "_merge_all", "_write", "_merge_windows"):
        monkeypatch.setattr(compiled, name, getattr(compiled, name).py_func)
    stood: list[bool] = []
    stand = compiled._stand.py_func
    monkeypatch.setattr(compiled, "_stand", lambda *given: stood.append(stand(*given)) or stood[-1])
    chance = random.Random(window)
    with np.errstate(over="ignore"):
        for number in range(100):
            letters = "ab" if number % 2 else "abcdef"
            vocabulary, merges = chain(19) if number % 10 == 0 else random_merges(chance, letters, 40)
            letters = "abcdefghijklmnopqrst" if number % 10 == 0 else letters
            ours = from_vocabulary(vocabulary, merges)
            assert ours is not None
            for _ in range(6):
                word = bytes(ord(letters[i % len(letters)]) for i in range(chance.randrange(100)))
                if chance.random() < 0.5:
                    word = bytes(map(ord, chance.choices(letters, k=100)))
                tokens = np.empty(len(word), dtype=np.int64)
                data = np.frombuffer(word, np.uint8)
                end = compiled.merge.py_func(data, 0, len(word), ours, compiled.new_room(2 * window), tokens, 0)
                assert tokens[:end].tolist() == plain(word, vocabulary, merges)
    assert stood.count(False) > 10 and stood.count(True) > 100


@given(data=st.binary(max_size=4 * WINDOW))
def test_any_bytes_give_the_tokens_of_plain_bpe(data: bytes) -> None:
    vocabulary, merges = parts(trained("gpt2"))
    ours = from_vocabulary(vocabulary, merges)
    assert ours is not None
    assert encode_word(data, ours) == plain(data, vocabulary, merges)


def parts(tokenizer: Tokenizer) -> tuple[Vocabulary, Pairs]:
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


@pytest.mark.parametrize("word", [b"x", b"ab", b"that they'll turn the wheel ", "日本語テキスト".encode(), b"\x00"])
def test_the_time_of_a_word_grows_with_its_length_only(word: bytes) -> None:
    ours = from_vocabulary(*parts(trained("gpt2")))
    assert ours is not None
    encode_word(word * 2 * WINDOW, ours)
    seconds = []
    for size in (200_000, 2_000_000):
        began = time.process_time()
        encode_word(word * (size // len(word)), ours)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 30 * seconds[0] and seconds[1] < 3  # quadratic: 100 times


def test_long_words_are_the_library_s() -> None:
    tokenizer, chance = trained("gpt2"), random.Random(2)
    vocabulary, merges = parts(tokenizer)
    ours, theirs = from_vocabulary(vocabulary, merges), library(vocabulary, merges)
    assert ours is not None
    long = {
        "run": "x" * 100_001,
        "numbers": "".join(chance.choices("0123456789", k=100_000)),
        "base64": "".join(chance.choices(string.ascii_letters + string.digits + "+/", k=100_000)),
        "ideographs": "".join(chance.choices("日本語テキストü", k=50_000)),
        "prose": "".join(chance.choices([" the", "mill", "'s", "wheel", ",\n", " they", "'ll", " turn"], k=20_000)),
    }
    for name, word in long.items():
        assert encode_word(word.encode(), ours) == theirs.encode(word).ids, name


def test_of_two_merges_of_the_same_tokens_the_later_counts_as_in_the_library() -> None:
    vocabulary = {token: number for number, token in enumerate([*byte_alphabet(), "ab", "bc"])}
    merges = [("a", "b"), ("b", "c"), ("a", "b")]
    ours, theirs = from_vocabulary(vocabulary, merges), library(vocabulary, merges)
    assert ours is not None
    assert encode_word(b"abcab", ours) == theirs.encode("abcab").ids == [vocabulary[t] for t in ("a", "bc", "ab")]


def test_without_merges_every_byte_is_a_token() -> None:
    vocabulary = {character: 255 - byte for character, byte in byte_alphabet().items()}
    ours = from_vocabulary(vocabulary, [])
    assert ours is not None
    assert encode_word(bytes(range(256)) * 3, ours) == [255 - byte for byte in range(256)] * 3


def test_vocabularies_that_the_loops_cannot_hold_are_none_of_theirs() -> None:
    vocabulary = dict(byte_alphabet())
    assert from_vocabulary({**vocabulary, "ab": 1 << compiled.TOKEN_BITS}, [("a", "b")]) is None
    assert from_vocabulary({token: number for token, number in vocabulary.items() if token != "a"}, []) is None
    assert from_vocabulary({}, []) is None
