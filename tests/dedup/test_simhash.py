import itertools
import math
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.dedup import minhash, simhash
from ray_jobs.files.columns import text_buffers
from tests.dedup import reference

MASK = (1 << 64) - 1


def normalise(texts: list[bytes]) -> tuple[minhash.Bytes, minhash.Offsets]:
    return minhash.normalise(*text_buffers(pa.array(texts, pa.large_binary())))


def mixed(value: int) -> int:
    """splitmix64's output function."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def hashed_shingles(text: bytes, width: int) -> list[int]:
    """The 32-bit hash of each shingle, as often as it occurs: every one alone, as the set of a text of its words."""
    words = reference.words(text)
    used = min(width, len(words))
    windows = [words[i : i + used] for i in range(len(words) - used + 1)] if words else []
    alone = [" ".join(window).encode("utf-8", "surrogateescape") for window in windows]
    return [int(value) for one in alone for value in minhash.shingle_sets(*normalise([one]), used)[0]]


def plain_simhash(shingles: list[int]) -> int:
    hashes = [mixed(shingle + 0x9E3779B97F4A7C15 & MASK) for shingle in shingles]
    return sum(1 << bit for bit in range(64) if 2 * sum(value >> bit & 1 for value in hashes) > len(hashes))


def plain_pairs(values: list[int], max_bits: int) -> list[tuple[int, int]]:
    """All pairs looked at; copies stand with their first only."""
    found = []
    for later, earlier in itertools.product(range(len(values)), repeat=2):
        if earlier < later and (values[later] ^ values[earlier]).bit_count() <= max_bits:
            is_first = [values.index(values[document]) == document for document in (earlier, later)]
            if all(is_first) or values.index(values[later]) == earlier:
                found.append((earlier, later))
    return found


texts = st.lists(st.sampled_from([b"a ", b"b ", b"cd ", b"\n", b"\xe6\x97\xa5", b"\xff"]), max_size=40).map(b"".join)


def test_splitmix_gives_its_published_output() -> None:
    # The first from the state 0, as Vigna's reference code and java.util.SplittableRandom give it.
    assert mixed(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    assert int(simhash._mixed(np.uint64(0x9E3779B97F4A7C15))) == 0xE220A8397B1DCDAF


@given(st.lists(texts, max_size=6), st.integers(1, 5))
def test_simhashes_are_the_majority_of_their_shingles_bits(documents: list[bytes], width: int) -> None:
    found = simhash.simhashes(*normalise(documents), width).tolist()
    assert found == [plain_simhash(hashed_shingles(text, width)) for text in documents]


def test_a_document_without_a_word_is_zero_and_near_duplicates_are_near() -> None:
    words = [f"word{i}" for i in range(400)]
    changed = [*words[:200], "other", *words[201:]]
    other = [f"else{i}" for i in range(400)]
    empty, one, near, far = simhash.simhashes(
        *normalise([b"", *(" ".join(w).encode() for w in (words, changed, other))]), 5
    )
    assert empty == 0
    assert simhash.distance(one, near) <= 8
    assert simhash.distance(one, far) > 16


def test_bits_differ_with_a_chance_of_the_angle_over_pi() -> None:
    """Charikar's estimate, over documents that share a given part of their shingles."""
    source = random.Random(3)
    shared, num_pairs, num_words = 0.7, 300, 300
    angle = math.acos(shared)
    total = 0
    for _ in range(num_pairs):
        names = [str(source.getrandbits(60)) for _ in range(2 * num_words)]
        common = names[: int(shared * num_words)]
        rest = num_words - len(common)
        two = [common + names[-rest:], common + names[-2 * rest : -rest]]
        one, other = simhash.simhashes(*normalise([" ".join(words).encode() for words in two]), 1)
        total += int(simhash.distance(one, other))
    share, error = total / (64 * num_pairs), math.sqrt(0.25 * 0.75 / (64 * num_pairs))
    assert abs(share - angle / math.pi) < 4 * error


@pytest.mark.parametrize(
    ("max_bits", "num_blocks", "bands"), [(3, 4, 4), (3, 6, 20), (0, 1, 1), (7, 10, 120), (1, 64, 64)]
)
def test_keys_are_all_choices_of_blocks(max_bits: int, num_blocks: int, bands: int) -> None:
    masks = simhash.band_masks(max_bits, num_blocks)
    assert len(masks) == bands == len(set(masks.tolist()))
    assert sum(simhash.blocks(num_blocks).tolist()) == MASK


@given(st.integers(0, MASK), st.integers(0, 6), st.integers(1, 4), st.randoms(use_true_random=False))
def test_numbers_within_the_bits_share_a_key(value: int, max_bits: int, extra: int, source: random.Random) -> None:
    other = value
    for bit in source.sample(range(64), max_bits):
        other ^= 1 << bit
    keys = simhash.band_keys_of(np.array([value, other], dtype=np.uint64), max_bits, max_bits + extra)
    assert (keys[:, 0] == keys[:, 1]).any()
    assert len(set(keys[:, 0].tolist())) == len(keys)


@pytest.mark.parametrize("num_blocks", [3, 65])
def test_blocks_that_cannot_find_the_pairs_are_refused(num_blocks: int) -> None:
    with pytest.raises(ValueError, match="need 4 to 64 blocks"):
        simhash.band_masks(3, num_blocks)


@given(st.lists(st.integers(0, 3), max_size=14), st.integers(0, 4), st.randoms(use_true_random=False))
def test_pairs_are_those_of_all_pairs_compared(seeds: list[int], max_bits: int, source: random.Random) -> None:
    centres = [source.getrandbits(64) for _ in range(4)]
    values = [centres[seed] ^ sum(1 << bit for bit in source.sample(range(64), source.randint(0, 4))) for seed in seeds]
    found = simhash.pairs_within(np.array(values, dtype=np.uint64), max_bits)
    assert [tuple(pair) for pair in found.tolist()] == plain_pairs(values, max_bits)


def test_copies_make_one_pair_each() -> None:
    assert len(simhash.pairs_within(np.full(10_000, 7, dtype=np.uint64), 3)) == 9_999
