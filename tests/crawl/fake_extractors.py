"""Functions for the extractor's worker that do what a page tells them to."""

import os
import signal
import time
from pathlib import Path


def obey(html: str) -> str | None:
    """Pages are "COMMAND ARGUMENT", maybe within <p>; those without a known command are their own text."""
    words = html.replace("<p>", " ").replace("</p>", " ").split()
    commands = {
        "LOOP": _loop,
        "SLEEP": _sleep,
        "COMPUTE": _compute,
        "CRASH": _crash,
        "RAISE": _raise,
        "EAT": _eat,
        "ONCE": _crash_once,
        "PRINT": _print,
        "PID": _pid,
        "NOTHING": lambda argument: None,
    }
    for command, argument in zip(words, [*words, ""][1:], strict=True):
        if command in commands:
            return commands[command](argument)
    return html


def _loop(pid_file: str) -> str:
    if pid_file.startswith("/"):
        Path(pid_file).write_text(str(os.getpid()))
    while True:
        pass


def _sleep(seconds: str) -> str:
    time.sleep(float(seconds))
    return "slept"


def _compute(seconds: str) -> str:
    began = time.process_time()
    while time.process_time() - began < float(seconds):
        pass
    return "computed"


def _crash(_: str) -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return "alive"


def _raise(_: str) -> str:
    raise ValueError("a page that the extractor cannot read")


def _eat(num_bytes: str) -> str:
    return f"ate {len(bytearray(int(num_bytes)))}"


def _crash_once(marker: str) -> str:
    if not Path(marker).exists():
        Path(marker).touch()
        _crash("")
    return "second try"


def _print(text: str) -> str:
    print(text * 1000, flush=True)
    os.write(1, b"\xff" * 100)
    return "printed"


def _pid(_: str) -> str:
    return str(os.getpid())
