"""The tokens of all shards end to end, read at any place: from memory-mapped files, or by range requests from a store.

A shard is a raw array of little-endian uint16 or uint32; their order is part of a stream's identity: keep that of
`Checkpoint.files("tokens.bin", stage=…)`.
"""

import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ray_jobs.checkpoint.checkpoint import Checkpoint, DamagedOutput
from ray_jobs.checkpoint.shards import OutputFile
from ray_jobs.checkpoint.store import Store

DTYPES = ("uint16", "uint32")
# The kernel is told what will be read, where it takes advice, unless it soon holds all of it: cold windows of 2,048
# tokens come at 90 instead of 25 million tokens a second then, cached ones at 200 instead of 300 (measured on a local
# disk, two threads).
ADVISED = hasattr(mmap, "MADV_RANDOM") and hasattr(mmap, "MADV_WILLNEED")
ADVISED_FROM_BYTES = 1 << 28
# A request costs boto3 1.5 ms of processor time, and a further megabyte of its answer 1 ms (measured against a server
# on the same machine): spans that are so near are fetched together.
MERGED_GAP_BYTES = 1 << 16
# Longer ranges are fetched in parts at the same time.
RANGE_BYTES = 4 << 20


@dataclass(frozen=True)
class Span:
    """Tokens that stand in one shard, and where they go."""

    shard: int
    start: int
    length: int
    place: int


class TokenStream(ABC):
    """Tokens 0 … num_tokens-1. Picklable: another process opens the shards anew.

    Raises ValueError where `dtype` is none of DTYPES, or a shard's size is no whole number of them.
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[int], dtype: str):
        if dtype not in DTYPES:
            raise ValueError(f"tokens are stored as uint16 or uint32, not {dtype!r}: take the tokens node's dtype")
        self.dtype = np.dtype(dtype).newbyteorder("<")
        for name, size in zip(names, sizes, strict=True):
            if size % self.dtype.itemsize:
                raise ValueError(f"{name} holds {size} bytes, no whole number of {dtype} tokens: check the dtype")
        # Shard s holds the tokens bounds[s] … bounds[s+1]-1.
        self.bounds = np.concatenate([[0], np.cumsum(np.array(sizes, dtype=np.int64) // self.dtype.itemsize)])
        self.num_shards = len(sizes)
        self.num_tokens = int(self.bounds[-1])

    def read(
        self,
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        out: npt.NDArray[np.int64],
        places: npt.NDArray[np.int64],
    ) -> None:
        """Copies the tokens starts[i] … starts[i]+lengths[i]-1 to out[places[i]] and after, for every i.

        `out` has one dimension. All tokens must be of the stream.
        """
        assert not len(starts) or (starts.min() >= 0 and (starts + lengths).max() <= self.num_tokens)
        first = np.searchsorted(self.bounds, starts, side="right") - 1
        spans = []
        for shard, start, length, place in zip(
            first.tolist(), starts.tolist(), lengths.tolist(), places.tolist(), strict=True
        ):
            while length:  # a span may go on in the next shards, of which some may be empty
                here = min(length, int(self.bounds[shard + 1]) - start)
                if here:
                    spans.append(Span(shard, start - int(self.bounds[shard]), here, place))
                shard, start, length, place = shard + 1, start + here, length - here, place + here
        self._copy(spans, out)

    @abstractmethod
    def _copy(self, spans: list[Span], out: npt.NDArray[np.int64]) -> None: ...


class LocalStream(TokenStream):
    """Memory-mapped files."""

    def __init__(self, paths: Sequence[Path], dtype: str):
        self.paths = tuple(Path(path) for path in paths)
        super().__init__([str(path) for path in self.paths], [path.stat().st_size for path in self.paths], dtype)
        self._advised = ADVISED and self.num_tokens * self.dtype.itemsize >= ADVISED_FROM_BYTES
        self._maps: dict[int, tuple[mmap.mmap, npt.NDArray[np.unsignedinteger]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A map would be pickled as its contents.
        return {**self.__dict__, "_maps": {}}

    def _copy(self, spans: list[Span], out: npt.NDArray[np.int64]) -> None:
        if self._advised:  # all spans are asked for before the first is waited for
            for span in spans:
                first, end = (place * self.dtype.itemsize for place in (span.start, span.start + span.length))
                first -= first % mmap.PAGESIZE
                self._map(span.shard)[0].madvise(mmap.MADV_WILLNEED, first, end - first)
        for span in spans:
            _, tokens = self._map(span.shard)
            out[span.place : span.place + span.length] = tokens[span.start : span.start + span.length]

    def _map(self, shard: int) -> tuple[mmap.mmap, npt.NDArray[np.unsignedinteger]]:
        found = self._maps.get(shard)
        if found is None:
            with self.paths[shard].open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if self._advised:  # else the kernel reads 128 KB around every window, and throws them away
                mapped.madvise(mmap.MADV_RANDOM)
            found = self._maps[shard] = mapped, np.frombuffer(mapped, dtype=self.dtype)
        return found


class StoreStream(TokenStream):
    """Range requests, as many at a time as the store bears.

    Ranges carry no checksum of their own: a flipped byte at rest is found by `headrace verify --deep`.
    """

    def __init__(self, store: Store, files: Sequence[OutputFile], dtype: str):
        self.store, self.files = store, tuple(files)
        super().__init__([file.path for file in self.files], [file.bytes for file in self.files], dtype)

    def _copy(self, spans: list[Span], out: npt.NDArray[np.int64]) -> None:
        def fetch(group: list[Span]) -> None:
            start = group[0].start
            tokens = self._fetch(group[0].shard, start, max(span.start + span.length for span in group) - start)
            for span in group:
                at = span.start - start
                out[span.place : span.place + span.length] = tokens[at : at + span.length]

        self.store.concurrently(fetch, self._ranges(spans))

    def _ranges(self, spans: list[Span]) -> list[list[Span]]:
        """The spans in groups that are fetched by one request each."""
        gap, longest = MERGED_GAP_BYTES // self.dtype.itemsize, RANGE_BYTES // self.dtype.itemsize
        cut = [
            Span(span.shard, span.start + done, min(longest, span.length - done), span.place + done)
            for span in spans
            for done in range(0, span.length, longest)
        ]
        groups: list[list[Span]] = []
        shard, end = -1, 0
        for span in sorted(cut, key=lambda span: (span.shard, span.start)):
            far = span.shard != shard or span.start > end + gap
            if far or span.start + span.length > groups[-1][0].start + longest:
                groups.append([])
                shard, end = span.shard, 0
            groups[-1].append(span)
            end = max(end, span.start + span.length)
        return groups

    def _fetch(self, shard: int, start: int, length: int) -> npt.NDArray[np.unsignedinteger]:
        file, size = self.files[shard], self.dtype.itemsize
        try:
            data = self.store.get_range(file.path, start * size, length * size)
        except FileNotFoundError:
            data = b""
        if len(data) != length * size:
            raise DamagedOutput(
                f"{self.store.url_of(file.path)} is gone or shorter than its manifest says: `headrace verify` lists "
                "what is, `headrace run` rebuilds it"
            )
        return np.frombuffer(data, dtype=self.dtype)


def document_lengths(tokens: Checkpoint, part: str) -> Iterator[npt.NDArray[np.int64]]:
    """Tokens of each document, with end-of-text, shard by shard."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for file in tokens.files("index.parquet", stage=part):
        yield pq.read_table(pa.BufferReader(tokens.read(file)), columns=["length"])["length"].to_numpy()


def stream_of(tokens: Checkpoint, part: str, from_store: bool = False) -> TokenStream:
    """One part (train or heldout) of what the tokens node left.

    Args:
        from_store: read ranges as they are needed, instead of copying whole shards to this machine first. Needless
            where the store is of local files.
    """
    files = tokens.files("tokens.bin", stage=part)
    dtype = str(tokens.manifest.metrics["dtype"])
    if from_store and files and tokens.store.local_path(files[0].path) is None:
        return StoreStream(tokens.store, files, dtype)
    return LocalStream([tokens.local_path(file) for file in files], dtype)
