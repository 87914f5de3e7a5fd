import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.quality.histograms import BINS_A_DOUBLING, SCHEMA, add, bins_of, histogram, percentile, upper_edge

perplexities = st.lists(st.floats(1, 1e9, width=32), min_size=1, max_size=30)


@given(perplexities, st.floats(0, 100, allow_subnormal=False))
def test_a_percentile_is_exact_to_a_bin(values: list[float], percent: float) -> None:
    numbers = np.array(values, dtype=np.float32)
    bins, documents = np.unique(bins_of(numbers), return_counts=True)
    found = percentile(bins.astype(np.int32), documents, percent)
    exact = np.percentile(numbers.astype(np.float64), percent, method="inverted_cdf")
    if percent == 0:
        assert found <= exact  # below which there is none
    else:
        assert exact <= found * (1 + 1e-6) and found <= exact * 2 ** (1 / BINS_A_DOUBLING) * (1 + 1e-6)


@given(st.lists(perplexities, min_size=1, max_size=3))
def test_histograms_of_parts_add_up_to_that_of_the_whole(parts: list[list[float]]) -> None:
    def made(values: list[float]) -> pa.Table:
        languages = pa.chunked_array([pa.array(["en" if value > 100 else "de" for value in values], pa.string())])
        return histogram(languages, pa.chunked_array([pa.array(values, pa.float32())]))

    whole = made([value for part in parts for value in part])
    assert add([made(part) for part in parts]).equals(whole)
    assert pa.compute.sum(whole["documents"]).as_py() == sum(map(len, parts))


def test_documents_without_perplexity_are_not_counted() -> None:
    languages = pa.chunked_array([["en", "xx", "en"]])
    counted = histogram(languages, pa.chunked_array([pa.array([8.0, None, 8.0], pa.float32())]))
    assert counted.to_pylist() == [{"language": "en", "bin": 3 * BINS_A_DOUBLING, "documents": 2}]
    assert add([]).schema == SCHEMA
    assert upper_edge(3 * BINS_A_DOUBLING - 1) == pytest.approx(8)
