"""Continuous batching: requests come and go at any step, and every step computes a token of all that are under way.

A step decodes one token of every running request – more, where a draft proposes some – and with what is left of its
tokens goes on with the prompts of those that wait, in their order, in chunks (Agrawal et al. 2023, arXiv:2308.16369).
When blocks run out, the request that came last gives its own up and waits again; what it wrote stands, and its keys and
values are computed anew (Kwon et al. 2023, section 4.5). The answer to a request is the same in any company.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from configs.inference import DecodingSpec, EngineSpec
from ray_jobs.inference.attention import Stretch
from ray_jobs.inference.blocks import OutOfBlocks, Table
from ray_jobs.inference.decoding import Rows, drawn, log_probabilities, penalised, probabilities, uniform
from ray_jobs.inference.forward import Choose
from ray_jobs.inference.request import Reason, Request, TokenLogprobs
from ray_jobs.inference.sequences import Sequences
from ray_jobs.inference.speculation import Acceptance, Draft, Proposal, verified

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NO_PROPOSAL = Proposal()
# Decoded one after another before the host looks: it needs .3 ms a step beside 1 ms of a GPU for a model of 1 B. What
# ends within is computed in vain, half of this on average.
STEPS_AHEAD = 8


@dataclass(frozen=True)
class _Writing:
    """A request that gets tokens in this step, and the first of its rows of logits."""

    request: Request
    first: int
    proposal: Proposal = NO_PROPOSAL

    @property
    def num_rows(self) -> int:
        return len(self.proposal.tokens) + 1


class Engine:
    """Answers requests with one model, on its device."""

    def __init__(
        self,
        model: "PreTrainedModel",
        num_tokens: int,
        end_tokens: Sequence[int] = (),
        decode: Callable[[list[int]], str] | None = None,
        spec: EngineSpec | None = None,
        draft: Draft | None = None,
    ):
        """
        Args:
            model: of transformers; its attention is replaced, and its weights may from now on change in place only.
            num_tokens: of the vocabulary, without the embedding's padding.
            end_tokens: each ends an answer.
            decode: ids to text; needed for stop texts.
            spec: memory and work of a step.
            draft: proposes tokens; the answers are distributed as without, and greedy ones are the same.

        Raises:
            ValueError: the model is not one that can be served so.
        """
        self.spec = spec = spec or EngineSpec()
        self.model, self.num_tokens, self.end_tokens, self.decode = model, num_tokens, set(end_tokens), decode
        self.sequences = Sequences(model, num_tokens, spec)
        self.blocks, self.context = self.sequences.blocks, self.sequences.context
        self.step_tokens = max(spec.step_tokens, spec.max_running)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self.num_preempted = 0
        self.acceptance = Acceptance()
        self._draft = draft
        self._ids = itertools.count()
        self._rows: tuple[tuple[int, ...], Rows] | None = None

    def add(self, prompt: Sequence[int], spec: DecodingSpec, num_answers: int = 1) -> list[Request]:
        """Takes a request in; its answers differ by their seeds, which count up from the spec's.

        Raises:
            ValueError: prompt and answer do not fit the model or the memory, or the prompt is none.
        """
        self.check(prompt, spec, num_answers)
        requests = [
            Request(next(self._ids), tuple(prompt), spec.model_copy(update={"seed": spec.seed + number}))
            for number in range(num_answers)
        ]
        requests[0].siblings = tuple(requests[1:])
        self.waiting.append(requests[0])
        return requests

    def check(self, prompt: Sequence[int], spec: DecodingSpec, num_answers: int = 1) -> None:
        """Raises what `add` would."""
        if num_answers < 1:
            raise ValueError(f"{num_answers} answers are none: ask for at least one")
        if not prompt:
            raise ValueError("the prompt is empty: give at least one token, such as the one that begins a text")
        if not all(0 <= token < self.num_tokens for token in prompt):
            raise ValueError(f"the prompt holds a token outside the vocabulary of {self.num_tokens}")
        length = len(prompt) + spec.max_new_tokens
        if length > self.context:
            raise ValueError(
                f"a prompt of {len(prompt)} tokens and an answer of up to {spec.max_new_tokens} are more than the "
                f"model's context of {self.context}: shorten the prompt, or lower max_new_tokens"
            )
        copied = self.blocks.keeps or num_answers > 1  # a shared last block
        if self.blocks.blocks_for(length) + copied > self.blocks.num_blocks:
            raise ValueError(
                f"{length} tokens do not fit {self.blocks.num_blocks} blocks of {self.blocks.block_size}: raise "
                "num_blocks, or lower max_new_tokens"
            )
        if spec.stop and self.decode is None:
            raise ValueError("stop texts need the engine's decode, which turns tokens into text")

    def weights_changed(self) -> None:
        """To be called when the model's weights were changed in place: what was computed by the old ones is forgotten.

        Raises:
            ValueError: requests are under way.
        """
        if self.running or any(request.table.blocks for request in self.waiting):
            raise ValueError("requests are under way, by the weights that were: run or cancel them first")
        self.blocks.forget()

    def cancel(self, request: Request) -> None:
        """Ends a request; what it has written stays."""
        if request.reason is not None:
            return
        self.waiting.extend(one for one in request.siblings if one.reason is None)  # each with a prompt of its own now
        request.siblings = ()
        if request in self.waiting:
            self.waiting.remove(request)
        self._end(request, "cancelled")

    def run(self) -> None:
        """Until nothing is under way."""
        while self.waiting or self.running:
            self.step()

    @torch.inference_mode()
    def step(self) -> list[Request]:
        """Computes a token of every running request, and of those whose prompt is complete with it. Returns them."""
        if self._can_run_ahead():
            return self._run_ahead()
        decoded = self._room_for_decoding(self._proposals())
        num_rows = sum(writing.num_rows for writing in decoded)
        prompts = self._prompts(self.step_tokens - num_rows, num_rows)
        if not decoded and not prompts:
            return []
        complete = [(request, stretch) for request, stretch in prompts if request.table.length == request.length]
        rows = self.sequences.rows(self._entries(decoded))
        if prompts:
            parts = [
                (request.table, request.tokens[request.table.length - stretch.count : request.table.length], stretch)
                for request, stretch in prompts
            ]
            places = [*range(num_rows), *(stretch.first + stretch.count - 1 for _, stretch in complete)]
            logits_RV = self.sequences.compute(rows, parts, places)
        else:
            logits_RV = self.sequences.forward.decode(rows)
        for request, _ in prompts:
            self._publish(request)
        for request, _ in complete:
            self.waiting.remove(request)
        writing = [*decoded, *self._begun([request for request, _ in complete], num_rows)]
        if writing:
            self._write(writing, logits_RV)
        return [one.request for one in writing]

    def _can_run_ahead(self) -> bool:
        """Whether some steps can follow one another without the host: nothing waits, there are blocks, and what a row
        draws needs nothing but its logits."""
        if not self.sequences.forward.replays or self.waiting or not self.running or self._draft is not None:
            return False
        if any(request.spec.repetition_penalty != 1 or request.spec.logprobs is not None for request in self.running):
            return False
        if max(request.length for request in self.running) + STEPS_AHEAD > self.context:
            return False
        needed = sum(self.blocks.needed(request.table, STEPS_AHEAD) for request in self.running)
        return needed <= self.blocks.num_available

    def _run_ahead(self) -> list[Request]:
        """As `STEPS_AHEAD` steps; what is written behind an end is thrown away."""
        left = max(request.spec.max_new_tokens - len(request.answer) for request in self.running)
        count, running = min(STEPS_AHEAD, left), list(self.running)
        entries = self._entries([_Writing(request, row) for row, request in enumerate(running)])
        for request in running:
            self.sequences.extend(request.table, count)
        rows = self.sequences.rows(entries, ahead=count - 1)
        tokens = self.sequences.forward.decode_ahead(rows, count, self._choice(running, count)).T.tolist()
        for request, new in zip(running, tokens, strict=True):
            self._append(request, new, [])
        return running

    def _choice(self, running: list[Request], count: int) -> Choose | None:
        """How the next `count` tokens are drawn; None: the likeliest."""
        if all(request.spec.greedy for request in running):
            return None
        numbers = [[uniform(one.spec.seed, len(one.answer) + step) for one in running] for step in range(count)]
        numbers_SR = torch.tensor(numbers, dtype=torch.float64, device=self.sequences.forward.device)
        rows = self._settings(running)
        return lambda logits_RV, step: drawn(probabilities(logits_RV, rows), numbers_SR[step])

    def _proposals(self) -> list[Proposal]:
        """Of each running request."""
        if self._draft is None:
            return [NO_PROPOSAL] * len(self.running)
        # The model writes one token more than what it accepts.
        most = [request.spec.max_new_tokens - len(request.answer) - 1 for request in self.running]
        return self._draft.propose(self.running, most)

    def _room_for_decoding(self, proposals: list[Proposal]) -> list[_Writing]:
        """The running requests, each with places for its last token and its proposal; those that came last make room
        for others."""
        proposed = dict(zip(self.running, proposals, strict=True))
        for request in list(self.running):
            while request in self.running:
                try:
                    self.sequences.extend(request.table, len(proposed[request].tokens) + 1)
                    break
                except OutOfBlocks:
                    if proposed[request].tokens:
                        proposed[request] = NO_PROPOSAL
                    elif not self._give_up_begun_prompt():
                        self._preempt(self.running[-1])
        writing, first = [], 0
        for request in self.running:
            writing.append(_Writing(request, first, proposed[request]))
            first += writing[-1].num_rows
        return writing

    def _preempt(self, request: Request) -> None:
        self.running.remove(request)
        self.blocks.release(request.table)
        if self._draft is not None:
            self._draft.forget(request)
        self.waiting.appendleft(request)
        self.num_preempted += 1

    def _give_up_begun_prompt(self, but: Request | None = None) -> bool:
        """Takes the blocks of the last waiting request that has some; False where none has."""
        for request in reversed(self.waiting):
            if request.table.blocks and request is not but:
                self.blocks.release(request.table)
                return True
        return False

    def _prompts(self, room: int, first: int) -> list[tuple[Request, Stretch]]:
        """Stretches of waiting prompts, as far as tokens, blocks and rows have room; the first lies at `first` among
        the step's tokens."""
        found: list[tuple[Request, Stretch]] = []
        rows = len(self.running)
        # Left for those that run, lest they are preempted at once.
        kept = sum(self.blocks.needed(request.table, self._soon(request)) for request in self.running)
        for request in self.waiting:
            new_rows = 1 + len(request.siblings)
            if room <= 0 or (rows + new_rows > self.spec.max_running and rows > 0):
                break
            tokens = request.tokens
            if not request.table.blocks:
                request.table = self.blocks.begin(tokens)
            count = min(room, len(tokens) - request.table.length)
            if self.blocks.needed(request.table, count) + kept > self.blocks.num_available and rows > 0:
                break
            while self.blocks.needed(request.table, count) > self.blocks.num_available:
                if found or not self._give_up_begun_prompt(but=request):
                    break
            try:
                self.sequences.extend(request.table, count)
            except OutOfBlocks:
                break
            found.append((request, self.sequences.stretch(request.table, count, first)))
            first += count
            room -= count
            rows += new_rows
        return found

    def _soon(self, request: Request) -> int:
        """Tokens that it may write in the next steps."""
        return min(STEPS_AHEAD, request.spec.max_new_tokens - len(request.answer))

    def _entries(self, decoded: list[_Writing]) -> list[tuple[Table, list[int]]]:
        """Of each running request its last token, and what is proposed behind it."""
        return [(one.request.table, [one.request.answer[-1], *one.proposal.tokens]) for one in decoded]

    def _begun(self, complete: list[Request], num_rows: int) -> list[_Writing]:
        """Requests whose prompt is complete now, and with each those that share it."""
        writing = []
        for row, request in enumerate(complete, start=num_rows):
            group = [request]
            for sibling in request.siblings:
                if sibling.reason is None:
                    sibling.table = self.blocks.fork(request.table)
                    group.append(sibling)
            request.siblings = ()
            self.running += group
            writing += [_Writing(one, row) for one in group]
        return writing

    def _write(self, writing: list[_Writing], logits_RV: Tensor) -> None:
        """Draws tokens, and appends to each request those that stand."""
        order = [place for one in writing for place in range(one.first, one.first + one.num_rows)]
        if order != list(range(len(logits_RV))):
            logits_RV = logits_RV[order]
        raw_RV = logits_RV
        owners = [one.request for one in writing for _ in range(one.num_rows)]
        if all(request.spec.greedy and request.spec.repetition_penalty == 1 for request in owners):
            best = logits_RV.argmax(dim=1).tolist()
            first, new = 0, []
            for one in writing:
                proposed, own = one.proposal.tokens, best[first : first + one.num_rows]
                num_equal = next((place for place, token in enumerate(proposed) if own[place] != token), len(proposed))
                new.append(own[: num_equal + 1])
                first += one.num_rows
        else:
            new = self._drawn(writing, owners, logits_RV)
        kept = self._kept_logprobs(writing, new, raw_RV)
        for one, tokens, logprobs in zip(writing, new, kept, strict=True):
            if one.proposal.tokens:
                self.acceptance.count(len(one.proposal.tokens), len(tokens) - 1)
                self.blocks.cut(one.request.table, one.request.length + len(tokens) - 1)
            self._append(one.request, tokens, logprobs)

    def _drawn(self, writing: list[_Writing], owners: list[Request], logits_RV: Tensor) -> list[list[int]]:
        rows = self._settings(owners)
        if rows.penalises:
            logits_RV = penalised(logits_RV, self._seen(writing, logits_RV), rows)
        probs_RV = probabilities(logits_RV, rows)
        if all(one.num_rows == 1 for one in writing):
            numbers = [uniform(request.spec.seed, len(request.answer)) for request in owners]
            return [[token] for token in drawn(probs_RV, numbers).tolist()]
        first, new = 0, []
        for one in writing:
            probs_kV = probs_RV[first : first + one.num_rows]
            new.append(verified(probs_kV, one.proposal, one.request.spec.seed, len(one.request.answer)))
            first += one.num_rows
        return new

    def _settings(self, owners: list[Request]) -> Rows:
        """Made anew only when the rows change."""
        ids = tuple(request.id for request in owners)
        if self._rows is None or self._rows[0] != ids:
            self._rows = (
                ids,
                Rows.of([request.spec for request in owners], self.num_tokens, self.sequences.forward.device),
            )
        return self._rows[1]

    def _seen(self, writing: list[_Writing], logits_RV: Tensor) -> Tensor:
        """True where a token stands before the row's place: [R, V]."""
        seen_RV = torch.zeros_like(logits_RV, dtype=torch.bool)
        row = 0
        for one in writing:
            for count in range(one.num_rows):
                if one.request.spec.repetition_penalty != 1:
                    tokens = [*one.request.tokens, *one.proposal.tokens[:count]]
                    seen_RV[row, torch.tensor(tokens, device=seen_RV.device)] = True
                row += 1
        return seen_RV

    def _kept_logprobs(
        self, writing: list[_Writing], new: list[list[int]], logits_RV: Tensor
    ) -> list[list[TokenLogprobs]]:
        """Of each new token, for the requests that ask for them."""
        wanted, first = [], 0
        for number, one in enumerate(writing):
            if one.request.spec.logprobs is not None:
                wanted += [(number, first + place, token) for place, token in enumerate(new[number])]
            first += one.num_rows
        kept: list[list[TokenLogprobs]] = [[] for _ in writing]
        if not wanted:
            return kept
        numbers, places, tokens = zip(*wanted, strict=True)
        most = max(writing[number].request.spec.logprobs or 0 for number in numbers)
        values = log_probabilities(logits_RV[list(places)], tokens, most)
        for number, token, (logprob, top) in zip(numbers, tokens, values, strict=True):
            count = writing[number].request.spec.logprobs or 0
            kept[number].append(TokenLogprobs(token, logprob, tuple(top[:count])))
        return kept

    def _append(self, request: Request, tokens: list[int], logprobs: list[TokenLogprobs]) -> None:
        if not request.spec.stop and self.end_tokens.isdisjoint(tokens):
            room = request.spec.max_new_tokens - len(request.answer)
            request.answer += tokens[:room]
            request.logprobs += logprobs[:room]
            return self._end(request, "length") if len(tokens) >= room else self._publish(request)
        for place, token in enumerate(tokens):
            if token in self.end_tokens:
                return self._end(request, "stop")
            request.answer.append(token)
            request.logprobs += logprobs[place : place + 1]
            if request.spec.stop and self.decode is not None:
                text = self.decode(request.answer)
                ends = [found for found in map(text.find, request.spec.stop) if found >= 0]
                if ends:
                    request.text = text[: min(ends)]
                    return self._end(request, "stop")
            if len(request.answer) >= request.spec.max_new_tokens:
                return self._end(request, "length")
        return self._publish(request)

    def _publish(self, request: Request) -> None:
        if request.table.length // self.blocks.block_size > len(request.table.hashes):
            self.blocks.publish(request.table, request.tokens[: request.table.length])

    def _end(self, request: Request, reason: Reason) -> None:
        request.reason = reason
        self.blocks.release(request.table)
        if request in self.running:
            self.running.remove(request)
            if self._draft is not None:
                self._draft.forget(request)
