"""The memory of keys and values in blocks: who holds which, what is shared, what is kept for prompts to come.

A sequence's table names the blocks that its tokens lie in (PagedAttention: Kwon et al. 2023, arXiv:2309.06180, section
4). Blocks are shared by sequences that begin alike and by the answers to one prompt, counted by references, and copied
before one of several holders writes. A full block is known by a hash of its tokens and of all before them, once its
keys and values are written; one that nobody holds any more is kept until its room is needed, the longest unused first.

No tensor is here: `Blocks` decides, and whoever holds the tensors follows. Free of torch.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


class OutOfBlocks(Exception):
    """Not as many blocks are free; nothing was changed."""


@dataclass
class Table:
    """Where a sequence's tokens lie. Only `Blocks` changes it."""

    blocks: list[int] = field(default_factory=list)
    length: int = 0
    """Tokens that have a place."""
    hashes: list[bytes] = field(default_factory=list)
    """Of its first full blocks, as far as they are published."""


@dataclass(frozen=True)
class Copy:
    """The first `count` tokens of a block are to be copied to another, before anything is written there."""

    source: int
    target: int
    count: int


class Blocks:
    """All blocks of one memory."""

    def __init__(self, num_blocks: int, block_size: int, *, keeps: bool = True):
        """`keeps` full blocks for prompts to come; else none is shared but by answers to one prompt."""
        if num_blocks < 1 or block_size < 1:
            raise ValueError(f"{num_blocks} blocks of {block_size} tokens hold nothing: give more memory")
        self.num_blocks, self.block_size, self.keeps = num_blocks, block_size, keeps
        self._free = list(range(num_blocks))[::-1]
        self._references = [0] * num_blocks
        self._by_hash: dict[bytes, int] = {}
        self._hash_of: dict[int, bytes] = {}
        self._unused: OrderedDict[int, None] = OrderedDict()
        """Published blocks that nobody holds, the longest unused first."""

    @property
    def num_available(self) -> int:
        """Blocks that can be taken: empty ones, and those kept for prompts to come."""
        return len(self._free) + len(self._unused)

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks that so many tokens lie in."""
        return -(-num_tokens // self.block_size)

    def begin(self, tokens: Sequence[int]) -> Table:
        """A table that shares what stands of the tokens' beginning: `length` of them need not be computed again. The
        last token always does, as its output is wanted."""
        table, parent = Table(), b""
        for first in range(0, len(tokens) - self.block_size, self.block_size):
            parent = _hash(parent, tokens[first : first + self.block_size])
            block = self._by_hash.get(parent)
            if block is None:
                break
            self._hold(block)
            table.blocks.append(block)
            table.hashes.append(parent)
        table.length = len(table.blocks) * self.block_size
        return table

    def needed(self, table: Table, count: int) -> int:
        """Blocks that `extend` would take."""
        taken = self.blocks_for(table.length + count) - len(table.blocks)
        return taken + (count > 0 and self._is_shared_within(table))

    def extend(self, table: Table, count: int) -> list[Copy]:
        """Gives places to `count` more tokens.

        Returns:
            What is to be copied first.

        Raises:
            OutOfBlocks: there are not enough.
        """
        if self.needed(table, count) > self.num_available:
            raise OutOfBlocks
        copies = []
        if count > 0 and self._is_shared_within(table):
            source, target = table.blocks[-1], self._take()
            copies.append(Copy(source, target, table.length % self.block_size))
            table.blocks[-1] = target
            self._let_go(source)
        table.length += count
        while len(table.blocks) < self.blocks_for(table.length):
            table.blocks.append(self._take())
        return copies

    def publish(self, table: Table, tokens: Sequence[int]) -> None:
        """Makes the table's full blocks known by their tokens, of which `tokens` are the first; their keys and values
        are written. A block whose like is known already stays unknown."""
        if not self.keeps:
            return
        full = min(len(tokens), table.length) // self.block_size
        for place in range(len(table.hashes), full):
            parent = table.hashes[-1] if table.hashes else b""
            key = _hash(parent, tokens[place * self.block_size : (place + 1) * self.block_size])
            table.hashes.append(key)
            block = table.blocks[place]
            if key not in self._by_hash and block not in self._hash_of:
                self._by_hash[key] = block
                self._hash_of[block] = key

    def fork(self, table: Table) -> Table:
        """Another sequence that begins with all of this one's tokens."""
        for block in table.blocks:
            self._hold(block)
        return Table(list(table.blocks), table.length, list(table.hashes))

    def cut(self, table: Table, length: int) -> None:
        """Takes back all places behind the first `length` tokens."""
        assert length <= table.length
        kept = self.blocks_for(length)
        for block in reversed(table.blocks[kept:]):
            self._let_go(block)
        del table.blocks[kept:], table.hashes[length // self.block_size :]
        table.length = length

    def release(self, table: Table) -> None:
        """The sequence is over. A prompt's last blocks are the first to make room: without those before, they are of no
        use."""
        self.cut(table, 0)

    def forget(self) -> None:
        """Nothing that was computed stands any more: the weights are others. No sequence is under way."""
        assert not any(self._references), "sequences are under way"
        self._free += self._unused
        self._unused.clear()
        self._by_hash.clear()
        self._hash_of.clear()

    def slots(self, table: Table, first: int, last: int) -> np.ndarray:
        """Where the tokens first … last − 1 lie: int64 [last − first], counted in tokens over all blocks."""
        assert last <= table.length
        places = np.arange(first, last)
        return np.asarray(table.blocks, dtype=np.int64)[places // self.block_size] * self.block_size + (
            places % self.block_size
        )

    def _is_shared_within(self, table: Table) -> bool:
        """Whether the next token's place is in a block that others hold, or that is known by tokens that were cut."""
        if table.length % self.block_size == 0:
            return False
        block = table.blocks[-1]
        return self._references[block] > 1 or block in self._hash_of

    def _hold(self, block: int) -> None:
        self._references[block] += 1
        self._unused.pop(block, None)

    def _let_go(self, block: int) -> None:
        self._references[block] -= 1
        if self._references[block]:
            return
        if block in self._hash_of:
            self._unused[block] = None
        else:
            self._free.append(block)

    def _take(self) -> int:
        """An empty block, with one reference."""
        if self._free:
            block = self._free.pop()
        else:
            block, _ = self._unused.popitem(last=False)
            del self._by_hash[self._hash_of.pop(block)]
        self._references[block] = 1
        return block


def _hash(parent: bytes, tokens: Sequence[int]) -> bytes:
    return hashlib.blake2b(parent + np.asarray(tokens, dtype="<i8").tobytes(), digest_size=16).digest()
