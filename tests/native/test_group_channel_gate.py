"""group_channel_gate on the native CPU kernels, against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from levels import LEVELS, TOLERANCE, check_gradients, level, threads

from bdgf_fast import backends, ops, reference


def image(batch, channels, height, width, layout, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    if layout == "planes":
        x = torch.randn(batch, channels, height, width, generator=g)
    elif layout == "channels_last":
        x = torch.randn(batch, height, width, channels, generator=g).permute(0, 3, 1, 2)
    elif layout == "crop":
        x = torch.randn(batch, channels, height + 3, width + 2, generator=g)[:, :, 1:-2, 2:]
    elif layout == "crop_channels_last":
        x = torch.randn(batch, height + 3, width + 2, channels, generator=g).permute(0, 3, 1, 2)[:, :, 3:, :-2]
    else:  # "scattered"
        x = torch.randn(width, batch, 2 * channels, height, generator=g).permute(1, 2, 3, 0)[:, ::2]
    x = x.to(dtype)
    assert x.shape == (batch, channels, height, width)
    return x


def parameters(channels, inputs, groups, hidden, dtype=torch.float32):
    g = torch.Generator().manual_seed(1)
    shapes = [(groups, hidden, inputs), (groups, hidden), (groups, channels // groups, hidden), (groups, channels // groups)]
    return [torch.randn(s, generator=g).to(dtype) for s in shapes]


def call(x, guide, weights, groups, source, function):
    def run(*tensors):
        x_, *rest = tensors
        guide_ = rest.pop(0) if guide is not None else None
        return function(x_, guide_, *rest, groups=groups, gate_source=source)

    return run, [x, *([] if guide is None else [guide]), *weights]


def compare(x, guide, groups, hidden, source):
    inputs = (x.shape[1] // groups if source != "guide" else 0) + (guide.shape[1] // groups if source != "x" else 0)
    if source == "x":
        guide = None
    weights = parameters(x.shape[1], inputs, groups, hidden)
    native_call, tensors = call(x, guide, weights, groups, source, ops.group_channel_gate)
    exact, _ = call(x, guide, weights, groups, source, reference.group_channel_gate)
    with backends.use_backend("cpu"):
        check_gradients(native_call, exact, tensors, x.dtype)


LAYOUTS = ["planes", "channels_last", "crop", "crop_channels_last", "scattered"]


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("source", ["x", "guide", "both"])
def test_layouts_dtypes_and_sources(isa, layout, dtype, source):
    with level(isa):
        for guide_layout in (layout, "planes", "channels_last"):
            x = image(3, 12, 5, 7, layout, dtype)
            compare(x, image(3, 8, 4, 3, guide_layout, dtype, seed=1), 4, 5, source)


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 1, 1), (2, 64, 11, 11, 4, 8), (2, 40, 1, 9, 1, 33), (1, 34, 33, 1, 2, 17), (3, 6, 32, 32, 6, 2)]
)
def test_shapes(isa, shape):
    batch, channels, height, width, groups, hidden = shape
    with level(isa):
        guide = image(batch, 2 * groups, 2, 3, "planes", seed=1)
        compare(image(batch, channels, height, width, "planes"), guide, groups, hidden, "both")


def test_many_samples_go_in_runs():
    """More (sample, group) vectors than the workspace holds, and more than 65,535 samples."""
    compare(image(70000, 4, 1, 2, "planes"), image(70000, 2, 1, 1, "planes", seed=1), 2, 3, "both")


def test_empty_batch():
    x = torch.zeros(0, 4, 3, 3, requires_grad=True)
    weights = [w.requires_grad_() for w in parameters(4, 4, 2, 3)]
    with backends.use_backend("cpu"):
        out = ops.group_channel_gate(x, x, *weights, groups=2)
    assert out.shape == x.shape
    assert all(g.count_nonzero() == 0 for g in torch.autograd.grad(out.sum(), weights))


def test_threads_do_not_change_a_bit():
    x, guide = image(5, 24, 11, 11, "planes").requires_grad_(), image(5, 12, 5, 5, "planes", seed=1).requires_grad_()
    weights = [w.requires_grad_() for w in parameters(24, 9, 4, 6)]
    results = []
    for count in (1, 2, 3, 8):
        with threads(count), backends.use_backend("cpu"):
            out = ops.group_channel_gate(x, guide, *weights, groups=4)
            results.append([out, *torch.autograd.grad(out, (x, guide, *weights), out.detach())])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("source", ["x", "guide", "both"])
def test_gradcheck(source):  # one level: float64 is plain loops
    x, guide = (torch.randn(2, c, 2, 3, dtype=torch.float64, requires_grad=True) for c in (4, 2))
    inputs = {"x": 2, "guide": 1, "both": 3}[source]
    weights = [w.requires_grad_() for w in parameters(4, inputs, 2, 3, torch.float64)]
    run, tensors = call(x, None if source == "x" else guide, weights, 2, source, ops.group_channel_gate)
    exact, _ = call(x, None if source == "x" else guide, weights, 2, source, reference.group_channel_gate)
    with backends.use_backend("cpu"):
        assert torch.autograd.gradcheck(run, tensors)
        torch.testing.assert_close(run(*tensors), exact(*tensors))


def test_infinity_and_nan_pass_through():
    weights = parameters(8, 4, 2, 3)
    for value in (float("nan"), float("inf"), -float("inf")):
        x, guide = image(2, 8, 3, 3, "planes"), image(2, 8, 3, 3, "planes", seed=1)
        guide[0, 3, 1, 1] = value
        exact = [tensor.double() for tensor in (x, guide, *weights)]
        want = reference.group_channel_gate(*exact, groups=2, gate_source="guide")
        with backends.use_backend("cpu"):
            got = ops.group_channel_gate(x, guide, *weights, groups=2, gate_source="guide")
        assert torch.equal(got.isnan(), want.isnan())
        torch.testing.assert_close(got[~got.isnan()], want[~want.isnan()].float(), rtol=1e-4, atol=1e-5)


def test_parameters_of_any_layout():
    x, guide = image(3, 8, 4, 4, "planes"), image(3, 8, 2, 2, "planes", seed=1)
    weights = parameters(8, 8, 2, 5)
    weights[0] = weights[0].transpose(1, 2).contiguous().transpose(1, 2)
    weights[2] = weights[2].permute(2, 0, 1).contiguous().permute(1, 2, 0)
    run, tensors = call(x, guide, weights, 2, "both", ops.group_channel_gate)
    exact, _ = call(x, guide, weights, 2, "both", reference.group_channel_gate)
    with backends.use_backend("cpu"):
        check_gradients(run, exact, tensors, torch.float32)
