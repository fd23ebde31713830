"""What this process takes of the memory: its peak, and what the C library keeps of what was freed."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

import torch


def peak_memory_bytes() -> int:
    """Largest resident set so far; on a GPU the larger of that and torch's peak of allocated device memory."""
    peak = _resident()
    if torch.cuda.is_available():
        peak = max(peak, torch.cuda.max_memory_allocated())
    return peak


def _resident() -> int:
    """VmHWM where there is one: Linux's ru_maxrss begins with what the process that started this one had held."""
    try:
        return 1024 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        pass
    try:
        import resource  # Unix alone has it
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's mallopt."""


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensors of this process, as far as it can (pieces up to 32 MiB).

    By default it returns much of what is freed to the system and takes it back a page at a time, each filled with zeros: a sixth of
    the processor time of mapping a scene. ``return_freed_memory`` gives back what has added up. Without glibc this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Freed pages to the system, where the C library can (glibc): what it keeps of each block of a scene adds up."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
