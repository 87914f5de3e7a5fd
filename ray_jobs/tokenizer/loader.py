"""Training sequences from the shards that the `tokens` node leaves: a fixed global order, read from any place
in it.

All shards together are one stream of tokens, cut into windows of `sequence_length` tokens; window w is the
tokens [w·L, w·L + L + 1), so its last token is the next one's first, and no target is lost at the seams (of
windows or of shards). An epoch visits every window once, in the order of a keyed `Permutation` of its own.
Sample i of a run is therefore a function of (shards, L, seed, i) alone, found in O(1): with a global batch of
B, step s is the samples s·B … s·B+B-1, and any number of ranks shares them out as it likes. Training that
stops on 8 ranks goes on with 3 at the very next sample.

    dataset = TokenDataset(paths, dtype="uint16", sequence_length=128, seed=7)
    batch = dataset.batch(first=step * B + rank * (B // world), count=B // world)
    inputs, targets = batch[:, :-1], batch[:, 1:]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.tokenizer.permutation import Permutation

DTYPES = ("uint16", "uint32")


class TokenDataset:
    """Windows of `sequence_length` tokens (+ 1 for the shift) over memory-mapped token shards, globally
    shuffled.

    `paths` are raw little-endian arrays of `dtype`, in the node's order of shards (the order is part of the
    identity: keep the one of `Checkpoint.files("tokens.bin", stage=…)`). `len(dataset)` is the number of
    sequences of one epoch. Raises ValueError when the shards hold no single window or their size does not fit
    `dtype`.
    """

    def __init__(self, paths: Sequence[Path], dtype: str, sequence_length: int, seed: int):
        if dtype not in DTYPES:
            raise ValueError(f"tokens are stored as uint16 or uint32, not {dtype!r}: take the tokens node's dtype")
        if sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1, not {sequence_length}")
        self.paths = tuple(Path(path) for path in paths)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.sequence_length = sequence_length
        self.seed = seed
        sizes = [path.stat().st_size for path in self.paths]
        for path, size in zip(self.paths, sizes, strict=True):
            if size % self.dtype.itemsize:
                raise ValueError(f"{path} holds {size} bytes, no whole number of {dtype} tokens: check the dtype")
        # Shard s holds the tokens bounds[s] … bounds[s+1]-1 of the stream.
        self._bounds = np.concatenate([[0], np.cumsum(np.array(sizes, dtype=np.int64) // self.dtype.itemsize)])
        self.num_tokens = int(self._bounds[-1])
        self._length = (self.num_tokens - 1) // sequence_length if self.num_tokens else 0
        if self._length == 0:
            raise ValueError(
                f"{self.num_tokens} tokens in {len(self.paths)} shards hold no sequence of "
                f"{sequence_length} + 1: take a shorter sequence_length or more documents"
            )
        self._maps: dict[int, np.ndarray] = {}
        self._permutations: dict[int, Permutation] = {}

    def __len__(self) -> int:
        return self._length

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as its contents: another process maps the files anew.
        return {**self.__dict__, "_maps": {}}

    def windows(self, first: int, count: int) -> np.ndarray:
        """The windows that the samples `first` … `first+count-1` of the run show: int64 [count]."""
        if first < 0 or count < 0:
            raise ValueError(f"samples are counted from 0: first={first}, count={count}")
        samples = np.arange(first, first + count, dtype=np.int64)
        epochs, places = np.divmod(samples, self._length)
        windows = np.empty(count, dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            windows[chosen] = self._permutation(epoch)(places[chosen])
        return windows

    def batch(self, first: int, count: int) -> np.ndarray:
        """The samples `first` … `first+count-1`: int64 [count, sequence_length + 1]; sample i is of epoch i
        // len(self)."""
        return self.read(self.windows(first, count))

    def read(self, windows: np.ndarray) -> np.ndarray:
        """The given windows in the given order, unshuffled: int64 [len(windows), sequence_length + 1]."""
        width = self.sequence_length + 1
        out = np.empty((len(windows), width), dtype=np.int64)
        starts = np.asarray(windows, dtype=np.int64) * self.sequence_length
        shards = np.searchsorted(self._bounds, starts, side="right") - 1
        offsets = starts - self._bounds[shards]
        for row, shard, offset in zip(out, shards.tolist(), offsets.tolist(), strict=True):
            tokens = self._map(shard)[offset : offset + width]
            row[: len(tokens)] = tokens
            filled = len(tokens)
            while filled < width:  # the window goes on in the next shards, of which some may be empty
                shard += 1
                tokens = self._map(shard)[: width - filled]
                row[filled : filled + len(tokens)] = tokens
                filled += len(tokens)
        return out

    def _map(self, shard: int) -> np.ndarray:
        tokens = self._maps.get(shard)
        if tokens is None:
            num_tokens = int(self._bounds[shard + 1] - self._bounds[shard])
            # An empty file cannot be mapped. The plain array view spares memmap's slow slicing.
            tokens = (
                np.asarray(np.memmap(self.paths[shard], dtype=self.dtype, mode="r", shape=(num_tokens,)))
                if num_tokens
                else np.empty(0, dtype=self.dtype)
            )
            self._maps[shard] = tokens
        return tokens

    def _permutation(self, epoch: int) -> Permutation:
        permutation = self._permutations.get(epoch)
        if permutation is None:
            # A batch spans two epochs at the most that matter: do not collect those of a long run.
            if len(self._permutations) >= 4:
                self._permutations.clear()
            permutation = self._permutations[epoch] = Permutation(self._length, self.seed, stream=epoch)
        return permutation
