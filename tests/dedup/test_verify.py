import random

import numpy as np
import pyarrow as pa

from ray_jobs.dedup import minhash
from ray_jobs.dedup.bands import BandPlan, plan_bands
from ray_jobs.dedup.verify import Verdicts, find_duplicates
from tests.dedup import reference

PLAN = plan_bands(0.8, 0.9, 112)


def verdicts(texts: list[str], threshold: float = 0.8, plan: BandPlan = PLAN) -> Verdicts:
    normalised = minhash.normalise(*minhash.text_buffers(pa.array(texts, pa.large_string())))
    signed = minhash.signatures(*normalised, 5, 112, seed=1)
    return find_duplicates(signed, *minhash.shingle_sets(*normalised, 5), plan, threshold)


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
        normalised = minhash.normalise(*minhash.text_buffers(pa.array(texts, pa.large_string())))
        signed = minhash.signatures(*normalised, 5, 112, seed=1)
        sets = [reference.shingles(text.encode()) for text in texts]
        wanted = reference.duplicates(signed.tolist(), sets, PLAN, 0.8)
        found = verdicts(texts)
        # Equal texts are pairs like any others here; the node takes them out before.
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
