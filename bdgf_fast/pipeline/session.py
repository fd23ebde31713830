"""What surrounds the work of a call: the device, the group of processes, and the directories that it locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..common.ranks import group
from ..errors import UserError
from .locks import released


def device_of(name: torch.device | str) -> torch.device:
    """``auto`` is this rank's GPU where torch sees one, else the CPU. Raises UserError for a device that is not there."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"--device {name} is none torch knows; it takes auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: torch sees no GPU here; --device cpu runs without one")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


@contextmanager
def session(device: torch.device | str) -> Iterator[torch.device]:
    """The device of a call. Under torchrun the ranks join a group, share its work, and the first writes; what the call has locked
    is let go of at the end. Sessions within another change nothing."""
    chosen = device_of(device)
    with group(chosen), released():
        yield chosen
