"""Children that kill themselves at a chosen call."""

import itertools
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


def killed(child: Callable[[], object]) -> bool:
    """Runs `child` in a fork; True if it was killed, False if it got through."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
            os._exit(0)
        finally:  # after an exception: nothing of pytest may run twice
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in {0, -signal.SIGKILL}, f"the child failed by itself: {status}"
    return status != 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class FatalCalls:
    """Stands in for the module `os` in file_store: the `fatal`-th call of those that matter kills the process."""

    fatal: int
    after: bool
    count: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    calls: tuple[str, ...] = ("open", "write", "fsync", "close", "link", "unlink", "replace", "mkdir", "rmdir")

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in self.calls:
            return real

        def call(*arguments: Any, **options: Any) -> Any:
            number = next(self.count)  # several threads may sync files
            if number == self.fatal and not self.after:
                if name == "write":  # cut in the middle
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                die()
            try:
                return real(*arguments, **options)
            finally:
                if number == self.fatal:
                    die()

        return call
