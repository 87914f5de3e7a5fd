import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ray_jobs.repeats.sharing import UNITS, WINDOWS, runs, shared_units, shared_windows

# Values that differ in their lowest bits only, or in their highest: what is taken for equal wrongly shows.
hashes = st.integers(0, 3) | st.integers(0, 3).map(lambda value: value << 62 | 1)
files = st.lists(st.lists(hashes, unique=True, max_size=6), min_size=1, max_size=5)


def windows_of(values: list[int]) -> pa.Table:
    return pa.table([np.array(values, dtype=np.uint64), np.arange(len(values)) * 10], schema=WINDOWS)


@given(files)
def test_windows_are_asked_of_the_first_file_that_has_them(given_files: list[list[int]]) -> None:
    received = [(number, windows_of(values)) for number, values in enumerate(given_files) if values]
    wanted = []
    first: dict[int, tuple[int, int]] = {}
    for number, values in enumerate(given_files):
        for place, value in enumerate(values):
            source = first.setdefault(value, (number, place * 10))
            if source[0] != number:
                wanted.append((*source, number, place * 10))
    found = shared_windows(received).to_pylist()
    assert sorted(tuple(row.values()) for row in found) == sorted(wanted)


@given(files, st.integers(1, 4))
def test_units_stay_in_the_first_documents_and_are_asked_of_the_first_file(
    given_files: list[list[int]], limit: int
) -> None:
    received = [
        (
            number,
            pa.table(
                [[0] * len(values), np.array(values, np.uint64), range(len(values)), [number + 1] * len(values)],
                schema=UNITS,
            ),
        )
        for number, values in enumerate(given_files)
        if values
    ]
    having = {v: [n for n, values in enumerate(given_files) if v in values] for values in given_files for v in values}
    wanted = []
    for value, numbers in having.items():
        for target in numbers:
            allowed = max(0, limit - sum(n + 1 for n in numbers if n < target))
            if target + 1 > allowed:
                wanted.append((0, value, given_files[numbers[0]].index(value), allowed, numbers[0], target))
    found = shared_units(received, {"lines": limit}).to_pylist()
    assert sorted(tuple(row.values()) for row in found) == sorted(wanted)


def test_runs_end_where_either_place_jumps_or_the_file_changes() -> None:
    columns = {
        "input": [0] * 6,
        "word": [5, 6, 7, 20, 21, 22],
        "target": [1, 1, 1, 1, 1, 2],
        "target_word": [3, 4, 6, 7, 8, 9],
    }
    found = runs(pa.table(columns).take([5, 0, 3, 1, 4, 2])).to_pylist()
    assert [tuple(row.values()) for row in found] == [(1, 3, 5, 2), (1, 6, 7, 1), (1, 7, 20, 2), (2, 9, 22, 1)]


def test_nothing_received_shares_nothing() -> None:
    assert shared_windows([]).num_rows == shared_units([], {}).num_rows == 0
