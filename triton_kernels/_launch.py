"""What every launcher shares: one way to launch, one place that knows the device, and a recorder for the compile proof.

A launcher allocates workspace, takes block sizes from its module's table and calls `launch`; it never reads a value
from the device. Kernels take strides as plain integers and widen the index they multiply with to 64 bits.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

# Without a GPU (interpreter, compile proof) launchers see this device: a small one keeps persistent loops turning.
_stand_in = {"capability": 90, "processors": 2}
_recorded: list[Launch] | None = None


@dataclass(frozen=True)
class Launch:
    """One launch, as the compile proof needs it: every argument by name, and the options."""

    kernel: Any
    grid: int
    arguments: Mapping[str, Any]
    options: Mapping[str, Any]


@functools.cache
def _properties(index: int) -> tuple[int, int]:
    properties = torch.cuda.get_device_properties(index)
    return 10 * properties.major + properties.minor, properties.multi_processor_count


def capability(device: torch.device) -> int:
    """Compute capability as 80, 90, 120: the class that tables of block sizes go by."""
    return _properties(device.index)[0] if device.type == "cuda" else _stand_in["capability"]


def processors(device: torch.device) -> int:
    """Multiprocessors of the device."""
    return _properties(device.index)[1] if device.type == "cuda" else _stand_in["processors"]


def workspace_limit(*tensors: Tensor | None) -> int:
    """Bytes of workspace a call may take: 32 MiB, or 10 % of its inputs, outputs and gradients."""
    return max(32 << 20, sum(x.numel() * x.element_size() for x in tensors if x is not None) // 10)


def workspace(like: Tensor, *shape: int) -> Tensor:
    """Float32 scratch on the device of `like`, from torch's caching allocator."""
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def launch(
    kernel: Any, grid: int, *arguments: Any, num_warps: int, num_stages: int = 1, fp_fusion: bool = True,
    registers: int | None = None, **more: Any,
):  # fmt: skip
    """Launch `kernel` on `grid` programs (one dimension, up to 2^31 - 1) on the device of its first tensor.

    An empty grid launches nothing. fp_fusion=False keeps a multiplication and an addition from becoming one FMA.
    `registers`: how many ptxas may use for a thread; by itself it stops where the occupancy would fall, and spills a few instead.
    """
    if grid == 0:
        return
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": fp_fusion}
    device = next(x.device for x in arguments if isinstance(x, Tensor))
    if registers is not None and (device.type == "cuda" or _recorded is not None):  # the interpreter does not know it
        options["maxnreg"] = registers
    if _recorded is not None:
        named = dict(zip(kernel.arg_names, arguments, strict=False)) | more
        _recorded.append(Launch(kernel, grid, named, options))
        return
    try:
        if device.type == "cuda" and device.index != torch.cuda.current_device():
            with torch.cuda.device(device):
                kernel[(grid,)](*arguments, **more, **options)
        else:
            kernel[(grid,)](*arguments, **more, **options)
    except RuntimeError as error:
        if "stream is capturing" not in str(error):
            raise
        raise RuntimeError(
            f"{kernel.fn.__name__} cannot be loaded while a CUDA graph is captured: call the operation once, with the same shapes, "
            "before the capture"
        ) from error


@contextmanager
def recording(capability: int, processors: int = 132) -> Iterator[list[Launch]]:
    """Collect the launches of this block instead of making them, for a device of this capability. Not for threads."""
    global _recorded
    before = dict(_stand_in)
    _stand_in.update(capability=capability, processors=processors)
    _recorded = found = []
    try:
        yield found
    finally:
        _recorded = None
        _stand_in.update(before)


next_power_of_2 = triton.next_power_of_2
cdiv = triton.cdiv
