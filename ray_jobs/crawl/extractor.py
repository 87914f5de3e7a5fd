"""`extraction: quality`: main text by a worker process that may be slow, leak or crash, and is replaced when it does.

What a page may cost is limited by counts first (bytes, nesting, attributes, tags), which are the same on every machine.
The clock is the last resort: a page that exceeds it is tried once more, by a fresh worker and with ten times the limit,
and is then dropped as `timeout`. Such a shard may come out otherwise on another machine, and its counters say so.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any

from configs.crawl import FilterSpec
from ray_jobs.cluster.fan_out import UserError
from ray_jobs.crawl.extractor_worker import NOT_IMPORTED, PAGE, READY, TEXT
from ray_jobs.crawl.text import is_tangled

PRECISE = "ray_jobs.crawl.precise:precise_text"
WORKER = "ray_jobs.crawl.extractor_worker"


@dataclass(frozen=True)
class Limits:
    """What one page, and one worker, may cost."""

    tags: int = 100_000
    """Angle brackets in a page. trafilatura takes about 25 microseconds a tag; of 413 real pages the one with the most
    has 13,000."""
    seconds: float = 10.0
    """CPU seconds a page."""
    patience: float = 10.0
    """So many times `seconds` at the second try."""
    memory_bytes: int = 2 << 30
    """Address space of a worker. trafilatura holds 160 MiB for pages of 500,000 characters."""
    pages: int = 2000
    """After so many a worker is replaced, whatever it has leaked until then."""


class Lost(Exception):
    """A page whose text cannot be had: the reason for the audit, with its value and threshold."""

    def __init__(self, reason: str, value: float | None = None, threshold: float | None = None):
        super().__init__(reason)
        self.reason, self.value, self.threshold = reason, value, threshold


class _Died(Exception):
    def __init__(self, exit_status: int):
        super().__init__(f"the extractor's worker ended with {exit_status}")
        self.by_clock = -exit_status in {signal.SIGPROF, signal.SIGALRM}


class Extractor:
    """Extracts one page at a time, in a worker that is started when the first comes. Not thread-safe.

    Args:
        function: "module:name", imported by the worker, from HTML to text or None.
    """

    def __init__(self, function: str = PRECISE, limits: Limits | None = None):
        self._function, self._limits = function, limits or Limits()
        self._worker: _Worker | None = None
        self._second_tries = self._timeouts = self._deaths = 0
        self.workers_started = 0

    def __enter__(self) -> "Extractor":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end_worker()

    def text_of(self, html: str) -> str | None:
        """The page's main text, "" where there is none, None where its markup is a tangle.

        Where trafilatura finds no main text there is none: resiliparse finds some in 1 of the 4 such pages among 413
        real ones, and a text that only the laxer of two extractors sees is not what precision is chosen for.

        Raises:
            Lost: it has too many tags, or the worker ran out of time or died, twice.
            UserError: the worker cannot import the function.
            RuntimeError: the worker does not start for another reason.
        """
        limits = self._limits
        if is_tangled(html):
            return None
        num_tags = html.count("<")
        if num_tags > limits.tags:
            raise Lost("too_many_tags", num_tags, limits.tags)
        page = html.encode("utf-8", "replace")
        with contextlib.suppress(_Died):
            return self._ask(page, limits.seconds)
        self._second_tries += 1
        seconds = limits.seconds * limits.patience
        try:
            return self._ask(page, seconds)
        except _Died as death:
            if death.by_clock:
                self._timeouts += 1
                raise Lost("timeout", threshold=seconds) from death
            self._deaths += 1
            raise Lost("extractor_died") from death

    def counters(self) -> dict[str, int]:
        """`clock_decided`: pages that a faster machine might have kept."""
        return {"clock_decided": self._timeouts}

    def info(self) -> dict[str, Any]:
        told: dict[str, Any] = {"second_tries": self._second_tries}
        if self._timeouts or self._deaths:
            told["may_not_reproduce"] = (
                f"{self._timeouts} pages ran out of time and {self._deaths} out of memory or into a crash: "
                "another machine may keep them"
            )
        return told

    def _ask(self, page: bytes, seconds: float) -> str:
        if self._worker is not None and self._worker.num_pages >= self._limits.pages:
            self._end_worker()
        if self._worker is None:
            self._worker = _Worker(self._function, self._limits.memory_bytes)
            self.workers_started += 1
        try:
            return self._worker.ask(page, seconds)
        except _Died:
            self._end_worker()
            raise

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _Worker:
    """A running worker process.

    Raises:
        UserError, RuntimeError: it does not start.
    """

    def __init__(self, function: str, memory_bytes: int):
        # Ours is the path on which the function is found; a fixed hash seed gives sets the same order in every worker.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, function, str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._pages: IO[bytes] = self._process.stdin
        self._texts: IO[bytes] = self._process.stdout
        self.num_pages = 0
        if self._texts.read(len(READY)) != READY:
            status = self._process.wait()
            self.end()
            if status == NOT_IMPORTED:
                raise UserError(
                    f"{sys.executable} cannot import {function}, which filter's extraction 'quality' needs: run "
                    "`pip install 'trafilatura>=2.3,<2.4' lxml_html_clean`, or set filter.extraction to 'fast'"
                )
            raise RuntimeError(f"the extractor's worker ended with {status} at its start: its stderr says why")

    def ask(self, page: bytes, seconds: float) -> str:
        """The page's text, "" where there is none.

        Raises:
            _Died: the worker ended instead of answering.
        """
        self.num_pages += 1
        try:
            self._pages.write(PAGE.pack(len(page), seconds))
            self._pages.write(page)
            self._pages.flush()
            (size,) = TEXT.unpack(self._read(TEXT.size))
            return self._read(size).decode() if size > 0 else ""
        except (BrokenPipeError, EOFError) as error:
            raise _Died(self._process.wait()) from error

    def _read(self, size: int) -> bytes:
        data = self._texts.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def end(self) -> None:
        """It holds nothing that would be lost, so it is killed."""
        self._process.kill()
        self._process.wait()
        self._texts.close()
        with contextlib.suppress(BrokenPipeError):  # of what a page's write left in the buffer
            self._pages.close()


@contextlib.contextmanager
def extractor_for(spec: FilterSpec) -> Iterator[Extractor | None]:
    """The extractor that the spec asks for, ended with the block; None where resiliparse works in this process."""
    if spec.extraction == "fast":
        yield None
    else:
        with Extractor() as extractor:
            yield extractor
