import random

import numpy as np
import pyarrow as pa

from ray_jobs.dedup import minhash
from ray_jobs.dedup.bands import BandPlan, plan_bands
from ray_jobs.dedup.verify import (
    MINHASH,
    Buckets,
    Doubt,
    Members,
    Verdicts,
    buckets,
    doubt,
    equal_rows,
    find_duplicates,
)
from ray_jobs.files.columns import text_buffers
from tests.dedup import reference

PLAN = plan_bands(0.8, 0.9, 112)


def bands(signed: np.ndarray, plan: BandPlan) -> Buckets:
    return buckets(minhash.band_keys(signed, plan.num_bands, plan.rows), plan.num_bands)


def verdicts(texts: list[str], threshold: float = 0.8, plan: BandPlan = PLAN) -> Verdicts:
    normalised = minhash.normalise(*text_buffers(pa.array(texts, pa.large_string())))
    signed = minhash.signatures(*normalised, 5, 112, seed=1)
    exact = minhash.exact_hashes(*normalised)
    # Equal texts are pairs like any others here, by hashes that differ.
    exact = exact + np.arange(2 * len(texts), dtype=np.uint64).reshape(-1, 2)
    nothing = np.zeros(len(texts), dtype=np.uint64)
    members = Members(signed, exact, np.zeros_like(exact), nothing > 0, nothing)
    found = bands(signed, plan)
    sets = minhash.shingle_sets(*normalised, 5)
    return find_duplicates(members, found, *sets, Doubt(doubt(threshold, 112).least, 113), threshold, 1000)


def variants(seed: int, num_families: int, size: int) -> list[str]:
    """Families of texts, each a drifting copy of the one before."""
    generator = random.Random(seed)
    texts = []
    for family in range(num_families):
        words = [f"f{family}w{generator.randrange(400)}" for _ in range(120)]
        for _ in range(size):
            texts.append(" ".join(words))
            for _ in range(generator.randrange(4)):
                words[generator.randrange(len(words))] = f"n{generator.randrange(10_000)}"
    generator.shuffle(texts)
    return texts


def test_the_rule_equals_looking_at_every_pair() -> None:
    for seed in range(4):
        texts = variants(seed, 8, 12)
        normalised = minhash.normalise(*text_buffers(pa.array(texts, pa.large_string())))
        signed = minhash.signatures(*normalised, 5, 112, seed=1)
        sets = [reference.shingles(text.encode()) for text in texts]
        wanted = reference.duplicates(signed.tolist(), sets, PLAN, 0.8)
        found = verdicts(texts)
        assert {i: int(of) for i, of in enumerate(found.duplicate_of) if of >= 0} == wanted
        assert 20 < len(wanted) < len(texts)
        for document, of in wanted.items():
            assert np.isclose(found.similarity[document], reference.jaccard(sets[document], sets[of]))


def test_a_chain_deletes_nothing_that_resembles_no_kept_document() -> None:
    # Neighbours share 90% of their shingles, the ends of the chain nothing.
    words = [f"w{i}" for i in range(400)]
    chain = [" ".join(words[start : start + 200]) for start in range(0, 200, 10)]
    found = verdicts(chain).duplicate_of.tolist()
    sets = [reference.shingles(text.encode()) for text in chain]
    kept = [i for i, of in enumerate(found) if of < 0]
    assert 5 <= len(kept) < len(chain)
    for document, of in enumerate(found):
        if of >= 0:
            assert of in kept and reference.jaccard(sets[document], sets[of]) >= 0.8


def test_documents_that_come_later_change_no_earlier_verdict() -> None:
    texts = variants(7, 6, 10)
    whole = verdicts(texts).duplicate_of
    for length in (1, 13, 40, 59):
        assert np.array_equal(verdicts(texts[:length]).duplicate_of, whole[:length])


def test_pairs_below_the_threshold_are_kept_though_they_share_bands() -> None:
    words = [f"w{i}" for i in range(300)]
    # 11 of 296 shingles differ on each side: similarity 0.93.
    pair = [" ".join(words), " ".join([*words[:150], "other", *words[151:200], "another", *words[201:]])]
    assert reference.jaccard(*(reference.shingles(text.encode()) for text in pair)) < 0.95
    assert verdicts(pair, 0.9).duplicate_of.tolist() == [-1, 0]
    assert verdicts(pair, 0.95).duplicate_of.tolist() == [-1, -1]


def test_documents_without_words_or_with_one_duplicate_nothing_unequal() -> None:
    assert verdicts(["", "one", "two", "x y z"]).duplicate_of.tolist() == [-1, -1, -1, -1]


def test_sure_estimates_spare_the_sets_and_decide_alike() -> None:
    texts = variants(3, 8, 12)
    normalised = minhash.normalise(*text_buffers(pa.array(texts, pa.large_string())))
    signed = minhash.signatures(*normalised, 5, 112, seed=1)
    exact = minhash.exact_hashes(*normalised)
    nothing = np.zeros(len(texts), dtype=np.uint64)
    members = Members(signed, exact, np.zeros_like(exact), nothing > 0, nothing)
    found = find_duplicates(
        members, bands(signed, PLAN), *minhash.shingle_sets(*normalised, 5), doubt(0.8, 112), 0.8, 1000
    )
    by_sets = verdicts(texts)
    assert np.mean((found.duplicate_of >= 0) == (by_sets.duplicate_of >= 0)) > 0.97
    assert found.num_compared < 0.7 * by_sets.num_compared
    assert set(found.by_sets[found.rule == MINHASH].tolist()) == {True, False}


def test_doubt_is_three_standard_errors_wide_on_both_sides() -> None:
    # √(0.8 · 0.2 / 112) = 0.0378; 112 · (0.8 ± 0.1134)
    assert doubt(0.8, 112) == Doubt(76, 103)


def test_equal_rows_name_the_first() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 3, (200, 2), dtype=np.uint64)
    listed = hashes.tolist()
    assert equal_rows(hashes).tolist() == [listed.index(row) for row in listed]


def test_a_bucket_is_compared_up_to_its_bound() -> None:
    """One band of one row that all share: the third page is like the second, which the bound leaves out."""
    texts = [" ".join(f"{name}{i}" for i in range(50)) for name in "abb"]
    normalised = minhash.normalise(*text_buffers(pa.array(texts, pa.large_string())))
    signed = minhash.signatures(*normalised, 5, 112, seed=1)
    signed[:, 0] = 7
    members = Members(
        signed,
        np.arange(6, dtype=np.uint64).reshape(3, 2),
        np.zeros((3, 2), np.uint64),
        np.zeros(3, np.bool_),
        np.zeros(3, np.uint64),
    )
    plan = BandPlan(1, 1)
    for bound, wanted in ((1, [-1, -1, -1]), (2, [-1, -1, 1])):
        found = find_duplicates(
            members, bands(signed, plan), *minhash.shingle_sets(*normalised, 5), doubt(0.8, 112), 0.8, bound
        )
        assert found.duplicate_of.tolist() == wanted
