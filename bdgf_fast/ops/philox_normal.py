"""Counter-based standard normals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import _native, backends, reference
from ..reference.philox import PURPOSES
from . import _check as check
from ._library import LIBRARY
from ._noise import ADDRESS_SCALARS, ADDRESS_TENSORS, address

backends.register_plain("philox_normal", "reference", reference.philox_normal)


def _run(out, *arguments):
    backends.implementation("philox_normal", arguments[-1]).forward([out], *arguments[:-1])


_PURPOSE = PURPOSES["target_noise"]


def _native_forward(outputs, seed_at, sample_ids, stream_at, origin, seed, stream, extent_h, extent_w):
    seed = seed if seed_at is None else seed_at
    stream = stream if stream_at is None else stream_at
    _native.load().philox_normal(
        outputs[0], seed, stream, sample_ids, origin, extent_h, extent_w, _PURPOSE, torch.get_num_threads(),
        _native.stream_of(outputs[0]),
    )  # fmt: skip


backends.register("philox_normal", "cpu", forward=_native_forward)
backends.register("philox_normal", "cuda", forward=_native_forward)
backends.register(
    "philox_normal", "triton", forward=backends.lazy("bdgf_fast.triton_kernels.philox_normal", "forward")
)

LIBRARY.define(f"philox_normal_fwd(Tensor(a!) out, {ADDRESS_TENSORS}, {ADDRESS_SCALARS}, str backend) -> ()")
LIBRARY.impl("philox_normal_fwd", _run, "CPU")
LIBRARY.impl("philox_normal_fwd", _run, "CUDA")
torch.library.register_fake("bdgf::philox_normal_fwd", lambda *_: None, lib=LIBRARY)


def philox_normal(
    shape: Sequence[int],
    seed: int | Tensor,
    *,
    sample_ids: Tensor | None = None,
    stream: int | Tensor = 0,
    origin: Tensor | None = None,
    extent: tuple[int, int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Standard normals that depend on (seed, stream, sample id, element) alone: Philox4x32-10 and Box-Muller.

    They never depend on the batch, the tile, the launch or the number of threads: eight GPUs together draw what one GPU draws.

    Args:
        shape: (batch, ...); the first axis is the sample.
        seed: int (mod 2^64), or a 0-d int64 tensor on the device, read by the kernel: a new value then neither
            recompiles a graph nor is baked into a CUDA graph.
        sample_ids: int64 (batch,), low 32 bits used; 0, 1, ... when absent.
        stream: int (mod 2^32) or a 0-d int64 tensor; a second, independent axis of noise, such as the training step.
        origin: int64 (batch, 2), row and column of each sample's first pixel in its scene; shape must then be
            (batch, C, H, W). Pixels are counted in the scene, so that the noise of one does not depend on the tile that covers it.
        extent: (height, width) of that scene.
        dtype: float32, float16, bfloat16 or float64; torch's default dtype when None. 16 bit: the float32 normal,
            rounded.
        device: of the tensors among the arguments, else torch's default device.

    Returns:
        `shape`, contiguous. Element e of a sample takes normal e % 4 of block e // 4; the kernels' bits are those of
        csrc/include/bdgf/philox.h, the reference's agree to the last digit or so.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.

    Complexity: O(n) time for n numbers; one write, nothing is read.

    Examples:
        >>> whole = philox_normal((4, 3), seed=7)
        >>> part = philox_normal((2, 3), seed=7, sample_ids=torch.tensor([2, 3]))
        >>> torch.equal(whole[2:], part)
        True
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str):
        raise TypeError(f"shape is {type(shape).__name__}; it takes (batch, ...)")
    shape = tuple(check.integer("shape", size) for size in shape)
    if len(shape) < 1 or min(shape) < 0:
        raise ValueError(f"shape is {shape}; it takes (batch, ...)")
    dtype = dtype or torch.get_default_dtype()
    check.choice("dtype", dtype, check.FLOATING)
    if device is None:
        given = [x.device for x in (sample_ids, origin, seed, stream) if isinstance(x, Tensor)]
        device = given[0] if given else torch.get_default_device()
    # There is one float32 normal for every dtype.
    out = torch.empty(shape, dtype=torch.float32 if dtype is torch.float64 else dtype, device=device)
    tensors, scalars = address(shape, out.device, seed, sample_ids, stream, origin, extent)
    backend, _ = backends.choose("philox_normal", out.device.type, out.dtype)
    plain = backends.plain("philox_normal", backend)
    if plain is not None:
        seed = scalars[0] if tensors[0] is None else tensors[0]
        stream = scalars[1] if tensors[2] is None else tensors[2]
        options = {"sample_ids": sample_ids, "stream": stream, "origin": origin, "extent": extent}
        return plain(shape, seed, **options, dtype=dtype, device=out.device)
    torch.ops.bdgf.philox_normal_fwd(out, *tensors, *scalars, backend)
    return out.to(dtype)
