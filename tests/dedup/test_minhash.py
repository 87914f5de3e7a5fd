import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from datasketch import MinHash
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.dedup import minhash
from ray_jobs.dedup.bands import plan_bands
from ray_jobs.files.columns import text_buffers
from tests.dedup import reference

NUM_PERMUTATIONS = 112
ODD_TEXTS = [
    b"",
    b" ",
    b"\n\t \r\n",
    b"word",
    b"One two three four",
    b"one two three four five",
    b"  leading and\ttrailing \n",
    "Ünïcödé stays; ASCII folds".encode(),
    "日本語のテキスト と English 混在".encode(),
    "𠀀𪛖x𠀀 ｶﾞ, ꀀꒌ and a cut ".encode() + b"\xf0\xa0\x80 one",
    "ไทย ລາວ မြန်မာ ខ្មែរ".encode(),
    b"nul\x00inside \x00 alone",
    b"\x00",
    b"a nul at its end \x00",
    b"\x00a is not a, \x00",
    b"\xed\xa0\x80 lone surrogate \xed\xbf\xbf",
    b"cut character \xe6\x97",
    "Georgian ႠႡႱ and Myanmar က႟က".encode(),
    b"\xe3",
    b"\xff\xfe invalid \x80 bytes",
]


def column(texts: Sequence[bytes]) -> pa.Array:
    return pa.array(texts, pa.large_binary())


def normalise(texts: Sequence[bytes]) -> tuple[minhash.Bytes, minhash.Offsets]:
    return minhash.normalise(*text_buffers(column(texts)))


def cut(values: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    return np.split(values, offsets[1:-1])


def signatures(texts: Sequence[bytes], width: int = 5) -> np.ndarray:
    return minhash.signatures(*normalise(texts), width, NUM_PERMUTATIONS, seed=1)


# Bytes that decide where words end, often enough to meet.
texts = st.lists(
    st.lists(
        st.sampled_from(
            [b" ", b"\n", b"\x0b", b"a", b"Bc", b"\x00", b"\xe6\x97\xa5", b"\xe0\xb8\x81", b"\xe1\x9e\x80", b"\xc3\xa9"]
        )
        | st.binary(max_size=3),
        max_size=40,
    ).map(b"".join),
    min_size=1,
    max_size=5,
)


@settings(deadline=None)  # the first call compiles
@given(texts)
def test_normalisation_equals_lower_and_split(documents: list[bytes]) -> None:
    data, offsets = normalise(documents)
    assert [part.tobytes() for part in cut(data, offsets)] == [reference.normalised(text) for text in documents]


@pytest.mark.parametrize("width", [1, 3, 5])
def test_shingle_sets_have_the_sizes_and_overlaps_of_sets_of_word_tuples(width: int) -> None:
    data, offsets = minhash.shingle_sets(*normalise(ODD_TEXTS), width)
    found = [set(part.tolist()) for part in cut(data, offsets)]
    wanted = [reference.shingles(text, width) for text in ODD_TEXTS]
    assert [len(one) for one in found] == [len(one) for one in wanted]
    for i in range(len(found)):
        for j in range(i):
            assert len(found[i] & found[j]) == len(wanted[i] & wanted[j])


@settings(deadline=None)  # the first call compiles
@given(texts, st.integers(1, 3))
def test_any_bytes_have_the_shingles_of_the_definition(documents: list[bytes], width: int) -> None:
    _, offsets = minhash.shingle_sets(*normalise(documents), width)
    assert np.diff(offsets).tolist() == [len(reference.shingles(text, width)) for text in documents]


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.text(alphabet="ab 日ก\n", max_size=60).map(str.encode), min_size=2, max_size=2))
def test_jaccard_of_hashed_sets_is_that_of_word_tuples(pair: list[bytes]) -> None:
    data, offsets = minhash.shingle_sets(*normalise(pair), 2)
    one, other = (set(part.tolist()) for part in cut(data, offsets))
    assert reference.jaccard(one, other) == reference.jaccard(*(reference.shingles(text, 2) for text in pair))


def test_a_signature_is_the_least_value_of_each_permutation() -> None:
    data, offsets = minhash.shingle_sets(*normalise(ODD_TEXTS), 5)
    multipliers, increments = minhash.permutations(NUM_PERMUTATIONS, seed=1)
    assert (multipliers % 2 == 1).all()
    signed = signatures(ODD_TEXTS)
    for document, shingles in enumerate(cut(data, offsets)):
        values = shingles[:, None].astype(np.uint64) * multipliers + increments
        wanted = (values % (1 << 32)).min(axis=0, initial=(1 << 32) - 1)
        assert np.array_equal(signed[document], wanted)


def test_short_documents_are_one_shingle_of_all_their_words() -> None:
    signed = signatures(
        [b"four words are here", b"Four  words are HERE", b"four words are there", b"here are words four"]
    )
    assert np.array_equal(signed[0], signed[1])
    assert (signed[0] == signed[2]).sum() == 0 and (signed[0] == signed[3]).sum() == 0


def test_exact_hash_is_xxh3_of_the_normalised_text() -> None:
    data, offsets = normalise(ODD_TEXTS)
    hashes = minhash.exact_hashes(data, offsets)
    assert [row.tobytes() for row in hashes] == [
        xxhash.xxh3_128_digest(reference.normalised(text)) for text in ODD_TEXTS
    ]


def test_slices_chunks_and_empty_columns_give_the_same_as_a_whole_column() -> None:
    whole = signatures(ODD_TEXTS)
    chunked = pa.chunked_array([column([b"x", *ODD_TEXTS])[1:4], column(ODD_TEXTS[3:])])
    assert np.array_equal(minhash.signatures(*minhash.normalise(*text_buffers(chunked)), 5, NUM_PERMUTATIONS, 1), whole)
    for empty in (column([]), pa.chunked_array([], pa.large_string()), pa.array([], pa.string())):
        data, offsets = minhash.normalise(*text_buffers(empty))
        assert minhash.signatures(data, offsets, 5, NUM_PERMUTATIONS, 1).shape == (0, NUM_PERMUTATIONS)
        assert minhash.exact_hashes(data, offsets).shape == (0, 2)


def test_signatures_are_pinned() -> None:
    # Later crawls are compared with signatures that stand in the store: they may never change under one version.
    signed = signatures([b"the quick brown fox jumps over the lazy dog"])
    assert xxhash.xxh3_64_hexdigest(signed.tobytes()) == "b34b968107d1a132"


def pairs(num_pairs: int, least: float, most: float, seed: int = 0) -> tuple[list[list[str]], list[float]]:
    """Documents 2i and 2i+1 are lists of distinct words, with Jaccard similarities spread over a range."""
    generator = random.Random(seed)
    documents, similarities = [], []
    for number in range(num_pairs):
        wanted = generator.uniform(least, most)
        total = generator.randint(150, 400)
        common = round(wanted * total)
        left = (total - common) // 2
        pool = [f"w{number}x{i}" for i in range(total)]
        documents += [pool[: common + left], pool[:common] + pool[common + left :]]
        similarities.append(common / total)
    return documents, similarities


def equal_share(signed: np.ndarray) -> np.ndarray:
    return (signed[0::2] == signed[1::2]).mean(axis=1)


def test_estimates_lie_within_three_standard_errors_as_datasketch_s_do() -> None:
    documents, similarities = pairs(1000, 0.05, 0.95)
    true = np.array(similarities)
    ours = equal_share(signatures([" ".join(words).encode() for words in documents], width=1))
    theirs_signed = []
    for words in documents:
        oracle = MinHash(num_perm=NUM_PERMUTATIONS, seed=1)
        oracle.update_batch([word.encode() for word in words])
        theirs_signed.append(oracle.hashvalues)
    theirs = equal_share(np.array(theirs_signed))
    standard_error = np.sqrt(true * (1 - true) / NUM_PERMUTATIONS)
    for estimate in (ours, theirs):
        deviations = (estimate - true) / standard_error
        assert (np.abs(deviations) <= 3).mean() >= 0.99  # a normal law has 99.73%
        assert abs(deviations.mean()) <= 3 / np.sqrt(len(true))
        assert 0.9 <= deviations.std() <= 1.1


def unmixed(value: int) -> int:
    """The number that datasketch's first step, MurmurHash3's fmix32, takes to this one."""
    value ^= value >> 16
    value = value * pow(0xC2B2AE35, -1, 1 << 32) % (1 << 32)
    value ^= value >> 13 ^ value >> 26
    value = value * pow(0x85EBCA6B, -1, 1 << 32) % (1 << 32)
    return value ^ value >> 16


def test_datasketch_makes_the_same_signatures_of_the_same_shingles() -> None:
    texts = [b"a b c d e f g h i j k l", b"a b c d e f g h i j k z"]
    shingles, offsets = minhash.shingle_sets(*normalise(texts), 5)
    oracles = []
    for values in cut(shingles, offsets):
        oracle = MinHash(
            NUM_PERMUTATIONS,
            permutations=minhash.permutations(NUM_PERMUTATIONS, 1),
            scheme="affine32",
            hashfunc=unmixed,
        )
        oracle.update_batch(values.tolist())
        oracles.append(oracle)
    signed = signatures(texts)
    assert np.array_equal(signed, [oracle.hashvalues for oracle in oracles])
    opened = [MinHash(NUM_PERMUTATIONS, hashvalues=row, scheme="affine32") for row in signed]
    assert opened[0].jaccard(opened[1]) == oracles[0].jaccard(oracles[1]) == (signed[0] == signed[1]).mean()


@pytest.mark.parametrize("similarity", [0.6, 0.7, 0.8, 0.9])
def test_recall_of_the_bands_is_what_theory_says(similarity: float) -> None:
    plan = plan_bands(0.8, 0.9, NUM_PERMUTATIONS)
    num_pairs = 2000
    documents, similarities = pairs(num_pairs, similarity, similarity, seed=int(similarity * 10))
    keys = minhash.band_keys(
        signatures([" ".join(words).encode() for words in documents], 1), plan.num_bands, plan.rows
    )
    found = (keys[:, 0::2] == keys[:, 1::2]).any(axis=0).mean()
    theory = np.mean([plan.recall(value) for value in similarities])
    # Within 3.3 standard deviations of a binomial: 99.9%.
    assert abs(found - theory) <= 3.3 * np.sqrt(theory * (1 - theory) / num_pairs)


def test_equal_bands_have_equal_keys_and_other_bands_others() -> None:
    signed = signatures([b"a b c d e f", b"a b c d e f", b"u v w x y z"])
    keys = minhash.band_keys(signed, 14, 8)
    assert keys.shape == (14, 3)
    assert np.array_equal(keys[:, 0], keys[:, 1])
    assert len(np.unique(keys[:, [0, 2]])) == 28
