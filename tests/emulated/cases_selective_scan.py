"""Run by test_kernels.py: what the shapes of tests/ops do not reach on a GPU. Sequences cut into segments together with
slices of states, constant matrices and few channels; many short rows in a block, backward; dtypes side by side."""

import pytest
import torch

from bdgf_fast import ops, reference


def tensors(batch, dim, length, state, *, groups=1, constant=(), dtype=torch.float32):
    g = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    found = {"u": randn(batch, dim, length), "delta": randn(batch, dim, length)}
    found["A"] = -torch.arange(1.0, state + 1, dtype=torch.float64) * torch.exp(0.1 * randn(dim, state))
    matrix = (batch, state, length) if groups == 1 else (batch, groups, state, length)
    for name in ("B", "C"):
        found[name] = randn(dim, state) if name in constant else randn(*matrix)
    found |= {"D": randn(dim), "z": randn(batch, dim, length), "delta_bias": randn(dim) - 3.0}
    found["initial_state"] = randn(batch, dim, state)
    wide = ("A", "D", "delta_bias", "initial_state", *constant)
    return {k: x.to(torch.float32 if k in wide else dtype) for k, x in found.items()}


def compare(check_gradients, given, scale=1.0, **options):
    options = {"delta_softplus": True, "return_last_state": True} | options
    ours = lambda **t: ops.selective_scan(**t, **options)  # noqa: E731
    check_gradients(ours, lambda **t: reference.selective_scan(**t, **options), given, scale=scale)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("state", "groups", "constant"), [(3, 1, ""), (20, 1, ""), (6, 2, "B"), (6, 2, "C"), (18, 1, "BC")])
def test_segments(check_gradients, state, groups, constant, reverse):
    compare(check_gradients, tensors(2, 4, 600, state, groups=groups, constant=tuple(constant)), reverse=reverse)


@pytest.mark.parametrize("length", [1, 3, 4, 5, 8, 9, 17])
@pytest.mark.parametrize("batch", [1, 7, 150])
@pytest.mark.parametrize("softplus", [True, False])
def test_many_short_rows(check_gradients, batch, length, softplus):
    given = tensors(batch, 3, length, 2)
    if not softplus:  # whose slope is 0 at the empty steps between the rows of a pack
        given = {name: x.abs() * 0.1 if name in ("delta", "delta_bias") else x for name, x in given.items()}
    compare(check_gradients, given, reverse=length % 2 == 0, delta_softplus=softplus)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_segments_in_sixteen_bits(check_gradients, dtype):
    given = tensors(1, 3, 700, 5, dtype=dtype)
    compare(check_gradients, given)
    given["delta"] = given["delta"].float()
    compare(check_gradients, given)


def test_more_channels_than_a_tile_and_groups_within_one(check_gradients):
    compare(check_gradients, tensors(3, 70, 20, 16, groups=2))
    compare(check_gradients, tensors(3, 12, 20, 16, groups=6))


@pytest.mark.parametrize("batch", [12, 13])
def test_a_last_launch_that_is_smaller_stays_within_the_workspace(check_gradients, batch):
    """The blocks of a launch leave sums in the workspace; a smaller last launch must not be packed into more blocks."""
    compare(check_gradients, tensors(batch, 70, 17, 16))


def apart(x):
    """The same values, every second one of a larger tensor."""
    return torch.stack((x, torch.full_like(x, torch.nan)), -1).flatten(-2)[..., ::2]


def channels_last(x):
    """The same values, channels or states next to each other in memory."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "gate", "reverse"), [
    ((2, 37, 49, 16), False, False), ((1, 5, 17, 9), True, False), ((3, 32, 70, 13), True, True), ((1, 4, 700, 16), False, True),
    ((2, 33, 300, 16), True, False), ((30, 5, 3, 16), True, False), ((9, 33, 8, 10), False, True), ((5, 4, 12, 16), True, True),
])  # fmt: skip
def test_dense_tensors_give_the_bits_of_others(shape, gate, reverse, dtype):
    """Steps that are closer in memory than channels have a path of their own."""
    given = tensors(*shape, dtype=dtype)
    if not gate:
        del given["z"]
    last_weight = torch.cos(given["initial_state"])

    def results(layout):
        laid = {k: layout(x) if k in ("u", "delta", "B", "C", "z") else x.clone() for k, x in given.items()}
        leaves = {k: x.detach().requires_grad_() for k, x in laid.items()}
        out, last = ops.selective_scan(**leaves, delta_softplus=True, return_last_state=True, reverse=reverse)
        weight = layout(torch.sin(torch.arange(out.numel(), dtype=torch.float32)).view(out.shape).to(dtype))
        return out, last, *torch.autograd.grad((out, last), leaves.values(), (weight, last_weight))

    general = results(channels_last)
    for layout in (torch.clone, apart):
        for ours, theirs in zip(results(layout), general, strict=True):
            assert ours.isfinite().all() and torch.equal(ours, theirs)
