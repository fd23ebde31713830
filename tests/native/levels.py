"""What the tests of the native kernels share: instruction set levels, closeness to float64."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from bdgf_fast import _native

if not _native.available():
    pytest.skip("the extension is not built", allow_module_level=True)
native = _native.load()
LEVELS = native.cpu_isas()
TOLERANCE = {torch.float32: (1e-4, 1e-5), torch.float16: (3e-3, 5e-3), torch.bfloat16: (3e-2, 5e-2)}


@contextmanager
def level(isa: str):
    """Run on one instruction set level."""
    before = native.cpu_isa()
    native.set_cpu_isa(isa)
    try:
        yield
    finally:
        native.set_cpu_isa(before)


@contextmanager
def threads(count: int):
    """Run on `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def close(got: torch.Tensor, want: torch.Tensor, dtype: torch.dtype, floor: float = 0.1) -> None:
    """Within the tolerance of `dtype`, the absolute part as a share of max |want|, or of `floor` if that is larger (a gradient
    may be 0 but for rounding)."""
    assert got.shape == want.shape
    rtol, atol = TOLERANCE[dtype]
    finite = want[torch.isfinite(want)]
    atol *= max(floor, finite.abs().max().item() if finite.numel() else 0.0)
    torch.testing.assert_close(got.double(), want.double(), rtol=rtol, atol=atol, equal_nan=True)


def check_gradients(function, exact, leaves, dtype, seed=9):
    """function(*leaves) and exact(*leaves in float64): results and all gradients."""
    leaves = [x.detach().requires_grad_() for x in leaves]
    doubles = [x.detach().double().requires_grad_() for x in leaves]
    out, want = function(*leaves), exact(*doubles)
    assert out.dtype == dtype
    close(out, want, dtype)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if seed % 2:  # a gradient of another layout than the output's
        weight = weight.transpose(0, 1).contiguous().transpose(0, 1)
    found = torch.autograd.grad(out, leaves, weight)
    for leaf, g, w in zip(leaves, found, torch.autograd.grad(want, doubles, weight.double()), strict=True):
        assert g.dtype == leaf.dtype
        close(g, w, dtype)
