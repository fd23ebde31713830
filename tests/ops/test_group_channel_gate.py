"""group_channel_gate on every backend against the float64 reference."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "group_channel_gate"


def tensors(
    channels, guide_channels, size, guide_size=None, *, groups=2, hidden=3, batch=3, source="both", dtype=torch.float32,
    device="cpu",
):  # fmt: skip
    g = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    inputs = channels * (source != "guide") + guide_channels * (source != "x")
    found = {
        "x": randn(batch, channels, *size) + 0.3,
        "guide": randn(batch, guide_channels, *(guide_size or size)) - 0.2,
    }
    found |= {"weight1": randn(groups, hidden, inputs // groups), "bias1": randn(groups, hidden)}
    found |= {"weight2": randn(groups, channels // groups, hidden), "bias2": randn(groups, channels // groups)}
    parameters = torch.promote_types(dtype, torch.float32)
    return {k: x.to(device, dtype if k in ("x", "guide") else parameters) for k, x in found.items()}


def compare(check_gradients, given, **options):
    check_gradients(
        lambda **t: ops.group_channel_gate(**t, **options),
        lambda **t: reference.group_channel_gate(**t, **options),
        given,
    )


@pytest.mark.parametrize("source", ["x", "guide", "both"])
@pytest.mark.parametrize(
    ("channels", "guide_channels", "groups", "hidden"),
    [(1, 1, 1, 1), (4, 2, 2, 3), (6, 12, 3, 5), (32, 16, 4, 8), (64, 64, 64, 2), (40, 8, 1, 17)],
)
def test_channels_and_groups(target, check_gradients, channels, guide_channels, groups, hidden, source):
    options = {"groups": groups, "hidden": hidden, "source": source, "device": target.device}
    given = tensors(channels, guide_channels, (3, 3), **options)
    compare(check_gradients, given, groups=groups, gate_source=source)


@pytest.mark.parametrize("guide_size", [None, (1, 1), (4, 9)])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 7), (11, 11), (16, 16), (5, 31), (96, 96)])
def test_sizes(target, check_gradients, size, guide_size):
    compare(check_gradients, tensors(8, 4, size, guide_size, device=target.device), groups=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit(target, check_gradients, dtype):
    compare(check_gradients, tensors(16, 8, (7, 7), dtype=dtype, device=target.device), groups=2)


@pytest.mark.parametrize("layout", ["channels_last", "slice", "transposed", "expanded"])
def test_layouts(target, check_gradients, layout):
    given = tensors(12, 6, (5, 7), device=target.device)

    def lay(x):
        if layout == "channels_last":
            return x.contiguous(memory_format=torch.channels_last)
        if layout == "slice":
            return torch.cat([x, x], dim=1)[:, : x.shape[1]]
        if layout == "transposed":
            return x.transpose(2, 3).contiguous().transpose(2, 3)
        return x[:1].expand_as(x)

    compare(check_gradients, given | {"x": lay(given["x"])}, groups=2)
    compare(check_gradients, given | {"guide": lay(given["guide"])}, groups=2)
    compare(check_gradients, given | {"x": lay(given["x"]), "guide": lay(given["guide"])}, groups=2)


def test_without_a_guide(target):
    given = tensors(8, 4, (3, 3), source="x", device=target.device)
    with_guide = ops.group_channel_gate(**given, groups=2, gate_source="x")
    assert torch.equal(with_guide, ops.group_channel_gate(**(given | {"guide": None}), groups=2, gate_source="x"))


def test_more_samples_than_a_launch_grid(target, assert_close):
    given = tensors(2, 2, (1, 2), batch=70_000, device=target.device)
    picked = [0, 65_535, 65_536, 69_999]
    exact = {k: (x[picked] if k in ("x", "guide") else x).cpu().double() for k, x in given.items()}
    assert_close(ops.group_channel_gate(**given, groups=2)[picked], reference.group_channel_gate(**exact, groups=2))


def test_empty(target):
    given = {k: x.requires_grad_() for k, x in tensors(4, 4, (3, 3), batch=0, device=target.device).items()}
    out = ops.group_channel_gate(**given, groups=2)
    out.sum().backward()
    assert out.shape == (0, 4, 3, 3) and not any(x.grad.any() for x in given.values())


def test_bitwise_the_same_on_repeat_and_for_any_thread_count(target):
    given = tensors(64, 32, (11, 11), groups=4, batch=9, device=target.device)

    def run():
        leaves = {k: x.clone().requires_grad_() for k, x in given.items()}
        out = ops.group_channel_gate(**leaves, groups=4)
        (out * out.detach().cos()).sum().backward()
        return [out.detach(), *(x.grad for x in leaves.values())]

    first = run()
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    if target.device != "cpu" or target.backend == "reference":
        return
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    finally:
        torch.set_num_threads(before)
