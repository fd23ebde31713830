"""Peak memory of this process, in bytes."""

from __future__ import annotations

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
