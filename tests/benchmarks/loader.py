"""python -m tests.benchmarks.loader: training sequences a second, from files and from an object store.

Windows of 2,048 tokens of uint16 in a shuffled order, in batches of 64, by one process; `per_core_s` in the notes is of
a second of that process's own time.
"""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ray_jobs.checkpoint.shards import OutputFile
from ray_jobs.checkpoint.store import open_store
from ray_jobs.tokenizer.loader import TokenDataset, read_ahead
from ray_jobs.tokenizer.packing import PackedDataset
from ray_jobs.tokenizer.streams import LocalStream, StoreStream
from tests.benchmarks.harness import Bench, figure, main, timed
from tests.s3_server import running_s3_server

LENGTH, BATCH = 2048, 64
NUM_SHARDS, SHARD_TOKENS = 4, 32 << 20
RUN_LENGTH = 16
"""Windows a run, where they are read from S3: 64 KB."""


def shards(folder: Path) -> list[Path]:
    """256 MB of tokens, made once."""
    paths = [folder / f"{number:05d}.bin" for number in range(NUM_SHARDS)]
    if not paths[-1].exists():
        draw = np.random.default_rng(1)
        for path in paths:
            path.write_bytes(draw.integers(0, 1 << 16, SHARD_TOKENS, dtype=np.uint16).tobytes())
    return paths


def tokens_per_s(bench: Bench, dataset: TokenDataset | PackedDataset, num_batches: int, depth: int) -> float:
    """Of batches from a place that no earlier measurement has read."""

    def requests() -> Iterator[tuple[int, int]]:
        first = secrets.randbelow(1000) * len(dataset)  # of some epoch: the order is another in each
        for number in range(num_batches):
            yield first + number * BATCH, BATCH

    began, processor = time.perf_counter(), time.process_time()
    batches = read_ahead(dataset, requests(), depth)
    num_tokens = sum(batch.size if isinstance(batch, np.ndarray) else batch.inputs_CL.size for batch in batches)
    seconds, own = time.perf_counter() - began, time.process_time() - processor
    bench.notes |= {"length": LENGTH, "depth": depth, "tokens": num_tokens, "per_core_s": round(num_tokens / own)}
    return num_tokens / seconds


@figure("tokens/s", target="≥ 20,000,000")
def loader_tokens_per_s(bench: Bench) -> float:
    """From local files that the kernel holds in memory."""
    return tokens_per_s(bench, TokenDataset(LocalStream(shards(bench.folder), "uint16"), LENGTH, 1), 1000, depth=2)


@figure("tokens/s")
def loader_cold_tokens_per_s(bench: Bench) -> float:
    """From local files that the kernel has dropped: a page fault or two a window, by four threads."""
    for path in shards(bench.folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return tokens_per_s(bench, TokenDataset(LocalStream(shards(bench.folder), "uint16"), LENGTH, 1), 300, depth=4)


@figure("tokens/s", target="≥ 20,000,000")
def loader_packed_tokens_per_s(bench: Bench) -> float:
    """Documents packed best-fit, from the same files; their lengths are log-normal as those of a crawl are, of median
    500. Opening the data, which plans the packing, is in the notes."""
    paths, lengths = shards(bench.folder), []
    for number in range(NUM_SHARDS):
        drawn = np.exp(np.random.default_rng(number).normal(6.2, 1.1, SHARD_TOKENS // 300)).astype(np.int64) + 2
        whole = drawn[: np.searchsorted(np.cumsum(drawn), SHARD_TOKENS)]
        lengths.append(np.append(whole, SHARD_TOKENS - whole.sum()))
    with timed() as seconds:
        dataset = PackedDataset(LocalStream(paths, "uint16"), lengths, LENGTH, 1, end_of_text=0)
    bench.notes |= {
        "documents": sum(map(len, lengths)),
        "planned_in_s": round(seconds(), 3),
        "padding_share": round(dataset.padding_share, 6),
    }
    return tokens_per_s(bench, dataset, 300, depth=2)


@figure("tokens/s", target="≥ 5,000,000")
def loader_s3_tokens_per_s(bench: Bench) -> float:
    """By range requests from SeaweedFS on this machine, in runs of 64 KB."""
    return from_s3(bench, RUN_LENGTH, 300)


@figure("tokens/s")
def loader_s3_single_windows_tokens_per_s(bench: Bench) -> float:
    """The same where every window is shuffled by itself, and is a request of its own."""
    return from_s3(bench, 1, 30)


def from_s3(bench: Bench, run_length: int, num_batches: int) -> float:
    with ExitStack() as stack:
        server = stack.enter_context(running_s3_server(bench.new_folder()))
        os.environ.update(server.environment)
        store = open_store(f"s3://{server.bucket}")
        files = []
        for number, path in enumerate(shards(bench.folder)):
            store.put_file(path.name, path)
            size = path.stat().st_size
            files.append(
                OutputFile(
                    stage="train",
                    shard=number,
                    name="tokens.bin",
                    path=path.name,
                    bytes=size,
                    sha256="",
                    rows=size // 2,
                )
            )
        dataset = TokenDataset(StoreStream(store, files, "uint16"), LENGTH, 1, run_length)
        bench.notes |= {"run_length": run_length}
        return tokens_per_s(bench, dataset, num_batches, depth=2)


if __name__ == "__main__":
    main("loader", __name__)
