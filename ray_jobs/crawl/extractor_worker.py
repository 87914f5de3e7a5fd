"""The process that `ray_jobs.crawl.extractor` supervises: a page comes in on stdin, its text goes out on stdout.

Run as `python -m ray_jobs.crawl.extractor_worker MODULE:FUNCTION MEMORY_BYTES`. Nothing is caught here: whatever a page
does to the function ends this process, and the supervisor sees how it ended.

The time limits are timers of the kernel whose signals end the process: they hold within C code, and when the
supervisor is gone.
"""

import importlib
import logging
import os
import resource
import signal
import struct
import sys

PAGE = struct.Struct("<Qd")
"""Before a page: its length in bytes of UTF-8, and the CPU seconds that it may take."""
TEXT = struct.Struct("<q")
"""Before a text: its length in bytes of UTF-8; -1 where there is none."""
READY = b"R"
"""Written once, when the function is imported."""
START_SECONDS = 120
NOT_IMPORTED = 78
"""Exit code where the function's module cannot be imported."""
ELAPSED_PER_CPU_SECOND = 6
"""A page that waits instead of computing may take so many times its CPU seconds on the wall's clock."""


def serve(function: str, memory_bytes: int) -> None:
    """Answers pages until stdin ends.

    Args:
        function: "module:name" of a function from HTML to text or None.
        memory_bytes: address space that this process may have.
    """
    # What the function prints must not get between the frames.
    texts = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    pages = sys.stdin.buffer
    logging.disable(logging.CRITICAL)  # trafilatura logs a line for each page that it finds nothing in
    _limit_memory(memory_bytes)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF, signal.SIGALRM})

    _limit_time(START_SECONDS)
    module, _, name = function.partition(":")
    try:
        extract = getattr(importlib.import_module(module), name)
    except ImportError as error:
        print(f"{function}: {error}", file=sys.stderr)
        sys.exit(NOT_IMPORTED)
    _limit_time(0)
    texts.write(READY)
    texts.flush()
    while len(header := pages.read(PAGE.size)) == PAGE.size:
        size, seconds = PAGE.unpack(header)
        page = pages.read(size)
        if len(page) < size:
            return
        _limit_time(seconds)
        text = extract(page.decode())
        _limit_time(0)
        if text is None:
            texts.write(TEXT.pack(-1))
        else:
            answer = text.encode("utf-8", "replace")
            texts.write(TEXT.pack(len(answer)) + answer)
        texts.flush()


def _limit_memory(memory_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _limit_time(seconds: float) -> None:
    """Ends this process after so many CPU seconds, or a multiple of them on the wall's clock; 0 takes the limit off."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * ELAPSED_PER_CPU_SECOND)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
