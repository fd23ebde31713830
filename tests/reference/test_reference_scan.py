"""The reference scans against the definition written another way: closed form and explicit walks, in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bdgf_fast import reference


def closed_form(u, delta, A, B, C, initial=None):
    """y_l = sum_{m <= l} C_l . exp(A (s_l - s_m)) delta_m B_m u_m + C_l . exp(A s_l) x_0 with s = cumsum(delta)."""
    batch, dim, length = u.shape
    s = np.cumsum(delta, axis=-1)
    y = np.zeros(u.shape, dtype=np.result_type(A, np.float64))
    last = np.zeros((batch, dim, A.shape[1]), dtype=y.dtype)
    for b in range(batch):
        for d in range(dim):
            for l in range(length):
                x = np.zeros(A.shape[1], dtype=y.dtype)
                if initial is not None:
                    x = np.exp(A[d] * s[b, d, l]) * initial[b, d]
                for m in range(l + 1):
                    x = x + np.exp(A[d] * (s[b, d, l] - s[b, d, m])) * delta[b, d, m] * u[b, d, m] * B[b, d, :, m]
                y[b, d, l] = np.dot(C[b, d, :, l], x)
            last[b, d] = x
    return y, last


def spread(matrix, batch, dim, length):
    """B or C in any layout -> (batch, dim, N, L)."""
    if matrix.ndim == 2:
        return np.broadcast_to(matrix[None, :, :, None], (batch, dim, matrix.shape[1], length))
    if matrix.ndim == 3:
        matrix = matrix[:, None]
    return np.repeat(matrix, dim // matrix.shape[1], axis=1)


LAYOUTS = {"constant": (4, 3), "variable": (2, 3, 5), "groups": (2, 2, 3, 5)}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("layout_C", LAYOUTS)
@pytest.mark.parametrize("layout_B", LAYOUTS)
def test_scan_is_the_closed_form(layout_B, layout_C, reverse):
    rng = np.random.default_rng(0)
    batch, dim, length, state = 2, 4, 5, 3
    u, z = rng.normal(size=(2, batch, dim, length))
    raw = rng.normal(size=(batch, dim, length))
    A = -rng.uniform(0.2, 2.0, size=(dim, state))
    B, C = rng.normal(size=LAYOUTS[layout_B]), rng.normal(size=LAYOUTS[layout_C])
    D, bias = rng.normal(size=(2, dim))
    initial = rng.normal(size=(batch, dim, state))

    delta = np.log1p(np.exp(raw + bias[:, None]))
    flip = (lambda x: x[..., ::-1]) if reverse else (lambda x: x)
    full_B, full_C = (spread(m, batch, dim, length) for m in (B, C))
    y, last = closed_form(flip(u), flip(delta), A, flip(full_B), flip(full_C), initial)
    expected = (flip(y) + D[:, None] * u) * z / (1.0 + np.exp(-z))

    t = {
        k: torch.tensor(v)
        for k, v in {"u": u, "delta": raw, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": bias}.items()
    }
    out, last_state = reference.selective_scan(
        **t, delta_softplus=True, return_last_state=True, initial_state=torch.tensor(initial), reverse=reverse
    )
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(last_state.numpy(), last, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variable", [False, True])
def test_complex_scan_returns_twice_the_real_part(variable):
    rng = np.random.default_rng(1)
    batch, dim, length, state = 2, 3, 6, 2
    u, delta = rng.normal(size=(batch, dim, length)), rng.uniform(0.1, 1.0, size=(batch, dim, length))
    A = -rng.uniform(0.2, 1.0, size=(dim, state)) + 1j * rng.normal(size=(dim, state))
    shape = (batch, state, length) if variable else (dim, state)
    B, C = (rng.normal(size=shape) + 1j * rng.normal(size=shape) for _ in range(2))
    y, last = closed_form(u, delta, A, spread(B, batch, dim, length), spread(C, batch, dim, length))

    def given(m):  # a variable matrix travels as (real, imaginary) pairs along L
        m = torch.tensor(m)
        return torch.view_as_real(m).flatten(-2) if variable else m

    out, last_state = reference.selective_scan(
        torch.tensor(u), torch.tensor(delta), torch.tensor(A), given(B), given(C), return_last_state=True
    )
    np.testing.assert_allclose(out.numpy(), 2.0 * y.real, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(last_state.numpy(), last, rtol=1e-10, atol=1e-12)


def test_softplus_is_linear_above_20():
    u = torch.ones(1, 1, 1, dtype=torch.float64)
    one = torch.ones(1, 1, dtype=torch.float64)
    out = reference.selective_scan(u, 25.0 * u, -one, one, one, delta_softplus=True)
    assert out.item() == 25.0


def test_gradients_by_finite_differences():
    torch.manual_seed(0)
    batch, dim, length, state = 2, 4, 3, 2
    inputs = [
        torch.randn(batch, dim, length), torch.randn(batch, dim, length), -torch.rand(dim, state) - 0.1,
        torch.randn(batch, 2, state, length), torch.randn(batch, state, length), torch.randn(dim),
        torch.randn(batch, dim, length), torch.randn(dim), torch.randn(batch, dim, state),
    ]  # fmt: skip
    inputs = [x.double().requires_grad_() for x in inputs]

    def scan(u, delta, A, B, C, D, z, bias, initial):
        return reference.selective_scan(u, delta, A, B, C, D, z, bias, True, True, initial_state=initial, reverse=True)

    assert torch.autograd.gradcheck(scan, inputs)


def test_backward_is_linear_in_length():
    """Indexing [..., l] in the loop would scatter each step's gradient into a full-length zero tensor."""
    u = torch.randn(1, 2, 40, requires_grad=True)
    delta, B, C = torch.rand(1, 2, 40, requires_grad=True), torch.randn(1, 3, 40), torch.randn(1, 3, 40)
    out = reference.selective_scan(u, delta, -torch.rand(2, 3), B, C)
    seen, nodes = set(), [out.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes += [n for n, _ in node.next_functions]
    names = [type(node).__name__ for node in seen]
    assert "SelectBackward0" not in names and "SliceBackward0" not in names
    assert names.count("UnbindBackward0") == 2  # delta and delta * u


def paths(height, width, directions):
    """The pixels (row-major index) in the order in which each direction visits them, written out by hand."""
    rows = [i * width + j for i in range(height) for j in range(width)]
    columns = [i * width + j for j in range(width) for i in range(height)]
    return {1: [rows], 2: [rows, rows[::-1]], 4: [rows, columns, rows[::-1], columns[::-1]]}[directions]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("order", ["pixel", "scan"])
@pytest.mark.parametrize("directions", [1, 2, 4])
def test_scan_2d_walks_the_pixels(directions, order, shared):
    rng = np.random.default_rng(2)
    batch, dim, height, width, state = 2, 3, 2, 4, 2
    pixels, K = height * width, directions
    x = rng.normal(size=(batch, dim, height, width))
    raw = rng.normal(size=(batch, 1 if shared else K, dim, pixels))
    A = -rng.uniform(0.2, 2.0, size=(K, dim, state))
    B, C = rng.normal(size=(2, batch, K, state, pixels))
    D, bias = rng.normal(size=(K, dim)), rng.normal(size=dim)

    expected = np.zeros((batch, dim, pixels))
    for k, path in enumerate(paths(height, width, directions)):
        by_pixel = order == "pixel"
        delta = np.log1p(np.exp((raw[:, 0] if shared else raw[:, k]) + bias[:, None]))
        delta = delta[..., path] if by_pixel or shared else delta
        Bk, Ck = ((m[:, k][..., path] if by_pixel else m[:, k]) for m in (B, C))
        u = x.reshape(batch, dim, pixels)[..., path]
        y, _ = closed_form(u, delta, A[k], spread(Bk, batch, dim, pixels), spread(Ck, batch, dim, pixels))
        expected[..., path] += y + D[k][:, None] * u
    t = {
        k: torch.tensor(v)
        for k, v in {"x": x, "delta": raw, "A": A, "B": B, "C": C, "D": D, "delta_bias": bias}.items()
    }
    out = reference.selective_scan_2d(**t, directions=directions, order=order)
    np.testing.assert_allclose(out.numpy().reshape(batch, dim, pixels), expected, rtol=1e-10, atol=1e-12)
