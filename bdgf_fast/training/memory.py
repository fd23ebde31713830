"""Peak memory of this process, in bytes."""

from __future__ import annotations

import resource
import sys

import torch


def peak_memory_bytes() -> int:
    """Largest resident set so far; on a GPU the larger of that and torch's peak of allocated device memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024  # kibibytes on Linux, bytes on macOS
    if torch.cuda.is_available():
        peak = max(peak, torch.cuda.max_memory_allocated())
    return peak
