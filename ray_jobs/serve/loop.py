"""One thread owns the engine; whoever asks is elsewhere, and gets text as it is written.

Commands (answer this, cancel that) wait in a queue that the thread empties between steps. After a step the new text of
all answers goes to the event loops of those who asked, in one call each. How many answers may be under way is bounded
here: who comes beyond that is refused at once.
"""

import asyncio
import contextlib
import math
import queue
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from configs.inference import DecodingSpec
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.request import Request, TokenLogprobs
from ray_jobs.serve.detokenizer import Detokenizer
from ray_jobs.serve.metrics import Metrics

Reason = Literal["stop", "length"]
WARM_UP_TOKENS = 3
"""Prompt, one token behind it, and one more."""
EVENT_SECONDS = 0.02
"""Between two pieces of an answer, at the least: nobody reads faster, and every piece costs time that the engine's
thread waits for."""
SMOOTHING = 0.1
"""Weight of the newest answer in the mean time of an answer."""
MOST_RETRY_SECONDS = 60


class QueueFull(Exception):
    """As many answers wait as may."""

    def __init__(self, retry_seconds: int):
        super().__init__(f"too many requests wait: try again in {retry_seconds} s")
        self.retry_seconds = retry_seconds


class EngineStopped(Exception):
    """The engine's thread has ended, by its own fault or because the server stops."""


@dataclass(frozen=True)
class WrittenToken:
    id: int
    offset: int
    """Where its text begins in the answer's, in characters."""
    logprobs: TokenLogprobs | None


@dataclass(frozen=True)
class Piece:
    """What is new of one answer."""

    index: int
    """Of the answer: the prompt's place times the answers to each, plus its number among them."""
    text: str
    tokens: tuple[WrittenToken, ...]
    reason: Reason | None
    """Why the answer is over, or None while it is not."""
    num_tokens: int
    """Written so far, those of a stop text included."""

    def followed_by(self, other: "Piece") -> "Piece":
        return Piece(self.index, self.text + other.text, self.tokens + other.tokens, other.reason, other.num_tokens)


@dataclass(eq=False)
class _Answer:
    index: int
    detokenizer: Detokenizer
    num_seen: int = 0
    text: str = ""
    """Not yet told."""
    tokens: list[WrittenToken] = field(default_factory=list)
    """Those of the text, and of what is held back."""
    told_at: float = 0.0
    first_at: float = 0.0
    last_at: float = 0.0


class Answers:
    """The answers to one request. Iterating gives their pieces, mixed, until all are over; then it ends.

    Raises:
        ValueError: the engine does not take the prompt.
        EngineStopped: see there.
    """

    def __init__(
        self,
        loop: "EngineLoop",
        prompts: Sequence[Sequence[int]],
        spec: DecodingSpec,
        num_answers: int,
        as_written: bool,
    ):
        self.prompts, self.spec, self.num_answers, self.as_written = prompts, spec, num_answers, as_written
        self.num_left = len(prompts) * num_answers
        """Answers that are not over. Only the engine's thread changes it."""
        self.cancelled = False
        self.asked_at = time.monotonic()
        self.events = asyncio.get_running_loop()
        self._loop = loop
        self._pieces: dict[int, Piece] = {}
        """What was not taken yet: of an answer one piece, however slow the taker is."""
        self._error: Exception | None = None
        self._something = asyncio.Event()
        self._num_awaited = self.num_left

    async def __aiter__(self) -> AsyncIterator[Piece]:
        while self._num_awaited:
            await self._something.wait()
            self._something.clear()
            pieces, self._pieces = self._pieces, {}
            for piece in pieces.values():
                self._num_awaited -= piece.reason is not None
                yield piece
            if self._error is not None:
                raise self._error

    def cancel(self) -> None:
        """Ends what is not over. May be called at any time, and again."""
        if not self.cancelled:
            self.cancelled = True
            self._loop.cancel(self)

    def put(self, piece: Piece | Exception) -> None:
        """In the event loop of the asker."""
        if isinstance(piece, Exception):
            self._error = piece
        else:
            before = self._pieces.get(piece.index)
            self._pieces[piece.index] = piece if before is None else before.followed_by(piece)
        self._something.set()


class EngineLoop:
    """The thread and its queue."""

    def __init__(self, engine: Engine, decode: Callable[[list[int]], str], max_queued: int, metrics: Metrics):
        """
        Args:
            decode: ids to text, without special tokens.
            max_queued: answers that may wait while the engine writes as many as it can.
        """
        self.engine, self.decode, self.metrics = engine, decode, metrics
        self.max_open = engine.spec.max_running + max_queued
        """Answers that may be under way."""
        self.num_open = 0
        self._lock = threading.Lock()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._under_way: set[Answers] = set()
        self._answers: dict[Request, tuple[Answers, _Answer]] = {}
        self._requests: dict[Answers, list[Request]] = {}
        self._answer_seconds = 1.0
        self.warm = self._stopping = self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        blocks = engine.blocks
        metrics.watch(
            {
                "answers_running": ("Answers being written", lambda: len(engine.running)),
                "answers_waiting": ("Answers that wait to begin", lambda: max(0, self.num_open - len(engine.running))),
                "blocks": ("Blocks of the memory for keys and values", lambda: blocks.num_blocks),
                "blocks_in_use": ("Of these, held by answers", lambda: blocks.num_blocks - blocks.num_available),
            },
            lambda: engine.num_preempted,
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends all answers and the thread, and waits for it."""

        def command() -> None:
            self._stopping = True

        self._commands.put(command)
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def stopped(self) -> bool:
        return self._closed

    def submit(
        self,
        prompts: Sequence[Sequence[int]],
        spec: DecodingSpec,
        num_answers: int = 1,
        as_written: bool = True,
    ) -> Answers:
        """Has all prompts answered, `num_answers` times each, or none. To be called in an event loop.

        Args:
            as_written: every answer comes in pieces, and not in one when it is over.

        Raises:
            QueueFull: too many answers are under way.
            EngineStopped: see there.
        """
        answers = Answers(self, prompts, spec, num_answers, as_written)
        with self._lock:
            if self._closed:
                raise EngineStopped("the engine has stopped: look at the server's log, and start it again")
            if self.num_open + answers.num_left > self.max_open:
                raise QueueFull(self._retry_seconds())
            self.num_open += answers.num_left
            self._under_way.add(answers)
            self._commands.put(lambda: self._begin(answers))
        self.metrics.prompt_tokens.inc(sum(map(len, prompts)))
        return answers

    def cancel(self, answers: Answers) -> None:
        self._commands.put(lambda: self._cancel(answers))

    def _retry_seconds(self) -> int:
        """When about a half of what waits will have been answered."""
        waiting = max(1, self.num_open - self.engine.spec.max_running)
        seconds = self._answer_seconds * waiting / self.engine.spec.max_running / 2
        return min(MOST_RETRY_SECONDS, max(1, math.ceil(seconds)))

    def _run(self) -> None:
        try:
            # What is compiled is compiled now, and not while the first client waits.
            self.engine.add([0], DecodingSpec(temperature=0, max_new_tokens=WARM_UP_TOKENS))
            self.engine.run()
            self.warm = True
            while not self._stopping:
                self._obey()
                if self.engine.waiting or self.engine.running:
                    self._tell(self.engine.step())
        finally:
            self._close()

    def _obey(self) -> None:
        """Takes all commands; waits for one where there is nothing else to do."""
        wait = not (self.engine.waiting or self.engine.running)
        while not self._stopping:
            try:
                command = self._commands.get(block=wait)
            except queue.Empty:
                return
            command()
            wait = False

    def _begin(self, answers: Answers) -> None:
        if answers.cancelled:
            self._over(answers, answers.num_left)
            return
        # Stop texts are found here, where text is made anyway, and not by the engine.
        spec = answers.spec.model_copy(update={"stop": ()})
        requests = self._requests[answers] = []
        for place, prompt in enumerate(answers.prompts):
            try:
                added = self.engine.add(prompt, spec, answers.num_answers)
            except ValueError as error:
                self._fail(answers, error)
                return
            for number, request in enumerate(added):
                detokenizer = Detokenizer(self.decode, prompt, answers.spec.stop)
                answer = _Answer(place * answers.num_answers + number, detokenizer)
                self._answers[request] = answers, answer
                requests.append(request)

    def _cancel(self, answers: Answers) -> None:
        for request in self._requests.pop(answers, ()):
            if self._answers.pop(request, None) is not None:
                self.engine.cancel(request)
                self.metrics.answers.labels("cancelled").inc()
        self._over(answers, answers.num_left)

    def _fail(self, answers: Answers, error: Exception) -> None:
        self._cancel(answers)
        _call(answers.events, [(answers, error)])

    def _over(self, answers: Answers, count: int) -> None:
        answers.num_left -= count
        with self._lock:
            self.num_open -= count
            if not answers.num_left:
                self._under_way.discard(answers)
                self._requests.pop(answers, None)

    def _tell(self, written: list[Request]) -> None:
        now = time.monotonic()
        told: dict[asyncio.AbstractEventLoop, list[tuple[Answers, Piece | Exception]]] = defaultdict(list)
        for request in written:
            found = self._answers.get(request)
            if found is None:
                continue
            answers, answer = found
            piece = self._piece(request, answers, answer, now)
            if piece is not None:
                told[answers.events].append((answers, piece))
        for events, pieces in told.items():
            _call(events, pieces)

    def _piece(self, request: Request, answers: Answers, answer: _Answer, now: float) -> Piece | None:
        detokenizer = answer.detokenizer
        num_before = answer.num_seen
        for token in request.answer[answer.num_seen :]:
            place = answer.num_seen
            logprobs = request.logprobs[place] if answers.spec.logprobs is not None else None
            answer.tokens.append(WrittenToken(token, detokenizer.length, logprobs))
            answer.num_seen += 1
            answer.text += detokenizer.add(token)
            if detokenizer.stopped:
                break
        if answer.num_seen > num_before:
            self.metrics.written_tokens.inc(answer.num_seen - num_before)
            if not num_before:
                answer.first_at = now
                self.metrics.first_token_seconds.observe(now - answers.asked_at)
            answer.last_at = now
        reason: Reason | None = None
        if detokenizer.stopped:
            self.engine.cancel(request)  # does nothing where it is over
            reason = "stop"
        elif request.reason is not None:
            answer.text += detokenizer.finish()
            reason = "length" if request.reason == "length" and not detokenizer.stopped else "stop"
        if reason is not None:
            del self._answers[request]
            self._over(answers, 1)
            self._measure(answer, reason, now - answers.asked_at)
        if reason is None and not (answers.as_written and answer.text and now - answer.told_at >= EVENT_SECONDS):
            return None
        kept = [one for one in answer.tokens if not detokenizer.stopped or one.offset < detokenizer.length]
        piece = Piece(answer.index, answer.text, tuple(kept), reason, answer.num_seen)
        answer.text, answer.tokens, answer.told_at = "", [], now
        return piece

    def _measure(self, answer: _Answer, reason: Reason, seconds: float) -> None:
        self._answer_seconds += SMOOTHING * (seconds - self._answer_seconds)
        self.metrics.answers.labels(reason).inc()
        if answer.num_seen > 1:
            self.metrics.token_seconds.observe((answer.last_at - answer.first_at) / (answer.num_seen - 1))

    def _close(self) -> None:
        with self._lock:
            self._closed = True
            left = list(self._under_way)
            self._under_way.clear()
            self.num_open = 0
        for answers in left:
            _call(
                answers.events,
                [(answers, EngineStopped("the engine has stopped, and this answer with it: ask again"))],
            )


def _call(events: asyncio.AbstractEventLoop, pieces: list[tuple[Answers, Piece | Exception]]) -> None:
    def put() -> None:
        for answers, piece in pieces:
            answers.put(piece)

    with contextlib.suppress(RuntimeError):  # the asker's loop is closed: nobody listens
        events.call_soon_threadsafe(put)
