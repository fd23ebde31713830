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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("shape", "gate", "reverse"), [
    ((2, 37, 49, 16), False, False), ((1, 5, 17, 9), True, False), ((3, 32, 64, 13), True, True), ((1, 4, 700, 16), False, True),
])  # fmt: skip
def test_dense_tensors_give_the_bits_of_others(shape, gate, reverse, dtype):
    """Steps next to each other in memory have a path of their own; with every second step of a larger tensor there is none."""
    given = tensors(*shape, dtype=dtype)
    if not gate:
        del given["z"]

    def apart(x):
        return torch.stack((x, torch.full_like(x, torch.nan)), -1).flatten(-2)[..., ::2]

    options = {"delta_softplus": True, "return_last_state": True, "reverse": reverse}
    dense = ops.selective_scan(**given, **options)
    stepped = {k: apart(x) if k in ("u", "delta", "B", "C", "z") else x for k, x in given.items()}
    for ours, theirs in zip(dense, ops.selective_scan(**stepped, **options), strict=True):
        assert ours.isfinite().all() and torch.equal(ours, theirs)
