"""selective_scan's Triton kernels: values and every gradient, tiny shapes."""

from __future__ import annotations

import pytest
import torch
from bdgf_fast.triton_kernels import selective_scan_launch

from bdgf_fast import ops, reference

OP = "selective_scan"
OPTIONAL = ("D", "z", "delta_bias", "initial_state")


def tensors(length, *, batch=2, dim=5, state=4, groups=1, constant=(), leave_out=()):
    g = torch.Generator().manual_seed(0)

    def randn(*shape):
        return torch.randn(shape, generator=g)

    found = {"u": randn(batch, dim, length), "delta": randn(batch, dim, length)}
    found["A"] = -torch.arange(1.0, state + 1) * torch.exp(0.1 * randn(dim, state))
    for name in ("B", "C"):
        of = groups if isinstance(groups, int) else groups["BC".index(name)]
        matrix = (batch, state, length) if of == 1 else (batch, of, state, length)
        found[name] = randn(dim, state) if name in constant else randn(*matrix)
    found |= {"D": randn(dim), "z": randn(batch, dim, length), "delta_bias": randn(dim) - 3.0}
    found["initial_state"] = randn(batch, dim, state)
    return {k: x for k, x in found.items() if k not in leave_out}


def compare(check_gradients, given, **options):
    options = {"delta_softplus": True, "return_last_state": True} | options
    check_gradients(lambda **t: ops.selective_scan(**t, **options), lambda **t: reference.selective_scan(**t, **options), given)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_lengths(check_gradients, length):
    compare(check_gradients, tensors(length), reverse=length % 2 == 0)


@pytest.mark.parametrize(("state", "dim"), [(1, 130), (2, 3), (3, 70), (8, 9), (16, 33), (17, 5), (64, 3), (100, 2), (256, 3)])
def test_tiles(check_gradients, state, dim):
    compare(check_gradients, tensors(5, state=state, dim=dim), reverse=dim % 2 == 0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("leave_out", [(), OPTIONAL, *((name,) for name in OPTIONAL)], ids=str)
def test_options(check_gradients, leave_out, reverse):
    given = tensors(6, state=3, leave_out=leave_out)
    compare(check_gradients, given, reverse=reverse)
    given = {k: x.abs() * 0.1 if k in ("delta", "delta_bias") else x for k, x in given.items()}
    compare(check_gradients, given, reverse=reverse, delta_softplus=False, return_last_state=False)


@pytest.mark.parametrize("constant", ["", "B", "C", "BC"])
@pytest.mark.parametrize(("groups", "dim"), [(2, 6), ((2, 4), 8), (2, 70)], ids=str)
def test_constant_and_grouped_matrices(check_gradients, groups, dim, constant):
    compare(check_gradients, tensors(5, dim=dim, groups=groups, state=3, constant=tuple(constant)))


def test_dtypes(check_gradients, as_dtype):
    given = tensors(9, dim=9)
    rounded = {k: as_dtype(x) if k in ("u", "delta", "B", "C", "z") else x for k, x in given.items()}
    compare(check_gradients, rounded)
    compare(check_gradients, rounded | {"delta": given["delta"]}, reverse=True)


@pytest.mark.parametrize("layout", ["transposed", "slice", "expanded"])
def test_layouts(check_gradients, layout):
    def lay(x):
        if x.dim() < 3:
            return x.t().contiguous().t() if x.dim() == 2 else torch.stack([x, x], -1)[:, 0]
        if layout == "transposed":
            return x.transpose(-1, -2).contiguous().transpose(-1, -2)
        return torch.cat([x, x], dim=1)[:, : x.shape[1]] if layout == "slice" else x[:1].expand_as(x)

    compare(check_gradients, {k: lay(x) for k, x in tensors(7, dim=6, groups=2).items()})


@pytest.mark.parametrize("constant", ["", "BC"])
def test_tiles_that_follow_each_other(check_gradients, monkeypatch, constant):
    """No room for sums of dB and dC of their own, or for a state of every fourth step."""
    monkeypatch.setattr(selective_scan_launch, "workspace_limit", lambda *_: 0)
    monkeypatch.setattr(selective_scan_launch, "WARPS", 1)
    compare(check_gradients, tensors(5, dim=70, state=3, batch=3, constant=tuple(constant)))
    compare(check_gradients, tensors(69, batch=1, dim=3, state=2), reverse=True)


def test_tiles_in_programs_of_their_own(check_gradients, monkeypatch):
    monkeypatch.setattr(selective_scan_launch, "WARPS", 1)
    compare(check_gradients, tensors(5, dim=70, state=3, batch=3))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("leave_out", [(), OPTIONAL], ids=str)
def test_segments(check_gradients, monkeypatch, leave_out, reverse):
    """A sequence cut along L, the state carried between the parts."""
    monkeypatch.setattr(selective_scan_launch, "LONG", 16)
    monkeypatch.setattr(selective_scan_launch, "SEGMENT", 16)
    given = tensors(37, batch=1, state=3, leave_out=leave_out)
    compare(check_gradients, given, reverse=reverse)
    if leave_out:
        compare(check_gradients, tensors(18, batch=2, state=2, dim=4, groups=2, constant=("C",)), reverse=reverse)


def test_extreme_steps(check_gradients):
    """Large delta forgets everything (exp underflows to 0), delta near 0 keeps everything."""
    given = tensors(12, leave_out=("delta_bias",))
    for at, value in ((3, 60.0), (7, -60.0), (9, 20.5)):
        given["delta"][..., at] = value
    compare(check_gradients, given)


def test_some_gradients_alone(assert_close):
    given = tensors(6)
    for name in given:
        ours = {k: x.requires_grad_(k == name) for k, x in ((k, x.detach().clone()) for k, x in given.items())}
        exact = {k: x.detach().double().requires_grad_(k == name) for k, x in given.items()}
        for function, t in ((ops.selective_scan, ours), (reference.selective_scan, exact)):
            function(**t, delta_softplus=True).square().sum().backward()
        assert_close(ours[name].grad, exact[name].grad)


def test_only_the_last_state_is_used(assert_close):
    given = tensors(9, constant=("B",))
    exact = {k: x.double().requires_grad_() for k, x in given.items()}
    given = {k: x.requires_grad_() for k, x in given.items()}
    for function, t in ((ops.selective_scan, given), (reference.selective_scan, exact)):
        function(**t, delta_softplus=True, return_last_state=True)[1].square().sum().backward()
    for name, x in given.items():
        assert_close(x.grad, torch.zeros_like(x) if exact[name].grad is None else exact[name].grad)


def test_more_states_than_registers_are_refused():
    given = tensors(2, state=257, dim=1)
    with pytest.raises(ValueError, match="N is 257; the Triton kernels keep up to 256"):
        ops.selective_scan(**given)


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 0, 5)])
def test_empty(shape):
    batch, dim, length = shape
    given = {k: x.requires_grad_() for k, x in tensors(length, batch=batch, dim=dim).items()}
    out, last = ops.selective_scan(**given, return_last_state=True)
    (out.sum() + last.sum()).backward()
    assert not any(x.grad.any() for x in given.values())
