"""Keeps one local service: `python -m tasks.keeper USED_FILE IDLE_SECONDS COMMAND…`.

Runs the command as a child that dies with the keeper, and ends it when USED_FILE was not touched for IDLE_SECONDS.
"""

import contextlib
import ctypes
import os
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
    used, idle_seconds, command = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    child = subprocess.Popen(command, preexec_fn=_die_with_parent)

    def stop(*_: object) -> None:
        child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(timeout=5)
        last_used = used.stat().st_mtime if used.exists() else 0.0
        if time.time() - last_used > idle_seconds:
            print(f"idle for {idle_seconds:.0f} s: stopping", flush=True)
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=20)
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
