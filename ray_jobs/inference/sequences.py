"""A model with its memory: sequences of tokens that are computed once and extended, each known by its table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from configs.inference import EngineSpec
from ray_jobs.inference.attention import Step, Stretch, use_paged_attention
from ray_jobs.inference.blocks import Blocks, Table
from ray_jobs.inference.forward import Decoded, Forward
from ray_jobs.inference.memory import Memory
from ray_jobs.model.files import context_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Sequences:
    """Blocks, the tensors behind them, and the model that fills them."""

    def __init__(self, model: "PreTrainedModel", num_tokens: int, spec: EngineSpec):
        """
        Args:
            model: of transformers; its attention is replaced.
            num_tokens: of the vocabulary, without the embedding's padding.
            spec: of the memory.

        Raises:
            ValueError: the model is not one that can be served so.
        """
        use_paged_attention(model)
        self.num_tokens, self.context = num_tokens, context_of(model)
        self.blocks = Blocks(spec.num_blocks, spec.block_size, keeps=spec.prefix_cache)
        self.memory = Memory(model, spec.num_blocks, spec.block_size, spec.kv_dtype)
        widest = min(self.blocks.blocks_for(self.context), spec.num_blocks)
        self.forward = Forward(model, self.memory, num_tokens, compiled=spec.compiled, widest=widest)

    def extend(self, table: Table, count: int) -> None:
        """Gives places to `count` more tokens; raises OutOfBlocks where there are none."""
        self.memory.copy(self.blocks.extend(table, count))

    def rows(self, entries: Sequence[tuple[Table, Sequence[int]]], ahead: int = 0) -> Decoded:
        """Rows of decoding for the tokens of each sequence, which take its last places but `ahead`."""
        tokens: list[int] = []
        lengths: list[int] = []
        slots: list[int] = []
        size, row = self.blocks.block_size, 0
        tables_RB = np.zeros(
            (sum(len(new) for _, new in entries), max((len(table.blocks) for table, _ in entries), default=0)),
            dtype=np.int32,
        )
        for table, new in entries:
            tables_RB[row : row + len(new), : len(table.blocks)] = table.blocks
            row += len(new)
            tokens += new
            end = table.length - ahead
            for position in range(end - len(new), end):
                lengths.append(position + 1)
                slots.append(table.blocks[position // size] * size + position % size)
        lengths_R = np.array(lengths, dtype=np.int32)
        positions_R = lengths_R.astype(np.int64) - 1
        return Decoded(np.array(tokens, np.int64), positions_R, np.array(slots, np.int64), lengths_R, tables_RB)

    def stretch(self, table: Table, count: int, first: int) -> Stretch:
        """The sequence's last `count` tokens, which lie at `first` among a step's."""
        return Stretch(first, count, self.forward.on_device(self.blocks.slots(table, 0, table.length)))

    def compute(
        self, rows: Decoded, parts: Sequence[tuple[Table, Sequence[int], Stretch]], places: Sequence[int]
    ) -> Tensor:
        """Logits at `places` of a step of rows and of stretches with their tokens: fp32 [places, V]."""
        tokens, positions, slots = [rows.tokens_R], [rows.positions_R], [rows.slots_R]
        for table, new, stretch in parts:
            first = table.length - stretch.count
            tokens.append(np.array(new, np.int64))
            positions.append(np.arange(first, table.length))
            slots.append(self.blocks.slots(table, first, table.length))
        on_device = self.forward.on_device
        step = Step(
            self.memory,
            on_device(np.concatenate(slots)),
            on_device(rows.tables_RB),
            on_device(rows.lengths_R),
            tuple(stretch for _, _, stretch in parts),
        )
        return self.forward.logits(np.concatenate(tokens), np.concatenate(positions), step, list(places))

    @torch.inference_mode()
    def prefill(self, table: Table, tokens: Sequence[int]) -> Tensor:
        """Extends a sequence by tokens and gives the logits behind the last: fp32 [1, V]."""
        self.extend(table, len(tokens))
        parts = [(table, tokens, self.stretch(table, len(tokens), 0))]
        return self.compute(self.rows([]), parts, [len(tokens) - 1])

    @torch.inference_mode()
    def decode(self, entries: Sequence[tuple[Table, int]]) -> Tensor:
        """Extends each sequence by a token and gives the logits behind it, fp32 [R, V]; the next call may overwrite
        them."""
        for table, _ in entries:
            self.extend(table, 1)
        return self.forward.decode(self.rows([(table, [token]) for table, token in entries]))
