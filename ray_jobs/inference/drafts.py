"""Drafts: the text's own past, or a smaller model.

Shapes: R rows, V vocabulary.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from configs.inference import EngineSpec
from ray_jobs.inference.blocks import Table
from ray_jobs.inference.decoding import DRAW_DRAFT, Rows, drawn, probabilities, uniform
from ray_jobs.inference.request import Request
from ray_jobs.inference.sequences import Sequences
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
        spec = (spec or EngineSpec()).model_copy(update={"prefix_cache": False})
        self.num_tokens, self.count = num_tokens, count
        self.sequences = Sequences(model, num_tokens, spec)
        self._tables: dict[int, Table] = {}
        self._computed: dict[int, list[int]] = {}
        """The tokens whose keys and values lie in the table, by request."""

    def forget(self, request: Request) -> None:
        if request.id in self._tables:
            self.sequences.blocks.release(self._tables.pop(request.id))
            del self._computed[request.id]

    @torch.inference_mode()
    def propose(self, requests: Sequence[Request], most: Sequence[int]) -> list[Proposal]:
        """Draws `count` tokens one after another, of all requests at once. A repetition penalty is left out: what it
        changes is corrected when the model verifies."""
        context = self.sequences.context
        writing = [
            (request, min(self.count, count, context - request.length))
            for request, count in zip(requests, most, strict=True)
        ]
        drafted: dict[int, list[int]] = {}
        probs: dict[int, list[torch.Tensor]] = {}
        active = self._with_room([request for request, count in writing if count > 0 and self._caught_up(request)])
        left = {request.id: count for request, count in writing}
        while active:
            rows = Rows.of([request.spec for request in active], self.num_tokens, self.sequences.forward.device)
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
            active = self._with_room([request for request in active if left[request.id] > 0])
        return [
            Proposal(
                tuple(drafted.get(request.id, ())), torch.stack(probs[request.id]) if request.id in probs else None
            )
            for request, _ in writing
        ]

    def _caught_up(self, request: Request) -> bool:
        """Computes what the draft has not seen of the request but its last token; False where blocks are out."""
        tokens = request.tokens
        table, known = self._tables.setdefault(request.id, Table()), self._computed.setdefault(request.id, [])
        equal = next((place for place, pair in enumerate(zip(known, tokens, strict=False)) if pair[0] != pair[1]), None)
        kept = min(len(known) if equal is None else equal, len(tokens) - 1)
        self.sequences.blocks.cut(table, kept)
        del known[kept:]
        missing = tokens[kept:-1]
        if self.sequences.blocks.needed(table, len(missing)) > self.sequences.blocks.num_available:
            self.forget(request)
            return False
        if missing:
            self.sequences.prefill(table, missing)
            known += missing
        return True

    def _with_room(self, requests: list[Request]) -> list[Request]:
        """Those that can be extended by a token, the first first."""
        blocks, taken, kept = self.sequences.blocks, 0, []
        for request in requests:
            taken += blocks.needed(self._tables[request.id], 1)
            if taken > blocks.num_available:
                break
            kept.append(request)
        return kept

    def _logits(self, active: list[Request], drafted: dict[int, list[int]]) -> torch.Tensor:
        """Behind each request's last token, drafted ones included: [R, V]."""
        entries = []
        for request in active:
            token = drafted[request.id][-1] if request.id in drafted else request.tokens[-1]
            self._computed[request.id].append(token)
            entries.append((self._tables[request.id], token))
        return self.sequences.decode(entries)
