from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.dedup.candidates import components, edges, sort_order, unique_pairs


def naive_edges(entries: list[tuple[int, int]], first_own: int, max_earlier: int) -> set[tuple[int, int]]:
    groups = defaultdict(list)
    for key, document in entries:
        groups[key].append(document)
    found = set()
    for documents in groups.values():
        earlier = [one for one in documents if one < first_own]
        own = [one for one in documents if one >= first_own]
        found |= {(own[0], other) for other in [*own[1:], *earlier[:max_earlier]]} if own else set()
    return found


def naive_components(n: int, pairs: list[tuple[int, int]]) -> list[int]:
    names = list(range(n))
    for _ in range(n):
        for one, other in pairs:
            names[one] = names[other] = min(names[one], names[other])
    met = {document for pair in pairs for document in pair}
    return [names[i] if i in met else -1 for i in range(n)]


# Keys that differ in their upper bits, in their lower bits only (which are cut off when packed), or not at all.
keys = st.integers(0, 6).map(lambda upper: upper << 61) | st.integers(0, 1).map(lambda lower: (5 << 60) + lower)


@settings(deadline=None)  # the first call compiles
@given(
    st.dictionaries(st.tuples(keys, st.integers(0, 30)), st.none(), max_size=60),
    st.integers(0, 30),
    st.integers(1, 4),
)
def test_edges_join_the_first_of_each_key_with_all_others(
    found: dict[tuple[int, int], None], first_own: int, max_earlier: int
) -> None:
    entries = sorted(found, key=lambda entry: entry[1])
    columns = np.array(entries, dtype=np.uint64).reshape(-1, 2)
    hubs, others = edges(columns[:, 0].copy(), columns[:, 1].copy(), first_own, 0, max_earlier)
    pairs = list(zip(hubs.tolist(), others.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == naive_edges(entries, first_own, max_earlier)


def test_keys_of_one_range_are_told_apart_by_the_bits_that_differ() -> None:
    generator = np.random.default_rng(0)
    n = 200_000
    same_range = (np.uint64(0x1234) << np.uint64(48)) | (generator.integers(0, 2**48, n, dtype=np.uint64))
    same_range[1::100] = same_range[0::100]
    hubs, others = edges(same_range, np.arange(n, dtype=np.uint64), 0, 16, 10)
    assert sorted(zip(hubs.tolist(), others.tolist(), strict=True)) == [(i, i + 1) for i in range(0, n, 100)]


def test_keys_of_one_range_are_sorted_by_the_bits_that_differ() -> None:
    keys = np.random.default_rng(0).integers(0, 2**24, 200_000, dtype=np.uint64) << np.uint64(24)
    keys |= np.uint64(0x1234) << np.uint64(48)
    assert np.array_equal(sort_order(keys, 16), np.argsort(keys, kind="stable"))


@settings(deadline=None)
@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_components_are_what_chains_of_edges_connect(graph: tuple[int, list[tuple[int, int]]]) -> None:
    n, pairs = graph
    columns = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    half = len(pairs) // 2
    parts = [(columns[:half, 0], columns[:half, 1]), (columns[half:, 0], columns[half:, 1])]
    assert components(n, parts).tolist() == naive_components(n, pairs)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_of_equal_pairs_one_stays(pairs: list[tuple[int, int]]) -> None:
    columns = np.array(pairs, dtype=np.uint64).reshape(-1, 2)
    first, second = unique_pairs(columns[:, 0].copy(), columns[:, 1].copy())
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == sorted(set(pairs))


def test_a_popular_key_joins_all_that_have_it_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    n = 50_000
    band = generator.integers(0, 2**64, n, dtype=np.uint64)
    popular, rare = np.arange(0, n, 7), np.array([1, 2])
    band[popular], band[rare] = band[0], band[1]
    found = components(n, [edges(band, np.arange(n, dtype=np.uint64), 0, 0, 10)])
    wanted = np.full(n, -1)
    wanted[popular], wanted[rare] = 0, 1
    assert np.array_equal(found, wanted)


def test_entries_are_ordered_by_key_and_then_by_place() -> None:
    generator = np.random.default_rng(1)
    spread = generator.integers(0, 50, 5000, dtype=np.uint64) << np.uint64(56)
    assert np.array_equal(sort_order(spread), np.argsort(spread, kind="stable"))


def test_nothing_has_no_edges() -> None:
    nothing = np.empty(0, np.uint64)
    assert [len(one) for one in edges(nothing, nothing, 0, 0, 10)] == [0, 0]
    assert components(0, []).size == 0
