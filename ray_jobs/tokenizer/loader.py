"""Training sequences from the shards that the `tokens` node leaves: a fixed global order, read from any place
in it.

The stream of all shards is cut into windows of `sequence_length` tokens; window w is the tokens
[w·L, w·L + L + 1), so its last token is the next one's first, and no target is lost at the seams (of
windows or of shards). An epoch visits every window once, in the order of a keyed `Permutation` of its own.
Sample i of a run is therefore a function of (shards, L, seed, i) alone, found in O(1): with a global batch of
B, step s is the samples s·B … s·B+B-1, and any number of ranks shares them out as it likes. Training that
stops on 8 ranks goes on with 3 at the very next sample.

    dataset = TokenDataset(stream_of(tokens, "train"), sequence_length=128, seed=7)
    batch = dataset.batch(first=step * B + rank * (B // world), count=B // world)
    inputs, targets = batch[:, :-1], batch[:, 1:]

An object store answers some hundreds of requests a second and client, whatever their size. Where windows are to be
read from there, `run_length` neighbours are visited one after another, and one request fetches them; the order
of runs is shuffled instead. The tokens node has shuffled the documents of each shard, so that neighbours are
random documents of one shard, or one long document. The order stays a function of (shards, L, run_length,
seed, i), and ranks that share a run fetch their own windows of it only.
"""

from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ray_jobs.tokenizer.permutation import Permutation
from ray_jobs.tokenizer.streams import TokenStream

B_co = TypeVar("B_co", covariant=True)
B = TypeVar("B")


class Batches(Protocol[B_co]):
    """Samples of a fixed order."""

    def batch(self, first: int, count: int) -> B_co: ...


class ShuffledOrder:
    """Which of `num_items` items sample i of a run shows: every epoch all of them once, in an order of its own.

    With `run_length` above 1 runs of neighbours stay together; the items after the last whole run end every epoch.
    """

    def __init__(self, num_items: int, seed: int, run_length: int = 1):
        if run_length < 1:
            raise ValueError(f"run_length must be at least 1, not {run_length}")
        self.num_items, self.seed = num_items, seed
        # A corpus that is no whole run has one order only.
        self.run_length = min(run_length, num_items)
        self._num_runs = num_items // self.run_length
        self._permutations: dict[int, Permutation] = {}

    def __call__(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """The items of the samples `first` … `first+count-1`: int64 [count]."""
        if first < 0 or count < 0:
            raise ValueError(f"samples are counted from 0: first={first}, count={count}")
        samples = np.arange(first, first + count, dtype=np.int64)
        epochs, places = np.divmod(samples, self.num_items)
        runs, within = np.divmod(places, self.run_length)
        for epoch in np.unique(epochs).tolist():
            chosen = (epochs == epoch) & (runs < self._num_runs)
            runs[chosen] = self._permutation(epoch)(runs[chosen])
        return runs * self.run_length + within

    def _permutation(self, epoch: int) -> Permutation:
        permutation = self._permutations.get(epoch)
        if permutation is None:
            # A batch spans two epochs at the most that matter: do not collect those of a long run.
            if len(self._permutations) >= 4:
                self._permutations.clear()
            permutation = self._permutations[epoch] = Permutation(self._num_runs, self.seed, stream=epoch)
        return permutation


class TokenDataset:
    """Windows of `sequence_length` tokens (+ 1 for the shift) of a stream, globally shuffled.

    `len(dataset)` is the number of sequences of one epoch. Raises ValueError when the stream holds no single window.
    """

    def __init__(self, stream: TokenStream, sequence_length: int, seed: int, run_length: int = 1):
        if sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1, not {sequence_length}")
        self.stream = stream
        self.sequence_length = sequence_length
        num_windows = (stream.num_tokens - 1) // sequence_length if stream.num_tokens else 0
        if num_windows == 0:
            raise ValueError(
                f"{stream.num_tokens} tokens in {stream.num_shards} shards hold no sequence of "
                f"{sequence_length} + 1: take a shorter sequence_length or more documents"
            )
        self.windows = ShuffledOrder(num_windows, seed, run_length)
        """windows(first, count): those that the samples first … first+count-1 show, int64 [count]."""

    def __len__(self) -> int:
        return self.windows.num_items

    def batch(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """The samples `first` … `first+count-1`: int64 [count, sequence_length + 1]; sample i is of epoch i
        // len(self)."""
        return self.read(self.windows(first, count))

    def read(self, windows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The given windows in the given order, unshuffled: int64 [len(windows), sequence_length + 1]."""
        width = self.sequence_length + 1
        windows = np.asarray(windows, dtype=np.int64)
        out = np.empty(len(windows) * width, dtype=np.int64)
        places = np.arange(len(windows), dtype=np.int64) * width
        self.stream.read(windows * self.sequence_length, np.full(len(windows), width, dtype=np.int64), out, places)
        return out.reshape(len(windows), width)


def read_ahead(samples: Batches[B], requests: Iterable[tuple[int, int]], depth: int = 2) -> Generator[B]:
    """`samples.batch(first, count)` of each request in turn, while `depth` later ones are read in threads.

    What is read is the same as without; only the waiting for a disk or a network goes on beside the computation.
    """
    if depth < 1:
        raise ValueError(f"depth must be at least 1, not {depth}")
    waiting: list[Future[B]] = []
    with ThreadPoolExecutor(depth, thread_name_prefix="read-ahead") as pool:
        try:
            for first, count in requests:
                waiting.append(pool.submit(samples.batch, first, count))
                if len(waiting) > depth:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:  # whoever takes no more does not wait for what is not begun
            for future in waiting:
                future.cancel()
