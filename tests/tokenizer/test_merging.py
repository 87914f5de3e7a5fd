"""The fast trainer learns what the readable one does, and what Hugging Face's does, merge by merge."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from ray_jobs.tokenizer import merging, reference_bpe
from ray_jobs.tokenizer.merges import byte_alphabet
from ray_jobs.tokenizer.merging import Words

BYTES = [bytes([byte]) for byte in range(256)]
corpora = st.dictionaries(
    st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=14).map(b"".join), st.integers(1, 6), max_size=9
)


def words_of(counts: dict[bytes, int]) -> Words:
    data = np.frombuffer(b"".join(counts), dtype=np.uint8)
    return Words(
        data, np.cumsum([len(word) for word in counts], dtype=np.int64), np.array([*counts.values()], np.int64)
    )


def merges_of_hugging_face(counts: dict[str, int], alphabet: list[str], vocab_size: int) -> list[tuple[str, str]]:
    """Of words without white space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, min_frequency=1, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator((" ".join([word] * count) for word, count in counts.items()), trainer)
    return [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]


@given(corpora, st.integers(256, 290), st.integers(1, 3))
def test_fast_training_learns_the_reference_s_merges(counts: dict[bytes, int], vocab_size: int, least: int) -> None:
    wanted = reference_bpe.train(counts, BYTES, vocab_size, least)
    learned = merging.train(words_of(counts), BYTES, vocab_size, least)
    assert list(learned.merges.items()) == list(wanted.merges.items())
    assert learned.tokens == wanted.tokens


def test_three_trainers_agree_on_thousands_of_small_corpora() -> None:
    chance = random.Random(1)
    for _ in range(1500):
        letters = "abcde"[: chance.choice([1, 2, 3, 5])]
        words = ["".join(chance.choices(letters, k=chance.randint(1, chance.choice([4, 14])))) for _ in range(12)]
        counts = {word: chance.randint(1, 5) for word in words}
        encoded = {word.encode(): count for word, count in counts.items()}
        wanted = reference_bpe.train(encoded, [letter.encode() for letter in letters], 45)
        learned = merging.train(words_of(encoded), [letter.encode() for letter in letters], 45)
        assert list(learned.merges.items()) == list(wanted.merges.items())
        names = [(wanted.tokens[a].decode(), wanted.tokens[b].decode()) for a, b in wanted.merges]
        assert names == merges_of_hugging_face(counts, list(letters), 45)
        assert len(set(wanted.tokens)) == len(wanted.tokens)  # no two merges make the same bytes


def real_words(data_dir: Path, name: str, num_characters: int) -> Counter[bytes]:
    """Counted by Hugging Face's splitter, in whose alphabet every byte is a letter."""
    text = (data_dir / "corpora" / name).read_text()[:num_characters]
    byte_of = byte_alphabet()
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(text)
    return Counter(bytes(byte_of[letter] for letter in word) for word, _ in cut)


def test_reference_and_fast_training_agree_on_real_text(data_dir: Path) -> None:
    counts = real_words(data_dir, "tinyshakespeare.txt", 60_000)
    wanted = reference_bpe.train(counts, BYTES, 700, 2)
    learned = merging.train(words_of(counts), BYTES, 700, 2)
    assert len(wanted.merges) == 444
    assert list(learned.merges.items()) == list(wanted.merges.items())


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_the_words_is_of_no_account(data_dir: Path, seed: int) -> None:
    counts = real_words(data_dir, "wikitext2-valid.txt", 300_000)
    shuffled = list(counts.items())
    random.Random(seed).shuffle(shuffled)
    one, other = (merging.train(words_of(dict(words)), BYTES, 4000, 2) for words in (counts.items(), shuffled))
    assert one.tokens == other.tokens and list(one.merges.items()) == list(other.merges.items())


def test_a_million_equal_bytes_are_joined_from_the_left() -> None:
    learned = merging.train(words_of({b"a" * 1_000_001: 1}), [b"a"], 15)
    assert [len(token) for token in learned.tokens] == [2**power for power in range(15)]


def test_nothing_is_learned_from_nothing() -> None:
    assert merging.train(words_of({}), BYTES, 300).tokens == tuple(BYTES)
    assert merging.train(words_of({b"a": 5}), BYTES, 300).merges == {}


def test_more_words_than_are_numbered_in_32_bits_are_refused() -> None:
    data = np.broadcast_to(np.uint8(0), 1 << 30)  # three places for every byte are more than 2^31
    with pytest.raises(ValueError, match=r"1,073,741,824 bytes, more than 715,827,882: lower tokenizer\.sample_bytes"):
        merging.train(Words(data, np.array([len(data)]), np.ones(1, np.int64)), BYTES, 300)


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=20).map(b"".join))
def test_the_reference_s_tokens_say_what_was_encoded(word: bytes) -> None:
    vocabulary = reference_bpe.train({b"abcabcab": 3, b"cabba": 2, b"aaab": 1}, [b"a", b"b", b"c"], 12)
    assert reference_bpe.decode(reference_bpe.encode(word, vocabulary), vocabulary) == word


def test_the_reference_encodes_its_own_words_as_training_left_them() -> None:
    vocabulary = reference_bpe.train({b"low": 5, b"lower": 2, b"newest": 6, b"widest": 3}, BYTES, 256 + 10)
    # Sennrich et al. (2016), figure 1 learns es, est and lo first; here ties go to the smaller pair.
    assert vocabulary.tokens[256:259] == (b"es", b"est", b"lo")
    assert [vocabulary.tokens[token] for token in reference_bpe.encode(b"newest", vocabulary)] == [b"newest"]
