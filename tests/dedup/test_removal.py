"""What a partition's members take in memory."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.dedup import DedupSpec
from ray_jobs.checkpoint.store import open_store
from ray_jobs.dedup.bands import plan_bands
from ray_jobs.dedup.corpus import Corpus, Level
from ray_jobs.dedup.removal import shingle_sets


def test_shingle_sets_stay_in_the_buffers_that_they_came_in(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    given = [np.sort(generator.integers(0, 2**32, size, dtype=np.uint32)) for size in generator.integers(0, 2000, 3000)]
    column = pa.array([one.astype("<u4").tobytes() for one in given], pa.large_binary())
    table = pa.table({"id": [f"{i:05d}" for i in range(3000)], "shingles": column})
    table = pa.concat_tables([table[500:900], table[900:], table[:0]])  # as members of several groups come
    given = given[500:]
    level = Level(num_parts=1, file_rows=(2500,), groups=((0, 1),))
    corpus = Corpus(DedupSpec(), plan_bands(0.8, 0.9, 112), open_store(tmp_path), level, ())
    tracemalloc.start()
    sets, offsets = shingle_sets(corpus, table, np.arange(2500, dtype=np.uint64), np.empty(0, np.int64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(np.diff(offsets), [len(one) for one in given])
    assert np.array_equal(sets, np.concatenate(given))
    # Arrow's own memory is not traced: it makes one column of the chunks, and no object of any set is made.
    assert peak < 0.1 * sets.nbytes
