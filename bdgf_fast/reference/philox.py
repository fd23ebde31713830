"""Counter-based noise: Philox4x32-10 words, uniforms and normals, in plain int64 and float64 arithmetic.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. key = (seed lo, seed hi),
counter = (block lo, block hi, sample id, stream) with block = element // 4, where // 4 is the arithmetic shift of the
int64 and % 4 its two low bits: coordinates left of or above the scene have noise too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)

# What a stream of noise is for, as in csrc/include/bdgf/philox.h. Each purpose XORs its own constant into the seed, so
# that one seed serves them all. `target_noise` leaves it as it is: q_sample's noise is philox_normal's at that seed.
PURPOSES = {
    "target_noise": 0,
    "mask_fill": 1,
    "timestep": 2,
    "mask_choice": 3,
    "augmentation": 4,
    "sampler": 5,
    "dropout": 6,
}
_PURPOSE_FACTOR = 0x9E3779B97F4A7C15


def as_int64(value: int | Tensor, device: torch.device | str | None = None) -> Tensor:
    """An int, taken mod 2^64, or a 0-d int64 tensor, as a 0-d int64 tensor."""
    if isinstance(value, Tensor):
        return value
    if not -(2**63) <= value < 2**63:
        value = (value + 2**63) % 2**64 - 2**63
    return torch.full((), value, dtype=torch.int64, device=device)


def purpose_key(seed: int | Tensor, purpose: str, device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """The two 32-bit key words of `seed` for a purpose, each as a 0-d int64 tensor in [0, 2^32)."""
    constant = _PURPOSE_FACTOR * PURPOSES[purpose] % 2**64
    seed = as_int64(seed, device)
    return (seed & _MASK32) ^ (constant & _MASK32), ((seed >> 32) & _MASK32) ^ (constant >> 32)


def philox4x32(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox4x32 on int64 tensors that hold 32-bit words; counter and key broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # mod 2^64, as int64 wraps
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK32) ^ c1 ^ k0,
            p1 & _MASK32,
            ((p0 >> 32) & _MASK32) ^ c3 ^ k1,
            p0 & _MASK32,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK32, (k1 + _WEYL[1]) & _MASK32
    return c0, c1, c2, c3


def normals_from_words(words: Sequence[Tensor]) -> Tensor:
    """Four standard normals (..., 4) in float32 from four words, by Box-Muller on (w0, w1) and on (w2, w3).

    The radius is that of u = w0's upper 31 bits in (0, 1], the angle w1 as a signed number over [-pi/2, pi/2], and the
    lowest bit of w0 picks the half circle. u is rounded to float32 as the kernels round it (near 1 the radius shows
    it); the rest is float64, so the last bits may differ from the kernels' polynomials.
    """
    normals = []
    for w0, w1 in (words[0:2], words[2:4]):
        u = (w0 >> 1).float() * 2.0**-31 + 2.0**-32
        radius = torch.sqrt(-2.0 * torch.log(u.double()))
        signed = torch.where(w1 < 2**31, w1, w1 - 2**32).float()
        angle = signed.double() * (math.pi * 2.0**-32)
        half_circle = (1 - 2 * (w0 & 1)).double()
        normals += [half_circle * radius * torch.cos(angle), radius * torch.sin(angle)]
    return torch.stack(normals, dim=-1).float()


def elements(shape: Sequence[int], origin: Tensor | None, extent: tuple[int, int] | None, device) -> Tensor:
    """The elements (1 or batch, *shape[1:]), int64: within the sample, or within the scene when origin is given."""
    if origin is None:
        return torch.arange(math.prod(shape[1:]), device=device).reshape(1, *shape[1:])
    assert extent is not None
    _, channels, height, width = shape
    rows = origin[:, 0, None, None, None] + torch.arange(height, device=device)[:, None]
    columns = origin[:, 1, None, None, None] + torch.arange(width, device=device)
    return (torch.arange(channels, device=device)[:, None, None] * extent[0] + rows) * extent[1] + columns


def words_at(element: Tensor, key, sample_ids: Tensor, stream: int | Tensor) -> Tensor:
    """The one word that belongs to each element: element (1 or batch, ...) -> (batch, ...) int64 in [0, 2^32)."""
    words = torch.stack(_words_of_blocks(element >> 2, key, sample_ids, stream), dim=-1)
    return words.gather(-1, (element & 3).expand(words.shape[:-1]).unsqueeze(-1)).squeeze(-1)


def _words_of_blocks(block: Tensor, key, sample_ids: Tensor, stream: int | Tensor):
    ids = (sample_ids & _MASK32).reshape(-1, *[1] * (block.dim() - 1))
    streams = as_int64(stream, block.device) & _MASK32
    return philox4x32(torch.broadcast_tensors(block & _MASK32, (block >> 32) & _MASK32, ids, streams), key)


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
    purpose: str = "target_noise",
) -> Tensor:
    """Standard normals of `shape`, a pure function of (seed, stream, sample id, element). See `bdgf_fast.ops`."""
    shape = tuple(shape)
    if device is None:
        device = next((x.device for x in (sample_ids, origin, seed, stream) if isinstance(x, Tensor)), None)
    if sample_ids is None:
        sample_ids = torch.arange(shape[0], device=device)
    key = purpose_key(seed, purpose, device)
    if origin is None:  # four consecutive elements share a block: make each block once
        count = math.prod(shape[1:])
        block = torch.arange((count + 3) // 4, device=device).reshape(1, -1)
        normals = normals_from_words(_words_of_blocks(block, key, sample_ids, stream))
        normals = normals.flatten(1)[:, :count].reshape(shape)
    else:
        element = elements(shape, origin, extent, device)
        normals = normals_from_words(_words_of_blocks(element >> 2, key, sample_ids, stream))
        normals = normals.gather(-1, (element & 3).expand(normals.shape[:-1]).unsqueeze(-1)).squeeze(-1)
    return normals.to(dtype or torch.get_default_dtype()).contiguous()


def dropout_keep(batch: int, heads: int, rows: int, columns: int, p: float, seed: int | Tensor, device) -> Tensor:
    """bool (batch, heads, rows, columns), True = kept: element (head * rows + i) * columns + j of sample b."""
    key = purpose_key(seed, "dropout", device)
    element = torch.arange(heads * rows * columns, device=device).reshape(1, heads, rows, columns)
    words = words_at(element, key, torch.arange(batch, device=device), 0)
    return words >= dropout_threshold(p)


def dropout_threshold(p: float) -> int:
    """A word below this drops its element."""
    return min(int(p * 2.0**32), _MASK32)
