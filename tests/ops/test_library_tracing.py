"""Calls that are recorded rather than computed, on stand-in kernels: without values, the same tensor twice, torch.jit.trace."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops

from .test_library import CASES, SCHEDULE, cases

pytestmark = pytest.mark.usefixtures("mirror")


@cases
def test_tensors_without_values_have_a_shape(case):
    tensors, call = CASES[case](torch.float32)
    expected = call(**tensors)
    found = call_on_meta(case)
    for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, expected)), strict=True):
        assert a.device.type == "meta" and a.shape == b.shape and a.dtype == b.dtype and a.stride() == b.stride()


def call_on_meta(case):
    """The case's call with every tensor of it on the meta device, through its backward."""
    tensors, _ = CASES[case](torch.float32)
    with torch.device("meta"):
        _, call = CASES[case](torch.float32)
    leaves = {name: x.to("meta").requires_grad_() for name, x in tensors.items()}
    out = call(**leaves)
    sum(x.sum() for x in (out if isinstance(out, tuple) else (out,))).backward()
    assert all(x.grad.shape == x.shape for x in leaves.values())
    return out


def test_noise_and_float64_without_values():
    assert ops.philox_normal((2, 3), 5, device="meta").shape == (2, 3)
    x = torch.zeros(2, 4, 5, dtype=torch.float64, device="meta")
    assert ops.causal_conv1d(x, torch.zeros(4, 3, device="meta")).dtype is torch.float64
    with torch.autocast("cpu", torch.bfloat16):  # says nothing about meta
        assert ops.causal_conv1d(x.float(), torch.zeros(4, 3, device="meta")).dtype is torch.float32


ONE_TENSOR = {
    "attention": (lambda x: ops.cross_attention(x, x, x), (2, 2, 3, 4)),
    "channel attention": (lambda x: ops.group_channel_attention(x, x, x, 1.0, groups=2), (2, 4, 3)),
    "scan": (lambda x: ops.selective_scan(x, x, -torch.ones(4, 4), x, x, z=x), (2, 4, 3)),
    "step": (lambda x: ops.ddim_step(x, 5, x, SCHEDULE, prediction_type="sample"), (2, 4, 3)),
}


@pytest.mark.parametrize("name", ONE_TENSOR)
def test_the_same_tensor_for_several_arguments_compiles(name):
    torch._dynamo.reset()
    function, shape = ONE_TENSOR[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = []
    for call in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        out = call(leaf)
        out.square().sum().backward()
        found.append((out, leaf.grad))
    for eager, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, eager)


class Twice(torch.nn.Module):
    """One tensor three times, behind a trained layer."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x):
        y = self.layer(x)
        return ops.cross_attention(y, y, y)


@pytest.mark.parametrize("strict", [True, False])
def test_the_same_tensor_for_several_arguments_exports(strict):
    module, x = Twice(), torch.randn(2, 2, 3, 4)
    exported = torch.export.export(module, (x,), strict=strict).module()
    torch.testing.assert_close(exported(x), module(x))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit:DeprecationWarning")
@cases
def test_a_trace_is_differentiable(case):
    """torch.jit.trace compares two recordings of trained inputs, and what it records has a backward."""
    tensors, call = CASES[case]()
    names = list(tensors)

    def function(*values):
        out = call(**dict(zip(names, values, strict=True)))
        return out[0] if isinstance(out, tuple) else out

    leaves = [x.requires_grad_() for x in tensors.values()]
    traced = torch.jit.trace(function, tuple(leaves))
    expected, found = function(*leaves), traced(*leaves)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected.square().sum(), leaves, allow_unused=True)
    for a, b in zip(torch.autograd.grad(found.square().sum(), leaves, allow_unused=True), wanted, strict=True):
        torch.testing.assert_close(a, b)
