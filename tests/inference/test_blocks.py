"""Every sequence finds its own tokens, whatever is shared, copied, cut or thrown out, and no block is ever lost."""

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from ray_jobs.inference.blocks import Blocks, Copy, OutOfBlocks, Table

SIZE = 4


class Memory(RuleBasedStateMachine):
    """Blocks, and beside them a memory in which every token stands with all before it, as keys and values do."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = Blocks(12, SIZE)
        self.cells: list[tuple[int, ...] | None] = [None] * (12 * SIZE)
        self.alive: list[tuple[Table, list[int]]] = []

    sequences = Bundle("sequences")

    def write(self, table: Table, tokens: list[int], first: int) -> None:
        for place, slot in enumerate(self.blocks.slots(table, first, len(tokens)), first):
            self.cells[slot] = tuple(tokens[: place + 1])

    def extended(self, table: Table, tokens: list[int], new: list[int]) -> bool:
        before, held = self.blocks.num_available, (list(table.blocks), table.length)
        needed = self.blocks.needed(table, len(new))
        try:
            copies = self.blocks.extend(table, len(new))
        except OutOfBlocks:
            assert needed > before == self.blocks.num_available
            assert (table.blocks, table.length) == held
            return False
        for copy in copies:
            for i in range(copy.count):
                self.cells[copy.target * SIZE + i] = self.cells[copy.source * SIZE + i]
        first = len(tokens)
        tokens += new
        self.write(table, tokens, first)
        return True

    # Few different tokens, so that many sequences begin alike.
    @rule(target=sequences, tokens=st.lists(st.integers(0, 1), min_size=1, max_size=14))
    def begin(self, tokens: list[int]) -> tuple[Table, list[int]]:
        table = self.blocks.begin(tokens)
        assert table.length < len(tokens) and table.length % SIZE == 0
        own = tokens[: table.length]
        if not self.extended(table, own, tokens[table.length :]):
            self.blocks.release(table)
            own = []
        one = (table, own)
        self.alive.append(one)
        return one

    @rule(one=sequences, new=st.lists(st.integers(0, 1), max_size=6))
    def extend(self, one: tuple[Table, list[int]], new: list[int]) -> None:
        self.extended(*one, new)

    @rule(one=sequences)
    def publish(self, one: tuple[Table, list[int]]) -> None:
        self.blocks.publish(*one)

    @rule(target=sequences, one=sequences)
    def fork(self, one: tuple[Table, list[int]]) -> tuple[Table, list[int]]:
        other = (self.blocks.fork(one[0]), list(one[1]))
        self.alive.append(other)
        return other

    @rule(one=sequences, share=st.floats(0, 1))
    def cut(self, one: tuple[Table, list[int]], share: float) -> None:
        length = int(share * len(one[1]))
        self.blocks.cut(one[0], length)
        del one[1][length:]

    @rule(one=consumes(sequences))
    def release(self, one: tuple[Table, list[int]]) -> None:
        self.blocks.release(one[0])
        self.alive = [other for other in self.alive if other is not one]

    @invariant()
    def every_sequence_finds_its_own_tokens(self) -> None:
        for table, tokens in self.alive:
            assert table.length == len(tokens)
            slots = self.blocks.slots(table, 0, len(tokens))
            assert [self.cells[slot] for slot in slots] == [tuple(tokens[: i + 1]) for i in range(len(tokens))]

    @invariant()
    def blocks_are_held_or_available(self) -> None:
        held = {block for table, _ in self.alive for block in table.blocks}
        assert len(held) + self.blocks.num_available == self.blocks.num_blocks

    def teardown(self) -> None:
        for table, _ in self.alive:
            self.blocks.release(table)
        assert self.blocks.num_available == self.blocks.num_blocks


TestMemory = Memory.TestCase
TestMemory.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_a_prompt_shares_what_stands_of_its_beginning_but_never_its_last_token() -> None:
    blocks = Blocks(8, SIZE)
    prompt = list(range(2 * SIZE))
    first = blocks.begin(prompt)
    assert first.length == 0
    blocks.extend(first, len(prompt))
    assert blocks.begin(prompt).length == 0  # not published: its keys and values may not be written
    blocks.publish(first, prompt)
    again = blocks.begin(prompt)
    assert (again.length, again.blocks) == (SIZE, first.blocks[:1])
    longer = blocks.begin([*prompt, 99])
    assert (longer.length, longer.blocks) == (2 * SIZE, first.blocks)
    assert blocks.begin([7, *prompt]).length == 0


def test_answers_to_one_prompt_share_it_and_copy_only_what_they_write_into() -> None:
    blocks = Blocks(8, SIZE)
    prompt = blocks.begin(list(range(6)))
    blocks.extend(prompt, 6)
    answers = [prompt, *(blocks.fork(prompt) for _ in range(2))]
    assert blocks.num_available == 6
    copies = [blocks.extend(answer, 1) for answer in answers]
    # The last that writes is the only one left in the block.
    assert [len(copy) for copy in copies] == [1, 1, 0]
    assert copies[0] == [Copy(prompt_block := answers[2].blocks[1], answers[0].blocks[1], 2)]
    assert prompt_block != answers[1].blocks[1]
    assert len({answer.blocks[0] for answer in answers}) == 1 and blocks.num_available == 4


def test_tokens_that_are_cut_from_a_known_block_stay_known_and_others_come_beside_them() -> None:
    blocks = Blocks(8, SIZE)
    tokens = list(range(2 * SIZE))
    table = blocks.begin(tokens)
    blocks.extend(table, len(tokens))
    blocks.publish(table, tokens)
    known = list(table.blocks)
    blocks.cut(table, 6)  # as of a draft whose last two tokens are refused
    assert blocks.extend(table, 2) == [Copy(known[1], table.blocks[1], 2)]
    assert blocks.begin([*tokens, 99]).blocks == known
    other = [*tokens[:6], 50, 51]
    blocks.publish(table, other)
    assert blocks.begin([*other, 99]).blocks == table.blocks != known


def test_kept_blocks_make_room_the_longest_unused_first_and_a_prompts_end_before_its_beginning() -> None:
    blocks = Blocks(4, SIZE)
    for base in (0, 100):
        prompt = list(range(base, base + 2 * SIZE))
        table = blocks.begin(prompt)
        blocks.extend(table, len(prompt))
        blocks.publish(table, prompt)
        blocks.release(table)
    assert blocks.num_available == 4
    blocks.extend(blocks.begin([55]), 1)
    assert blocks.begin([*range(8), 0]).length == SIZE  # the first prompt's second block is gone
    assert blocks.begin([*range(100, 108), 0]).length == 2 * SIZE


def test_ten_thousand_random_requests_lose_no_block() -> None:
    chance = random.Random(0)
    blocks = Blocks(64, 16)
    running: list[tuple[Table, list[int]]] = []
    for _ in range(10_000):
        if running and chance.random() < 0.5:  # over, or cancelled in the middle
            blocks.release(running.pop(chance.randrange(len(running)))[0])
        prompt = [chance.randrange(3)] * chance.randrange(1, 200)
        table = blocks.begin(prompt)
        try:
            blocks.extend(table, len(prompt) - table.length)
        except OutOfBlocks:
            blocks.release(table)
            continue
        blocks.publish(table, prompt)
        running.append((table, prompt))
    for table, _ in running:
        blocks.release(table)
    assert blocks.num_available == 64


def test_paging_wastes_under_4_percent_on_a_realistic_mix() -> None:
    """Prompts of 16–512 and answers of 16–256 tokens, log-uniform: what is taken beyond the tokens."""
    random_lengths = np.random.default_rng(0)
    lengths = sum(np.exp(random_lengths.uniform(np.log(16), np.log(top), 1000)) for top in (512, 256)).astype(int)
    blocks = Blocks(100_000, 16)
    taken = sum(blocks.blocks_for(int(length)) * 16 for length in lengths)
    assert (taken - lengths.sum()) / taken < 0.04
    assert 0.6 < 1 - lengths.sum() / (1000 * 768) < 0.8  # contiguous memory for the longest


def test_no_memory_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="give more memory"):
        Blocks(0, 16)
