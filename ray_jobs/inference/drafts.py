"""Drafts: the text's own past, or a smaller model.

Shapes: R rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from configs.inference import EngineSpec
from ray_jobs.inference.attention import Step, Stretch
from ray_jobs.inference.blocks import Blocks, OutOfBlocks, Table
from ray_jobs.inference.decoding import DRAW_DRAFT, Rows, drawn, probabilities, uniform
from ray_jobs.inference.forward import Decoded, Forward
from ray_jobs.inference.memory import Memory
from ray_jobs.inference.request import Request
from ray_jobs.inference.speculation import Proposal

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NgramDraft:
    """Proposes what followed the last tokens where they stood before, in prompt or answer ("prompt lookup decoding",
    Saxena 2023): free, and good where an answer repeats its prompt."""

    def __init__(self, count: int = 8, longest: int = 4, shortest: int = 2):
        """
        Args:
            count: tokens proposed.
            longest: tokens that must have stood before; if they have not, one less is looked for.
            shortest: down to this many.
        """
        if not 1 <= shortest <= longest or count < 1:
            raise ValueError(f"n-grams of {shortest} to {longest} tokens propose nothing: give 1 ≤ shortest ≤ longest")
        self.count, self.longest, self.shortest = count, longest, shortest

    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[Proposal]:
        return [self._of(request.tokens, min(self.count, count)) for request, count in zip(requests, most, strict=True)]

    def forget(self, request: Request) -> None:
        """Nothing is kept."""

    def _of(self, tokens: list[int], count: int) -> Proposal:
        text = np.array(tokens)
        for length in range(min(self.longest, len(text) - 1), self.shortest - 1, -1):
            windows = np.lib.stride_tricks.sliding_window_view(text[:-1], length)
            found = np.flatnonzero((windows == text[-length:]).all(axis=1))
            if len(found):
                first = int(found[-1]) + length
                return Proposal(tuple(tokens[first : first + max(0, count)]))
        return Proposal()


class ModelDraft:
    """Proposes what a smaller model of the same vocabulary draws, by the request's own settings."""

    def __init__(self, model: "PreTrainedModel", num_tokens: int, count: int = 4, spec: EngineSpec | None = None):
        """
        Args:
            model: of transformers; its attention is replaced.
            num_tokens: of the vocabulary, which is the target's.
            count: tokens proposed.
            spec: of its memory, beside the target's.
        """
        spec = spec or EngineSpec()
        self.num_tokens, self.count = num_tokens, count
        self.blocks = Blocks(spec.num_blocks, spec.block_size, keeps=False)
        self.memory = Memory(model, spec.num_blocks, spec.block_size, spec.kv_dtype)
        widest = spec.num_blocks
        self.forward = Forward(model, self.memory, num_tokens, compiled=spec.compiled, widest=widest)
        self._tables: dict[int, Table] = {}
        self._computed: dict[int, list[int]] = {}
        """The tokens whose keys and values lie in the table, by request."""

    def forget(self, request: Request) -> None:
        if request.id in self._tables:
            self.blocks.release(self._tables.pop(request.id))
            del self._computed[request.id]

    @torch.inference_mode()
    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[Proposal]:
        """Draws `count` tokens one after another, of all requests at once. A repetition penalty is left out: what it
        changes is corrected when the model verifies."""
        writing = [(request, min(self.count, count)) for request, count in zip(requests, most, strict=True)]
        drafted: dict[int, list[int]] = {}
        probs: dict[int, list[torch.Tensor]] = {}
        active = [request for request, count in writing if count > 0 and self._caught_up(request)]
        left = {request.id: count for request, count in writing}
        while active:
            rows = Rows.of([request.spec for request in active], self.num_tokens, self.forward.device)
            probs_RV = probabilities(self._logits(active, drafted), rows)
            numbers = [
                uniform(request.spec.seed, len(request.answer) + len(drafted.get(request.id, ())), DRAW_DRAFT)
                for request in active
            ]
            for row, (request, token) in enumerate(zip(active, drawn(probs_RV, numbers).tolist(), strict=True)):
                drafted.setdefault(request.id, []).append(token)
                if not request.spec.greedy:
                    probs.setdefault(request.id, []).append(probs_RV[row].clone())
                left[request.id] -= 1
            active = [request for request in active if left[request.id] > 0 and self._room(request)]
        return [
            Proposal(
                tuple(drafted.get(request.id, ())), torch.stack(probs[request.id]) if request.id in probs else None
            )
            for request, _ in writing
        ]

    def _caught_up(self, request: Request) -> bool:
        """Computes what the draft has not seen of the request but its last token, for which there is a place then;
        False where blocks are out."""
        tokens = request.tokens
        table, known = self._tables.setdefault(request.id, Table()), self._computed.setdefault(request.id, [])
        equal = next((place for place, pair in enumerate(zip(known, tokens, strict=False)) if pair[0] != pair[1]), None)
        kept = min(len(known) if equal is None else equal, len(tokens) - 1)
        self.blocks.cut(table, kept)
        del known[kept:]
        missing = tokens[kept:-1]
        try:
            self.memory.copy(self.blocks.extend(table, len(missing) + 1))
        except OutOfBlocks:
            self.forget(request)
            return False
        if missing:
            last = kept + len(missing)
            slots = self.blocks.slots(table, 0, last)
            stretch = Stretch(0, len(missing), self.forward.on_device(slots))
            device = self.forward.device
            nothing = torch.zeros(0, dtype=torch.int32, device=device)
            step = Step(self.memory, self.forward.on_device(slots[kept:]), nothing.view(0, 0), nothing, (stretch,))
            self.forward.logits(np.array(missing), np.arange(kept, last), step, slice(0, 0))
            known += missing
        return True

    def _room(self, request: Request) -> bool:
        try:
            self.memory.copy(self.blocks.extend(self._tables[request.id], 1))
        except OutOfBlocks:
            return False
        return True

    def _logits(self, active: list[Request], drafted: dict[int, list[int]]) -> torch.Tensor:
        """Behind each request's last token, drafted ones included, for which there is a place: [R, V]."""
        tables = [self._tables[request.id] for request in active]
        tokens = [drafted[request.id][-1] if request.id in drafted else request.tokens[-1] for request in active]
        for request, token in zip(active, tokens, strict=True):
            self._computed[request.id].append(token)
        lengths_R = np.array([table.length for table in tables], dtype=np.int32)
        slots = [int(self.blocks.slots(table, table.length - 1, table.length)[0]) for table in tables]
        tables_RB = np.zeros((len(tables), max(len(table.blocks) for table in tables)), dtype=np.int32)
        for row, table in enumerate(tables):
            tables_RB[row, : len(table.blocks)] = table.blocks
        return self.forward.decode(
            Decoded(np.array(tokens), lengths_R.astype(np.int64) - 1, np.array(slots), lengths_R, tables_RB)
        )
