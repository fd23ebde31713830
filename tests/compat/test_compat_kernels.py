"""The kernel modules that mamba_ssm's, Vim's and causal_conv1d's files call, as those files call them, against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bdgf_fast import reference
from bdgf_fast.compat import causal_conv1d_fn, causal_conv1d_update
from bdgf_fast.compat.causal_conv1d import CausalConv1dFn, kernel_bwd, kernel_fwd, kernel_update
from bdgf_fast.compat.selective_scan import SelectiveScanFn, mamba_bwd, mamba_fwd, selective_scan_fn


def draw(seed=0, **shapes):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


class Scan(torch.autograd.Function):
    """The two calls around mamba_ssm's selective_scan_cuda."""

    @staticmethod
    def forward(ctx, into_place, u, delta, A, B, C, D, z, delta_bias):
        out, x, *rest = mamba_fwd(u, delta, A, B, C, D, z, delta_bias, True)
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, x, out)
        ctx.into_place = into_place
        return rest[0] if z is not None else out

    @staticmethod
    def backward(ctx, dout):
        *tensors, x, out = ctx.saved_tensors
        z = tensors[6]
        place = torch.empty_like(z) if ctx.into_place else None
        found = mamba_bwd(*tensors, dout, x, out if z is not None else None, place, True, ctx.into_place)
        du, ddelta, dA, dB, dC, dD, ddelta_bias, *rest = found
        dz = rest[0] if z is not None else None
        if ctx.into_place:
            assert dz is place and len(rest) == 2
            torch.testing.assert_close(rest[1], out * F.silu(z))
        return None, du, ddelta, dA, dB, dC, dD, dz, ddelta_bias


@pytest.mark.parametrize("gate", ["none", "gate", "into place"])
@pytest.mark.parametrize("constant", [True, False])
def test_selective_scan_cuda(gate, constant, check_gradients):
    b, d, n, l = 2, 4, 3, 9
    matrix = (d, n) if constant else (b, 2, n, l)
    t = draw(u=(b, d, l), delta=(b, d, l), B=matrix, C=matrix, D=(d,), delta_bias=(d,), z=(b, d, l))
    t["A"] = -torch.rand(d, n)
    z = {} if gate == "none" else {"z": t.pop("z")}
    t.pop("z", None)

    def ours(u, delta, A, B, C, D, delta_bias, z=None):
        return Scan.apply(gate == "into place", u, delta, A, B, C, D, z, delta_bias)

    def exact(u, delta, A, B, C, D, delta_bias, z=None):
        return reference.selective_scan(u, delta, A, B, C, D, z, delta_bias, True)

    check_gradients(ours, exact, t | z)


def test_selective_scan_cuda_with_a_complex_decay(assert_close):
    t = draw(u=(2, 4, 7), delta=(2, 4, 7), B=(2, 1, 3, 14), C=(2, 1, 3, 14))
    A = torch.complex(-torch.rand(4, 3), torch.randn(4, 3))
    out, x = mamba_fwd(t["u"], t["delta"], A, t["B"], t["C"], None, None, None, True)
    exact = reference.selective_scan(
        **{k: v.double() for k, v in t.items()}, A=A.to(torch.complex128), delta_softplus=True, return_last_state=True
    )
    assert_close(out, exact[0])
    assert x.is_complex() and torch.allclose(x[:, :, -1, 1::2].to(torch.complex128), exact[1], rtol=1e-4, atol=1e-5)


FORWARD = {
    "1.0": lambda silu, seq, initial, out, final: (silu,),
    "1.1": lambda silu, seq, initial, out, final: (seq, silu),
    "1.2": lambda silu, seq, initial, out, final: (seq, initial, final, silu),
    "1.5": lambda silu, seq, initial, out, final: (seq, initial, out, final, silu),
}


@pytest.mark.parametrize("release", FORWARD)
@pytest.mark.parametrize("silu", [True, False])
def test_causal_conv1d_cuda_forward(release, silu):
    t = draw(x=(2, 5, 6), weight=(5, 3), bias=(5,), initial=(2, 5, 2))
    initial = t["initial"] if release in ("1.2", "1.5") else None
    place, final = torch.empty(2, 5, 6), torch.empty(2, 5, 2)
    found = kernel_fwd(t["x"], t["weight"], t["bias"], *FORWARD[release](silu, None, initial, place, final))
    expected, states = causal_conv1d_fn(
        t["x"], t["weight"], t["bias"], None, initial, True, activation="silu" if silu else None
    )
    assert torch.equal(found, expected) and (release != "1.5" or found is place)
    if initial is not None:
        assert torch.equal(final, states)


@pytest.mark.parametrize("release", ["1.0", "1.1", "1.2", "1.5"])
@pytest.mark.parametrize("bias", [True, False])
def test_causal_conv1d_cuda_backward(release, bias):
    t = draw(x=(2, 5, 6), weight=(5, 3), bias=(5,), initial=(2, 5, 2), dout=(2, 5, 6), dfinal=(2, 5, 2))
    states = release in ("1.2", "1.5")
    names = ["x", "weight", *(["bias"] if bias else []), *(["initial"] if states else [])]
    leaves = {name: t[name].clone().requires_grad_() for name in names}
    out, final = causal_conv1d_fn(
        leaves["x"], leaves["weight"], leaves.get("bias"), None, leaves.get("initial"), True, activation="silu"
    )
    torch.autograd.backward([out, *([final] if states else [])], [t["dout"], *([t["dfinal"]] if states else [])])
    initial, dfinal = (t["initial"], t["dfinal"]) if states else (None, None)
    dx, places = torch.empty(2, 5, 6), [torch.empty(s) for s in ((5, 3), (5,), (2, 5, 2))]
    rest = {
        "1.0": (dx, True),
        "1.1": (None, dx, True),
        "1.2": (None, initial, dfinal, dx, True, True),
        "1.5": (None, initial, dfinal, dx, places[0], places[1] if bias else None, places[2], True),
    }[release]
    found = kernel_bwd(t["x"], t["weight"], t["bias"] if bias else None, t["dout"], *rest)
    assert found[0] is dx and (found[2] is None) == (not bias) and (found[3] is None) == (not states)
    wanted = [leaves[name].grad if name in leaves else None for name in ("x", "weight", "bias", "initial")]
    for a, b in zip(found, wanted, strict=True):
        assert a is b is None or torch.equal(a, b)
    if release == "1.5":
        assert found[1] is places[0] and found[3] is places[2]


@pytest.mark.parametrize("release", ["1.0", "1.2", "1.5"])
def test_causal_conv1d_cuda_update(release):
    t = draw(x=(2, 5), weight=(5, 3), bias=(5,), state=(4, 5, 3))
    slots = torch.tensor([3, -1], dtype=torch.int32)
    place, state, other = torch.empty(2, 5), t["state"][:2].clone(), t["state"][:2].clone()
    if release == "1.0":
        found = kernel_update(t["x"], state, t["weight"], t["bias"], True)
        expected = causal_conv1d_update(t["x"], other, t["weight"], t["bias"], "silu")
    else:
        state, other = t["state"].clone(), t["state"].clone()
        rest = (True, None, slots) if release == "1.2" else (place, True, None, slots)
        found = kernel_update(t["x"], state, t["weight"], t["bias"], *rest)
        expected = causal_conv1d_update(t["x"], other, t["weight"], t["bias"], "silu", None, slots)
    assert torch.equal(found, expected) and torch.equal(state, other) and (release != "1.5" or found is place)


def test_an_unknown_number_of_arguments_is_said():
    t = draw(x=(2, 5, 6), weight=(5, 3))
    with pytest.raises(TypeError, match="causal_conv1d_fwd got 3 arguments after its tensors; its releases take 1, 2, 4, 5"):
        kernel_fwd(t["x"], t["weight"], None, None, None, True)


def test_functions_that_were_autograd_functions():
    t = draw(u=(2, 4, 7), delta=(2, 4, 7), B=(2, 3, 7), C=(2, 3, 7), weight=(4, 3))
    A = -torch.rand(4, 3)
    given = (t["u"].requires_grad_(), t["delta"], A, t["B"], t["C"])
    out, state = SelectiveScanFn.apply(*given, None, None, None, True, True)
    expected = selective_scan_fn(*given, delta_softplus=True, return_last_state=True)
    assert torch.equal(out, expected[0]) and torch.equal(state, expected[1]) and out.requires_grad
    assert torch.equal(CausalConv1dFn.apply(t["u"], t["weight"]), causal_conv1d_fn(t["u"], t["weight"]))
