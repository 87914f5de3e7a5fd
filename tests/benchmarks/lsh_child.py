"""LSH of synthetic signatures in a process of its own, whose peak memory is its own; prints seconds and GB.

Run by corpus.py. Signatures are made, and their bands' keys taken, a file's worth at a time, as the dedup node does:
the whole corpus stands in memory as keys only. One document in ten agrees with the one before it in every fourth band.
"""

import json
import resource
import sys
import time

import numpy as np

from configs.dedup import DedupSpec
from ray_jobs.dedup.bands import plan_bands
from ray_jobs.dedup.candidates import components, first_of_equal
from ray_jobs.dedup.minhash import band_keys

FILE_DOCUMENTS = 100_000
COPY_EVERY = 10
SHARED_BAND_EVERY = 4
SPEC = DedupSpec()
PLAN = plan_bands(SPEC.jaccard, SPEC.recall, SPEC.num_permutations)


def synthetic_signatures(generator: np.random.Generator, num_documents: int) -> np.ndarray:
    """uint32 [n, permutations]"""
    signed = generator.integers(0, 2**32, (num_documents, SPEC.num_permutations), dtype=np.uint32)
    copies = np.arange(COPY_EVERY, num_documents, COPY_EVERY)
    for band in range(0, PLAN.num_bands, SHARED_BAND_EVERY):
        rows = slice(band * PLAN.rows, (band + 1) * PLAN.rows)
        signed[copies, rows] = signed[copies - 1, rows]
    return signed


class Clock:
    """Seconds of the clock and of the processor, added up over blocks."""

    def __init__(self) -> None:
        self.wall = self.core = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *raised: object) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.core += time.process_time() - self._began[1]


def measure(num_documents: int) -> dict[str, float]:
    generator = np.random.Generator(np.random.SFC64(1))
    keys = np.empty((PLAN.num_bands, num_documents), dtype=np.uint64)
    of_bands, of_components = Clock(), Clock()
    num_copies = 0
    for start in range(0, num_documents, FILE_DOCUMENTS):
        signed = synthetic_signatures(generator, min(FILE_DOCUMENTS, num_documents - start))
        num_copies += (len(signed) - 1) // COPY_EVERY
        with of_bands:
            keys[:, start : start + len(signed)] = band_keys(signed, PLAN.num_bands, PLAN.rows)
    exact = generator.integers(0, 2**64, (num_documents, 2), dtype=np.uint64)
    with of_components:
        component = components(num_documents, first_of_equal(exact), keys)
    assert np.count_nonzero(component != np.arange(num_documents)) >= num_copies
    return {
        "bands_s": of_bands.wall,
        "components_s": of_components.wall,
        "total_s": of_bands.wall + of_components.wall,
        "total_core_s": of_bands.core + of_components.core,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


if __name__ == "__main__":
    measure(1000)  # compiles
    print(json.dumps(measure(int(sys.argv[1]))))
