"""A conversation in the terminal, or with a base model a text that it goes on with."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from configs.inference import EngineSpec
from configs.serve import ChatSpec
from ray_jobs.checkpoint.store import open_store
from ray_jobs.inference.engine import Engine
from ray_jobs.inference.loading import Loaded, load
from ray_jobs.inference.request import Request
from ray_jobs.serve.detokenizer import Detokenizer

HELP = "/reset begins anew, /quit or Ctrl-D ends, Ctrl-C ends the answer"
BLOCK_SIZE = 16
LEAST_ROOM = 4
"""A conversation may fill all but this part of the context; then its oldest turns are left out."""


class Chat:
    """One model and the turns so far."""

    def __init__(self, loaded: Loaded, spec: ChatSpec, out: TextIO):
        self.loaded, self.spec, self.out = loaded, spec, out
        self.context = min(loaded.context, spec.max_context)
        num_blocks = -(-self.context // BLOCK_SIZE) + 2
        engine_spec = EngineSpec(block_size=BLOCK_SIZE, num_blocks=num_blocks, max_running=1)
        self._engine = Engine(loaded.model, loaded.num_tokens, loaded.end_tokens, spec=engine_spec)
        self._interrupted = False
        self._num_answers = 0
        self.reset()

    def reset(self) -> None:
        self.turns: list[dict[str, Any]] = []

    def turn(self, said: str) -> None:
        """Writes the answer as it comes. An interrupted one stays in the conversation as far as it came.

        Raises:
            ValueError: what is said does not fit the context, or the model's form.
        """
        if self.loaded.is_base:
            self._answer(self._fitting(self.loaded.encode(said)))
            return
        self.turns.append({"role": "user", "content": said})
        try:
            prompt = self._prompt()
        except ValueError:
            self.turns.pop()
            raise
        self.turns.append({"role": "assistant", "content": self._answer(prompt)})

    def _prompt(self) -> list[int]:
        """The conversation's tokens; its oldest turns are left out where it is too long."""
        system = [] if self.spec.system is None else [{"role": "system", "content": self.spec.system}]
        while True:
            prompt = self.loaded.encode_chat([*system, *self.turns])
            if len(prompt) <= self.context - self.context // LEAST_ROOM or len(self.turns) < 3:
                return self._fitting(prompt)
            del self.turns[:2]
            self._note("the conversation is longer than the context: its oldest turn is left out from now on")

    def _fitting(self, prompt: list[int]) -> list[int]:
        if len(prompt) >= self.context:
            raise ValueError(
                f"this is {len(prompt)} tokens, and the context is {self.context}: say less, or /reset begins anew"
            )
        return prompt

    def _answer(self, prompt: list[int]) -> str:
        room = self.context - len(prompt)
        decoding = self.spec.decoding
        spec = decoding.model_copy(
            update={
                "max_new_tokens": min(decoding.max_new_tokens, room),
                "seed": decoding.seed + self._num_answers,
                "stop": (),
            }
        )
        self._num_answers += 1
        tokenizer: Any = self.loaded.tokenizer

        def decode(tokens: list[int]) -> str:
            return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

        detokenizer = Detokenizer(decode, prompt, decoding.stop)
        (request,) = self._engine.add(prompt, spec)
        begun, written = time.monotonic(), ""
        with self._interruptible():
            for text in self._texts(request, detokenizer):
                written += text
                self.out.write(text)
                self.out.flush()
        self.out.write("\n")
        seconds = time.monotonic() - begun
        ended = {"length": ", ended at its limit", "cancelled": ", interrupted"}.get(request.reason or "", "")
        if request.reason == "cancelled" and detokenizer.stopped:
            ended = ""
        num_tokens = len(request.answer)
        self._note(f"{num_tokens} tokens in {seconds:.1f} s, {num_tokens / seconds:.1f} tokens/s{ended}")
        return written

    def _texts(self, request: Request, detokenizer: Detokenizer) -> Iterator[str]:
        num_seen = 0
        while request.reason is None:
            self._engine.step()
            for token in request.answer[num_seen:]:
                num_seen += 1
                if not detokenizer.stopped:
                    yield detokenizer.add(token)
            if detokenizer.stopped or self._interrupted:
                self._engine.cancel(request)
        yield detokenizer.finish()

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C is noted, and acted upon between two steps."""

        def note(number: int, frame: object) -> None:
            self._interrupted = True

        self._interrupted = False
        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _note(self, text: str) -> None:
        """For who looks on, and not for who reads the answer from a pipe."""
        if self.out.isatty():
            self.out.write(f"\x1b[2m{text}\x1b[0m\n")
            self.out.flush()


def chat(spec: ChatSpec) -> None:
    """Until /quit or the input's end.

    Raises:
        ValueError: the model cannot be loaded.
    """
    store = None if spec.store is None else open_store(spec.store)
    loaded = load(spec.model, store, spec.device, spec.dtype)
    one = Chat(loaded, spec, sys.stdout)
    kind = "a base model, which goes on with a text" if loaded.is_base else "in conversation"
    print(f"{loaded.name}, {kind}; context {one.context:,} tokens. {HELP}.", file=sys.stderr, flush=True)
    if loaded.is_base and spec.system is not None:
        raise ValueError(f"{loaded.name} is a base model and takes no --system: leave it out")
    for line in _lines("text> " if loaded.is_base else "you> "):
        if line in {"/quit", "/exit"}:
            return
        if line == "/reset":
            one.reset()
        elif line == "/help":
            print(HELP, file=sys.stderr)
        elif line.startswith("/"):
            print(f"{line.split()[0]} is no command: {HELP}", file=sys.stderr)
        elif line:
            try:
                one.turn(line)
            except ValueError as error:
                print(error, file=sys.stderr)
            except KeyboardInterrupt:  # between the line and the answer
                print()


def _lines(prompt: str) -> Iterator[str]:
    """What is typed, a line each, with the keys of readline where there is a terminal."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.strip()
        return
    with contextlib.suppress(ImportError):  # some builds of Python lack it; then there is no editing
        import readline  # noqa: F401
    while True:
        try:
            yield input(prompt).strip()
        except KeyboardInterrupt:
            print(f"\n{HELP}")
        except EOFError:
            print()
            return
