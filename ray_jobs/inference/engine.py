"""Continuous batching: requests come and go at any step, and every step computes a token of all that are under way.

A step decodes one token of every running request, and with what is left of its tokens goes on with the prompts of those
that wait, in their order, in chunks (Agrawal et al. 2023, arXiv:2308.16369). When blocks run out, the request that came
last gives its own up and waits again; what it wrote stands, and its keys and values are computed anew (Kwon et al.
2023, section 4.5). The answer to a request is the same in any company.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference.blocks import Blocks, OutOfBlocks, Table
from ray_jobs.inference.decoding import Rows, drawn, penalised, probabilities, uniform
from ray_jobs.inference.memory import Memory, Step, Stretch, use_paged_attention
from ray_jobs.model.files import context_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Reason = Literal["stop", "length", "cancelled"]


@dataclass(eq=False)
class Request:
    """A prompt and what is written behind it."""

    id: int
    prompt: tuple[int, ...]
    spec: DecodingSpec
    answer: list[int] = field(default_factory=list)
    reason: Reason | None = None
    """Why it ended: "stop" at an end-of-text token, which is not part of the answer, or a stop text; "length" at
    max_new_tokens. None while it is under way."""
    text: str | None = None
    """The answer up to a stop text, where it ended at one."""
    table: Table = field(default_factory=Table)
    siblings: tuple["Request", ...] = ()
    """Others that answer the same prompt, and begin when its keys and values stand."""

    @property
    def tokens(self) -> list[int]:
        return [*self.prompt, *self.answer]


class Engine:
    """Answers requests with one model, on its device."""

    def __init__(
        self,
        model: "PreTrainedModel",
        num_tokens: int,
        end_tokens: Sequence[int] = (),
        decode: Callable[[list[int]], str] | None = None,
        spec: EngineSpec | None = None,
    ):
        """
        Args:
            model: of transformers; its attention is replaced.
            num_tokens: of the vocabulary, without the embedding's padding.
            end_tokens: each ends an answer.
            decode: ids to text; needed for stop texts.
            spec: memory and work of a step.

        Raises:
            ValueError: the model is not one that can be served so.
        """
        use_paged_attention(model)
        self.model, self.num_tokens, self.end_tokens, self.decode = model.eval(), num_tokens, set(end_tokens), decode
        self.spec = spec = spec or EngineSpec()
        self.blocks = Blocks(spec.num_blocks, spec.block_size)
        self.memory = Memory(model, spec.num_blocks * spec.block_size)
        self.max_running, self.step_tokens = spec.max_running, max(spec.step_tokens, spec.max_running)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.num_preempted = 0
        self._ids = itertools.count()

    def add(self, prompt: Sequence[int], spec: DecodingSpec, num_answers: int = 1) -> list[Request]:
        """Takes a request in; its answers differ by their seeds, which count up from the spec's.

        Raises:
            ValueError: prompt and answer do not fit the model or the memory, or the prompt is none.
        """
        self._check(prompt, spec)
        requests = [
            Request(next(self._ids), tuple(prompt), spec.model_copy(update={"seed": spec.seed + number}))
            for number in range(num_answers)
        ]
        requests[0].siblings = tuple(requests[1:])
        self.waiting.append(requests[0])
        return requests

    def _check(self, prompt: Sequence[int], spec: DecodingSpec) -> None:
        if not prompt:
            raise ValueError("the prompt is empty: give at least one token, such as the one that begins a text")
        if not all(0 <= token < self.num_tokens for token in prompt):
            raise ValueError(f"the prompt holds a token outside the vocabulary of {self.num_tokens}")
        length, context = len(prompt) + spec.max_new_tokens, context_of(self.model)
        if length > context:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and an answer of up to {spec.max_new_tokens} are more than the "
                f"model's context of {context}: shorten the prompt, or lower max_new_tokens"
            )
        # One more: a shared last block is copied.
        if self.blocks.blocks_for(length) + 1 > self.blocks.num_blocks:
            raise ValueError(
                f"{length} tokens do not fit {self.blocks.num_blocks} blocks of {self.blocks.block_size}: raise "
                "num_blocks, or lower max_new_tokens"
            )
        if spec.stop and self.decode is None:
            raise ValueError("stop texts need the engine's decode, which turns tokens into text")

    def cancel(self, request: Request) -> None:
        """Ends a request; what it has written stays."""
        if request.reason is not None:
            return
        self.waiting.extend(request.siblings)  # each with a prompt of its own now
        request.siblings = ()
        if request in self.running:
            self.running.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
        self._end(request, "cancelled")

    def run(self) -> None:
        """Until nothing is under way."""
        while self.waiting or self.running:
            self.step()

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Computes a token of every running request, and of those whose prompt is complete with it. Returns them."""
        decoded = self._room_for_decoding()
        prompts = self._prompts(self.step_tokens - len(decoded))
        if not decoded and not prompts:
            return []
        tokens, positions, step = self._laid_out(decoded, prompts)
        base: Any = self.model.base_model
        hidden_1NH = base(input_ids=tokens, position_ids=positions, use_cache=False, step=step).last_hidden_state
        complete = [(request, stretch) for request, stretch in prompts if request.table.length == len(request.tokens)]
        ends = [*range(len(decoded)), *(stretch.first + stretch.count - 1 for _, stretch in complete)]
        for request in (*decoded, *(request for request, _ in prompts)):
            if request.table.length // self.blocks.block_size > len(request.table.hashes):
                self.blocks.publish(request.table, request.tokens[: request.table.length])
        chosen = [*decoded, *(request for request, _ in complete)]
        if not chosen:
            return []
        logits_RV = self.model.get_output_embeddings()(hidden_1NH[0, ends])[:, : self.num_tokens].float()
        for request, _ in complete:
            self.waiting.remove(request)
        writing, places = self._begun(chosen, len(decoded))
        self._write(writing, logits_RV[places])
        return writing

    def _room_for_decoding(self) -> list[Request]:
        """The running requests, each with a place for its last token; those that came last make room for others."""
        for request in list(self.running):
            while request in self.running:
                try:
                    self.memory.copy(self.blocks.extend(request.table, 1), self.blocks.block_size)
                    break
                except OutOfBlocks:
                    if not self._give_up_begun_prompt():
                        self._preempt(self.running[-1])
        return list(self.running)

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self.blocks.release(request.table)
        self.waiting.appendleft(request)
        self.num_preempted += 1

    def _give_up_begun_prompt(self, but: Request | None = None) -> bool:
        """Takes the blocks of the last waiting request that has some; False where none has."""
        for request in reversed(self.waiting):
            if request.table.blocks and request is not but:
                self.blocks.release(request.table)
                return True
        return False

    def _prompts(self, room: int) -> list[tuple[Request, Stretch]]:
        """Stretches of waiting prompts, as far as tokens, blocks and rows have room. Where they lie among the step's
        tokens is not yet told."""
        found: list[tuple[Request, Stretch]] = []
        rows = len(self.running)
        for request in self.waiting:
            new_rows = 1 + len(request.siblings)
            if room <= 0 or (rows + new_rows > self.max_running and rows > 0):
                break
            tokens = request.tokens
            if not request.table.blocks:
                request.table = self.blocks.begin(tokens)
            count = min(room, len(tokens) - request.table.length)
            # A block is left for each that runs, lest it is preempted in the next step.
            if self.blocks.needed(request.table, count) + len(self.running) > self.blocks.num_available and rows > 0:
                break
            while self.blocks.needed(request.table, count) > self.blocks.num_available:
                if found or not self._give_up_begun_prompt(but=request):
                    break
            try:
                self.memory.copy(self.blocks.extend(request.table, count), self.blocks.block_size)
            except OutOfBlocks:
                break
            slots_L = self._on_device(self.blocks.slots(request.table, 0, request.table.length))
            found.append((request, Stretch(0, count, slots_L)))
            room -= count
            rows += new_rows
        return found

    def _laid_out(self, decoded: list[Request], prompts: list[tuple[Request, Stretch]]) -> tuple[Tensor, Tensor, Step]:
        """Tokens and positions, [1, N], and the step; stretches in `prompts` are told their places."""
        tokens, positions, slots = [], [], []
        for request in decoded:
            tokens.append(request.answer[-1])
            positions.append(request.table.length - 1)
            slots.append(self.blocks.slots(request.table, positions[-1], request.table.length))
        decoded_RL = hidden_RL = None
        if decoded:
            longest = max(request.table.length for request in decoded)
            rows = np.zeros((len(decoded), longest), dtype=np.int64)
            hidden = np.ones((len(decoded), longest), dtype=bool)
            for row, request in enumerate(decoded):
                rows[row, : request.table.length] = self.blocks.slots(request.table, 0, request.table.length)
                hidden[row, : request.table.length] = False
            decoded_RL, hidden_RL = self._on_device(rows), self._on_device(hidden)
        for place, (request, stretch) in enumerate(prompts):
            last = request.table.length
            first = last - stretch.count
            prompts[place] = request, Stretch(len(tokens), stretch.count, stretch.slots_L)
            tokens += request.tokens[first:last]
            positions += range(first, last)
            slots.append(self.blocks.slots(request.table, first, last))
        step = Step(
            self.memory,
            self._on_device(np.concatenate(slots)),
            decoded_RL,
            hidden_RL,
            tuple(stretch for _, stretch in prompts),
        )
        return self._on_device(np.array([tokens])), self._on_device(np.array([positions])), step

    def _begun(self, chosen: list[Request], num_decoded: int) -> tuple[list[Request], list[int]]:
        """All requests that get a token now, and the places of their logits: with a prompt that is complete those begin
        that share it."""
        writing, places = [], []
        for place, request in enumerate(chosen):
            group = [request]
            if place >= num_decoded:
                for sibling in request.siblings:
                    if sibling.reason is None:
                        sibling.table = self.blocks.fork(request.table)
                        group.append(sibling)
                request.siblings = ()
                self.running += group
            writing += group
            places += [place] * len(group)
        return writing, places

    def _write(self, requests: list[Request], logits_RV: Tensor) -> None:
        rows = Rows.of([request.spec for request in requests], self.num_tokens, logits_RV.device)
        if rows.penalises:
            seen_RV = torch.zeros_like(logits_RV, dtype=torch.bool)
            for row, request in enumerate(requests):
                seen_RV[row, torch.tensor(request.tokens, device=seen_RV.device)] = True
            logits_RV = penalised(logits_RV, seen_RV, rows)
        numbers = [uniform(request.spec.seed, len(request.answer)) for request in requests]
        for request, token in zip(requests, drawn(probabilities(logits_RV, rows), numbers).tolist(), strict=True):
            if token in self.end_tokens:
                self._end(request, "stop")
                continue
            request.answer.append(token)
            if request.spec.stop and self.decode is not None:
                text = self.decode(request.answer)
                ends = [place for place in map(text.find, request.spec.stop) if place >= 0]
                if ends:
                    request.text = text[: min(ends)]
                    self._end(request, "stop")
                    continue
            if len(request.answer) >= request.spec.max_new_tokens:
                self._end(request, "length")

    def _end(self, request: Request, reason: Reason) -> None:
        request.reason = reason
        self.blocks.release(request.table)
        if request in self.running:
            self.running.remove(request)

    def _on_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.model.device)
