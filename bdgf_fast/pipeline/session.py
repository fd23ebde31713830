"""What surrounds the work of a call: the device, the group of processes, and the directories that it locks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..common.devices import device_of
from ..common.ranks import group
from .locks import released


@contextmanager
def session(device: torch.device | str) -> Iterator[torch.device]:
    """The device of a call. Under torchrun the ranks join a group, share its work, and the first writes; what the call has locked
    is let go of at the end. Sessions within another change nothing."""
    chosen = device_of(device)
    with group(chosen), released():
        yield chosen
