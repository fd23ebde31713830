"""mamba_ssm's functions and VMamba's kernels against float64, where the originals are right and where they are not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bdgf_fast import ops, reference
from bdgf_fast.compat import mamba_inner_fn, selective_scan_fn, selective_scan_ref
from bdgf_fast.compat.selective_scan import core_fwd, cross_scan_bwd, oflex_fwd


def draw(shapes, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=g).to(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("function", [selective_scan_fn, selective_scan_ref])
def test_last_state_and_its_gradient(constant, function, check_gradients):
    """Of a constant B the published kernel returns no last state that is right, and of none its gradient."""
    b, d, n, l = 2, 6, 3, 11
    matrix = (d, n) if constant else (b, n, l)
    t = draw({"u": (b, d, l), "delta": (b, d, l), "B": matrix, "C": matrix, "D": (d,), "z": (b, d, l), "delta_bias": (d,)})
    t["A"] = -torch.rand(d, n)

    def ours(**t):
        return function(**t, delta_softplus=True, return_last_state=True)

    def written_out(u, delta, A, B, C, D, z, delta_bias):
        delta, state, ys = F.softplus(delta + delta_bias[:, None]), torch.zeros(b, d, n, dtype=u.dtype), []
        for i in range(l):
            B_i, C_i = (B, C) if constant else (B[:, None, :, i], C[:, None, :, i])
            state = torch.exp(delta[..., i, None] * A) * state + (delta * u)[..., i, None] * B_i
            ys.append((state * C_i).sum(-1))
        return (torch.stack(ys, -1) + D[:, None] * u) * F.silu(z), state

    check_gradients(ours, written_out, t)


def test_gradients_through_initial_and_last_state(check_gradients):
    """A sequence cut in two, the state handed on, against the uncut one: the first piece's gradients pass both states."""
    b, d, n, l, cut = 2, 6, 3, 12, 5
    t = draw({"u": (b, d, l), "delta": (b, d, l), "B": (b, n, l), "C": (b, n, l), "z": (b, d, l), "start": (b, d, n)}, 4)
    t["A"] = -torch.rand(d, n)

    def in_two(u, delta, A, B, C, z, start):
        def piece(part, state):
            return ops.selective_scan(
                u[..., part], delta[..., part], A, B[..., part], C[..., part], None, z[..., part], None, True, True,
                initial_state=state,
            )  # fmt: skip

        first, state = piece(slice(cut), start)
        second, last = piece(slice(cut, l), state)
        return torch.cat([first, second], -1), last

    def at_once(u, delta, A, B, C, z, start):
        return reference.selective_scan(u, delta, A, B, C, None, z, None, True, True, initial_state=start)

    check_gradients(in_two, at_once, t)


def test_mixed_dtypes_meet(assert_close):
    t = draw({"u": (2, 4, 9), "delta": (2, 4, 9), "B": (2, 3, 9), "C": (2, 3, 9), "z": (2, 4, 9)}, dtype=torch.bfloat16)
    A = -torch.rand(4, 3)
    t["B"] = t["B"].float() * 1.001  # not bfloat16's own
    y = selective_scan_fn(t["u"], t["delta"], A, t["B"], t["C"], z=t["z"], delta_softplus=True)
    exact = {name: x.double() for name, x in t.items()}
    assert y.dtype is torch.bfloat16
    assert_close(y, reference.selective_scan(**exact, A=A.double(), delta_softplus=True))


def rms(x, weight, eps):
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * weight


INNER = {
    "xz": (2, 12, 9), "conv1d_weight": (6, 1, 4), "conv1d_bias": (6,), "x_proj_weight": (2 + 2 * 5, 6),
    "delta_proj_weight": (6, 2), "out_proj_weight": (7, 6), "out_proj_bias": (7,), "D": (6,), "delta_bias": (6,),
    "B_proj_bias": (5,), "C_proj_bias": (5,), "b_rms_weight": (5,), "c_rms_weight": (5,), "dt_rms_weight": (6,),
}  # fmt: skip
OPTIONAL = ("B_proj_bias", "C_proj_bias", "b_rms_weight", "c_rms_weight", "dt_rms_weight")


def inner(xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, out_proj_weight, out_proj_bias, A, B=None, C=None,
          D=None, delta_bias=None, B_proj_bias=None, C_proj_bias=None, delta_softplus=True, b_rms_weight=None,
          c_rms_weight=None, dt_rms_weight=None, b_c_dt_rms_eps=1e-6):  # fmt: skip
    """A Mamba block after its input projection, one operation of torch after the other."""
    x, z = xz.chunk(2, 1)
    x = F.silu(F.conv1d(x, conv1d_weight, conv1d_bias, padding=conv1d_weight.shape[-1] - 1, groups=x.shape[1])[..., : x.shape[-1]])
    n = A.shape[1] * (2 if A.is_complex() else 1)
    step, b, c = (x_proj_weight @ x).transpose(1, 2).split([delta_proj_weight.shape[1], n, n], -1)
    delta = step @ delta_proj_weight.t()
    b = b if B_proj_bias is None else b + B_proj_bias
    c = c if C_proj_bias is None else c + C_proj_bias
    b = b if b_rms_weight is None else rms(b, b_rms_weight, b_c_dt_rms_eps)
    c = c if c_rms_weight is None else rms(c, c_rms_weight, b_c_dt_rms_eps)
    delta = delta if dt_rms_weight is None else rms(delta, dt_rms_weight, b_c_dt_rms_eps)
    if A.is_complex():
        b, c = (torch.view_as_complex(v.unflatten(-1, (-1, 2)).contiguous()) for v in (b, c))
    b, c = (b.transpose(1, 2) if B is None else B), (c.transpose(1, 2) if C is None else C)
    y = reference.selective_scan(x, delta.transpose(1, 2), A, b, c, D, z, delta_bias, delta_softplus)
    return y.transpose(1, 2) @ out_proj_weight.t() + (0 if out_proj_bias is None else out_proj_bias)


@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("constant", [False, True])
def test_inner_function_and_the_gradients_of_its_norms(norms, constant, check_gradients):
    t = draw({name: shape for name, shape in INNER.items() if norms or name not in OPTIONAL})
    t["A"] = -torch.rand(6, 5)
    if constant:
        t |= draw({"B": (6, 5), "C": (6, 5)}, 1)
        t = {name: x for name, x in t.items() if name not in OPTIONAL or name == "dt_rms_weight"}
    check_gradients(lambda **t: mamba_inner_fn(**t), inner, t, scale=2.0)
    softplus_off = {**t, "delta_bias": t["delta_bias"].abs() + 3.0, "xz": 0.1 * t["xz"]}
    check_gradients(
        lambda **t: mamba_inner_fn(**t, delta_softplus=False), lambda **t: inner(**t, delta_softplus=False), softplus_off, scale=2.0
    )


def test_inner_function_with_a_complex_decay(assert_close):
    t = draw({name: shape for name, shape in INNER.items() if name not in OPTIONAL}, 2)
    t["x_proj_weight"] = torch.randn(2 + 2 * 6, 6)
    A = torch.complex(-torch.rand(6, 3), torch.randn(6, 3))
    exact = inner(**{name: x.double() for name, x in t.items()}, A=A.to(torch.complex128))
    assert_close(mamba_inner_fn(**t, A=A), exact)


class Scan(torch.autograd.Function):
    """As VMamba's file wraps the kernels."""

    @staticmethod
    def forward(ctx, fwd, options, u, delta, A, B, C, D, delta_bias):
        out, x, *rest = fwd(u, delta, A, B, C, D, delta_bias, True, 1, *options)
        assert not rest
        ctx.save_for_backward(u, delta, A, B, C, D, delta_bias, x)
        return out

    @staticmethod
    def backward(ctx, dout):
        *tensors, x = ctx.saved_tensors
        return None, None, *cross_scan_bwd(*tensors, dout.contiguous(), x, True, 1)


@pytest.mark.parametrize(("fwd", "options"), [(oflex_fwd, (True,)), (oflex_fwd, (False,)), (core_fwd, ())])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shared", [1, 2])
def test_vmamba_kernels(fwd, options, dtype, shared, check_gradients):
    b, groups, d, n, l = 2, 4, 8, 3, 10
    t = draw({"u": (b, d, l), "delta": (b, d // shared, l), "B": (b, groups, n, l), "C": (b, groups, n, l)}, dtype=dtype)
    t |= draw({"D": (d,), "delta_bias": (d // shared,)}, 3)
    t["A"] = -torch.rand(d, n)

    def ours(u, delta, A, B, C, D, delta_bias):
        out = Scan.apply(fwd, options, u, delta, A, B, C, D, delta_bias)
        assert out.dtype is (torch.float32 if options == (True,) else dtype)
        return out

    def exact(u, delta, A, B, C, D, delta_bias):
        delta, delta_bias = delta.repeat_interleave(shared, 1), delta_bias.repeat_interleave(shared)
        return reference.selective_scan(u, delta, A, B, C, D, None, delta_bias, True)

    check_gradients(ours, exact, t, scale=1.0 if dtype is torch.float32 else 2.0)


def test_vmamba_kernels_compute_the_forward_once(monkeypatch, assert_close):
    """The graph that the forward recorded serves the backward, as often as it is asked; without it all goes as well."""
    from bdgf_fast.compat import selective_scan as module

    calls = []
    scan = module.selective_scan
    monkeypatch.setattr(module, "selective_scan", lambda *a, **k: calls.append(1) or scan(*a, **k))
    t = draw({"u": (2, 4, 7), "delta": (2, 4, 7), "B": (2, 2, 3, 7), "C": (2, 2, 3, 7), "D": (4,), "delta_bias": (4,)})
    leaves = [v.requires_grad_() for v in (t["u"], t["delta"], -torch.rand(4, 3), t["B"], t["C"], t["D"], t["delta_bias"])]
    y = Scan.apply(oflex_fwd, (True,), *leaves)
    first = torch.autograd.grad(y, leaves, torch.ones_like(y), retain_graph=True)
    second = torch.autograd.grad(y, leaves, torch.ones_like(y))
    assert len(calls) == 1
    anew = cross_scan_bwd(*leaves, torch.ones_like(y), torch.empty(0), True, 1)
    assert len(calls) == 2
    for a, b, c in zip(first, second, anew, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_vmamba_kernels_leave_the_last_state_in_x(assert_close):
    t = draw({"u": (2, 4, 7), "delta": (2, 4, 7), "B": (2, 2, 3, 7), "C": (2, 2, 3, 7)}, dtype=torch.float16)
    A = -torch.rand(4, 3)
    out, x = oflex_fwd(t["u"], t["delta"], A, t["B"], t["C"], None, None, True, 1, True)
    exact = {name: v.double() for name, v in t.items()}
    y, state = reference.selective_scan(**exact, A=A.double(), delta_softplus=True, return_last_state=True)
    assert x.shape == (2, 4, 1, 6)
    assert_close(x[:, :, -1, 1::2], state)
    assert_close(out, y)  # float32's tolerance: not rounded to float16 on the way
    found = cross_scan_bwd(t["u"], t["delta"], A, t["B"], t["C"], None, None, torch.ones_like(out), x, True, 1)
    assert found[5] is None and found[6] is None
    assert [g.dtype for g in found[:5]] == [torch.float16, torch.float16, torch.float32, torch.float16, torch.float16]
