"""LSH of synthetic signatures in a process of its own, whose peak memory is its own; prints seconds and GB.

Run by corpus.py. It runs the dedup node's own stages one shard after the other on a store of files: keys of each group
of documents, edges of each range of keys, components. One document in ten agrees with the one before it in every fourth
band. Making the signatures is not counted. With "memory" it runs the kernels alone, without store and shards.
"""

import itertools
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from configs.dedup import DedupSpec
from ray_jobs.checkpoint.shards import File, OutputFile, ShardOutput
from ray_jobs.checkpoint.store import Store, open_store
from ray_jobs.dedup.bands import plan_bands
from ray_jobs.dedup.candidates import components, edges
from ray_jobs.dedup.clustering import ENTRIES_A_PART, cluster_in_memory, find_edges
from ray_jobs.dedup.corpus import Corpus, Level, group_files, parts_for
from ray_jobs.dedup.minhash import binary_rows
from ray_jobs.dedup.signing import keys_of, run_of
from ray_jobs.files.parts import parted_file

COPY_EVERY = 10
SHARED_BAND_EVERY = 4
FILE_DOCUMENTS = 1 << 17
SPEC = DedupSpec(same_url=False)
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


def measure(num_documents: int, folder: Path) -> dict[str, float]:
    generator = np.random.Generator(np.random.SFC64(1))
    store = open_store(folder)
    rows = [FILE_DOCUMENTS] * (num_documents // FILE_DOCUMENTS) + [num_documents % FILE_DOCUMENTS]
    num_parts = parts_for(num_documents * (PLAN.num_bands + 1), ENTRIES_A_PART)
    groups = tuple(group_files(rows))
    level = Level(num_parts=num_parts, file_rows=tuple(rows), groups=groups, standing=tuple(range(len(groups))))
    corpus = Corpus(SPEC, PLAN, store, level, ())
    clocks = {name: Clock() for name in ("keys", "edges", "clusters")}
    starts = level.group_starts()
    files = []
    for group, (start, end) in enumerate(itertools.pairwise(starts)):
        table = pa.table(
            {
                "signature": binary_rows(synthetic_signatures(generator, end - start)),
                "exact": binary_rows(generator.integers(0, 2**64, (end - start, 2), dtype=np.uint64)),
                "simhash": np.zeros(end - start, dtype=np.uint64),
                "url": binary_rows(np.zeros((end - start, 2), dtype=np.uint64)),
                "retracted": np.zeros(end - start, dtype=np.bool_),
            }
        )
        with clocks["keys"]:
            numbers = np.arange(start, end, dtype=np.uint64)
            run = parted_file(run_of(*keys_of(corpus, table, numbers), num_parts), end - start)
            files += [put(store, "signatures", group, "keys.run", run)]
        files.append(put(store, "signatures", group, "signatures.parquet", File(b"", end - start)))
    corpus.stages["signatures"] = tuple(files)
    with clocks["edges"]:
        found = [put_all(store, "edges", part, find_edges({"part": part}, corpus)) for part in range(num_parts)]
    corpus.stages["edges"] = tuple(file for one in found for file in one)
    with clocks["clusters"]:
        clustered = cluster_in_memory({}, corpus)
    # Each copy and the page before it.
    num_copies = sum((end - start - 1) // COPY_EVERY for start, end in itertools.pairwise(starts))
    assert clustered.counters["members"] == 2 * num_copies
    return {
        **{f"{name}_s": clock.wall for name, clock in clocks.items()},
        "total_s": sum(clock.wall for clock in clocks.values()),
        "total_core_s": sum(clock.core for clock in clocks.values()),
        "num_parts": num_parts,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def put(store: Store, stage: str, shard: int, name: str, file: File) -> OutputFile:
    path = f"{stage}/{shard:05d}.{name}"
    store.put(path, file.data)
    return OutputFile(stage=stage, shard=shard, name=name, path=path, bytes=len(file.data), sha256="", rows=file.rows)


def put_all(store: Store, stage: str, shard: int, output: ShardOutput) -> list[OutputFile]:
    return [put(store, stage, shard, name, file) for name, file in output.files.items()]


def in_memory(num_documents: int) -> dict[str, float]:
    """The kernels alone: band keys, edges and components of signatures that stand in memory."""
    from ray_jobs.dedup.minhash import band_keys

    generator = np.random.Generator(np.random.SFC64(1))
    signed = synthetic_signatures(generator, num_documents)
    numbers = np.arange(num_documents, dtype=np.uint64)
    bands, joined = Clock(), Clock()
    with bands:
        keys = band_keys(signed, PLAN.num_bands, PLAN.rows)
    with joined:
        # Band after band, whose memory is the same.
        component = components(num_documents, (edges(band, numbers, 0, 0, SPEC.max_bucket) for band in keys))
    assert np.count_nonzero(component >= 0) == 2 * ((num_documents - 1) // COPY_EVERY)
    return {
        "bands_s": bands.wall,
        "components_s": joined.wall,
        "total_s": bands.wall + joined.wall,
        "total_core_s": bands.core + joined.core,
    }


if __name__ == "__main__":
    size = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as made:
        measure(1000, Path(made) / "compiles")
        in_memory(1000)
        print(json.dumps(in_memory(size) if sys.argv[2:] == ["memory"] else measure(size, Path(made) / "store")))
