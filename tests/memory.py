"""How much memory something takes at its highest, as Linux counts it for this process."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest


def peak_bytes(work: Callable[[], object]) -> int:
    """Resident bytes beyond those held before. Compiled code should have run once, or its compiler is counted."""
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        pytest.skip("needs Linux's /proc/self/clear_refs")
    # What allocators keep for later would hide what is taken anew.
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text("5")
    before = _resident("VmRSS")
    work()
    return _resident("VmHWM") - before


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) << 10
