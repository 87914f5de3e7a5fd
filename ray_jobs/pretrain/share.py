"""Which samples of every global batch a rank works through. Free of torch.

Where the ranks do not divide the batch, some score one sequence fewer. FSDP's forward and backward are collective, so
all ranks run equally many micro-batches, and of the same shapes, or torch.compile would build more than one graph: a
rank that scores one fewer takes along the sample before its own, which the rank before it scores. Its targets are
ignored here: loss and gradient are sums over the scored tokens, which it adds nothing to.
"""

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

log = logging.getLogger("headrace")


@dataclass(frozen=True)
class Share:
    """A rank's samples of a global batch, counted from the batch's first."""

    global_batch: int
    first: int
    count: int
    """On every rank the same."""
    ignored: int
    """So many of them, 0 or 1, the first, are scored by another rank."""
    micro_batch: int
    """Sequences at once; the last micro-batch may hold fewer."""

    @property
    def num_micro_batches(self) -> int:
        return math.ceil(self.count / self.micro_batch)

    def ignored_of(self, number: int) -> int:
        """How many of a micro-batch's first sequences another rank scores."""
        return self.ignored if number == 0 else 0

    def samples_of(self, batch: int, number: int) -> range:
        """The samples of a micro-batch of the global batch, in the run's fixed order."""
        first = batch * self.global_batch + self.first
        start = number * self.micro_batch
        return range(first + start, first + min(start + self.micro_batch, self.count))

    def requests(self, batches: Iterable[int]) -> Iterator[tuple[int, int]]:
        """First sample and count of every micro-batch of these global batches."""
        for batch in batches:
            for number in range(self.num_micro_batches):
                samples = self.samples_of(batch, number)
                yield samples.start, len(samples)


def share_of(global_batch: int, rank: int, world: int, micro_batch: int | None) -> Share:
    """The share of one of `world` ranks. `micro_batch` None is all of it at once."""
    count = math.ceil(global_batch / world)
    whole, rest = divmod(global_batch, world)
    scored = whole + (rank < rest)
    end = whole * (rank + 1) + min(rank + 1, rest)
    return Share(global_batch, end - count, count, count - scored, micro_batch or count)


def idle_share(global_batch: int, world: int) -> float:
    """Which part of the ranks' work is on sequences that they do not score."""
    return 1 - global_batch / (math.ceil(global_batch / world) * world)
