import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_jobs.dedup.candidates import components, first_of_equal


def naive_components(first: list[int], bands: list[list[int]]) -> list[int]:
    """Breadth-first search over "shares a key"."""
    n = len(first)
    names = [-1] * n
    for start in range(n):
        if names[start] >= 0:
            continue
        todo = [start]
        while todo:
            one = todo.pop()
            if names[one] >= 0:
                continue
            names[one] = start
            leads = first[one] == one
            for other in range(n):
                follows = first[other] == one or first[one] == other
                meets = leads and first[other] == other and any(keys[one] == keys[other] for keys in bands)
                if follows or meets:
                    todo.append(other)
    return names


# Keys that differ in their upper bits, in their lower bits only (which are cut off when packed), or not at all.
keys = st.integers(0, 6).map(lambda upper: upper << 61) | st.integers(0, 1).map(lambda lower: (5 << 60) + lower)


@settings(deadline=None)  # the first call compiles
@given(st.integers(1, 40).flatmap(lambda n: st.lists(st.tuples(keys, keys), min_size=n, max_size=n)))
def test_first_of_equal_compares_the_whole_hash(hashes: list[tuple[int, int]]) -> None:
    first = first_of_equal(np.array(hashes, dtype=np.uint64))
    assert first.tolist() == [hashes.index(one) for one in hashes]


@settings(deadline=None)  # the first call compiles
@given(
    st.integers(1, 30).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 12), min_size=n, max_size=n), min_size=1, max_size=4)
    )
)
def test_components_are_what_chains_of_equal_keys_connect(bands: list[list[int]]) -> None:
    spread = [[key << 58 for key in band] for band in bands]
    n = len(bands[0])
    first = list(range(n))
    if n > 3:
        first[3] = 1  # an exact duplicate takes no part in the bands
    found = components(n, np.array(first), [np.array(band, dtype=np.uint64) for band in spread])
    assert found.tolist() == naive_components(first, spread)


def test_popular_keys_and_many_documents_are_joined_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    n = 50_000
    band = generator.integers(0, 2**64, n, dtype=np.uint64)
    popular, rare = np.arange(0, n, 7), np.array([1, 2])
    band[popular], band[rare] = band[0], band[1]
    found = components(n, np.arange(n), [band])
    wanted = np.arange(n)
    wanted[popular], wanted[rare] = 0, 1
    assert np.array_equal(found, wanted)


def test_no_documents_have_no_components() -> None:
    assert first_of_equal(np.empty((0, 2), np.uint64)).size == 0
    assert components(0, np.empty(0, np.int64), [np.empty(0, np.uint64)]).size == 0
