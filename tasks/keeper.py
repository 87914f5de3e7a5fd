"""Keeps one local service: `python -m tasks.keeper USED_FILE IDLE_SECONDS SCRATCH COMMAND…`.

Runs the command as a child that dies with the keeper, ends it when USED_FILE was not touched for IDLE_SECONDS, and
removes the folder SCRATCH after it ("-" for none).
"""

import contextlib
import ctypes
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):  # Linux only; elsewhere SIGTERM to the keeper still reaches it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> int:
    used, idle_seconds, scratch, command = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4:]
    child = subprocess.Popen(command, preexec_fn=_die_with_parent)

    def stop(*_: object) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        return _watch(child, used, idle_seconds)
    finally:
        if scratch != "-":
            shutil.rmtree(scratch, ignore_errors=True)


def _watch(child: subprocess.Popen, used: Path, idle_seconds: float) -> int:
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=5)
        last_used = used.stat().st_mtime if used.exists() else 0.0
        if time.time() - last_used > idle_seconds:
            print(f"idle for {idle_seconds:.0f} s: stopping", flush=True)
            child.terminate()
            return child.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
