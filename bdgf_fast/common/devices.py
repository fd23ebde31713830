"""The device that a person named."""

from __future__ import annotations

import os

import torch

from ..errors import UserError


def device_of(name: torch.device | str) -> torch.device:
    """``auto`` is this rank's GPU where torch sees one, else the CPU. Raises UserError for a device that is not there."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"--device {name} is not one that torch knows; it takes auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: torch sees no GPU here; --device cpu runs without one")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device
