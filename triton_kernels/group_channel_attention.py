"""Channel attention inside each group, softmax(tau Q^ K^') V: one program does one (sample, group).

Q K' and the norms of Q's and K's channels come from one read of q and k, and cos_ij = (q_i . k_j) / (|q_i| |k_j|): no
normalised copy is made. The backward reads all four inputs once for Q K' and dO V' together, then, with
T = tau A (dA - rowsum(A dA)), once more for dV = A' dO, dQ = (T K^ - rowsum(T cos) Q^) / |q| and its mirror for K.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ._launch import launch, next_power_of_2, workspace

MOST = 64  # channels of a group: its matrices live in registers


@triton.jit
def sample_and_group(groups):
    """The sample and the group of this program."""
    program = tl.program_id(0)
    return (program // groups).to(tl.int64), (program % groups).to(tl.int64)


@triton.jit
def load_tile(x, c, l, size, length, x_c, x_l):
    """[channels, steps] of one group; 0 where there are none."""
    inside = (c < size)[:, None] & (l < length)[None, :]
    return tl.load(x + c[:, None] * x_c + l[None, :] * x_l, mask=inside, other=0)


@triton.jit
def store_tile(x, value, c, l, size, length, x_c, x_l):
    """Store what load_tile would load, in the dtype of x."""
    inside = (c < size)[:, None] & (l < length)[None, :]
    tl.store(x + c[:, None] * x_c + l[None, :] * x_l, value.to(x.dtype.element_ty), mask=inside)


@triton.jit
def add_products(gram, squares_q, squares_k, q, k, PRECISION: tl.constexpr):
    """Add what some steps, [channels, steps], contribute to Q K' and to the squared norms of the channels of Q and K."""
    gram = tl.dot(q, tl.trans(k), gram, input_precision=PRECISION)
    q, k = q.to(tl.float32), k.to(tl.float32)
    return gram, squares_q + tl.sum(q * q, axis=1), squares_k + tl.sum(k * k, axis=1)


@triton.jit
def inverse_norm(squares):
    """1 / max(norm, 1e-12)."""
    return 1.0 / tl.maximum(tl.sqrt_rn(squares), 1e-12)


@triton.jit
def cosines_and_weights(gram, inverse_q, inverse_k, tau, size, D: tl.constexpr):
    """cos [D, D] and softmax(tau cos) over the group's channels of k."""
    cos = gram * inverse_q[:, None] * inverse_k[None, :]
    s = tl.where((tl.arange(0, D) < size)[None, :], tau * cos, -float("inf"))
    p = tl.exp(s - tl.max(s, axis=1)[:, None])
    return cos, p / tl.sum(p, axis=1)[:, None]


@triton.jit
def group_channel_attention_fwd(
    q, k, v, temperature, out, groups, size, length, temperature_g, q_b, q_c, q_l, k_b, k_c, k_l, v_b, v_c, v_l, out_b,
    out_c, out_l, PRECISION: tl.constexpr, D: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """One (sample, group), BL steps at a time; D is its number of channels, `size`, rounded up."""
    b, g = sample_and_group(groups)
    c = tl.arange(0, D).to(tl.int64)
    q += b * q_b + g * size * q_c
    k += b * k_b + g * size * k_c
    v += b * v_b + g * size * v_c
    out += b * out_b + g * size * out_c
    gram = tl.zeros([D, D], tl.float32)
    squares_q, squares_k = tl.zeros([D], tl.float32), tl.zeros([D], tl.float32)
    for start in range(0, length, BL):
        l = tl.arange(0, BL).to(tl.int64) + start
        x, y = load_tile(q, c, l, size, length, q_c, q_l), load_tile(k, c, l, size, length, k_c, k_l)
        gram, squares_q, squares_k = add_products(gram, squares_q, squares_k, x, y, PRECISION)
    tau = tl.load(temperature + g * temperature_g)
    _, weights = cosines_and_weights(gram, inverse_norm(squares_q), inverse_norm(squares_k), tau, size, D)
    weights = weights.to(v.dtype.element_ty)
    for start in range(0, length, BL):
        l = tl.arange(0, BL).to(tl.int64) + start
        value = tl.dot(weights, load_tile(v, c, l, size, length, v_c, v_l), input_precision=PRECISION)
        store_tile(out, value, c, l, size, length, out_c, out_l)


@triton.jit
def group_channel_attention_bwd(
    grad_out, q, k, v, temperature, grad_q, grad_k, grad_v, tau_slope, groups, size, length, temperature_g, grad_b, grad_c,
    grad_l, q_b, q_c, q_l, k_b, k_c, k_l, v_b, v_c, v_l, grad_q_b, grad_q_c, grad_q_l, grad_k_b, grad_k_c, grad_k_l,
    grad_v_b, grad_v_c, grad_v_l, PRECISION: tl.constexpr, D: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """The gradients of one (sample, group). `slope` is dA at first, then T / tau, then T (see the module's docstring)."""
    b, g = sample_and_group(groups)
    c = tl.arange(0, D).to(tl.int64)
    grad_out += b * grad_b + g * size * grad_c
    q += b * q_b + g * size * q_c
    k += b * k_b + g * size * k_c
    v += b * v_b + g * size * v_c
    gram = tl.zeros([D, D], tl.float32)
    slope = tl.zeros([D, D], tl.float32)
    squares_q, squares_k = tl.zeros([D], tl.float32), tl.zeros([D], tl.float32)
    for start in range(0, length, BL):
        l = tl.arange(0, BL).to(tl.int64) + start
        x, y = load_tile(q, c, l, size, length, q_c, q_l), load_tile(k, c, l, size, length, k_c, k_l)
        gram, squares_q, squares_k = add_products(gram, squares_q, squares_k, x, y, PRECISION)
        x, y = load_tile(grad_out, c, l, size, length, grad_c, grad_l), load_tile(v, c, l, size, length, v_c, v_l)
        slope = tl.dot(x, tl.trans(y), slope, input_precision=PRECISION)
    inverse_q, inverse_k = inverse_norm(squares_q), inverse_norm(squares_k)
    tau = tl.load(temperature + g * temperature_g)
    cos, weights = cosines_and_weights(gram, inverse_q, inverse_k, tau, size, D)
    slope = weights * (slope - tl.sum(weights * slope, axis=1)[:, None])
    products = slope * cos
    if tau_slope is not None:
        tl.store(tau_slope + tl.program_id(0), tl.sum(tl.sum(products, axis=1), axis=0))
    # A norm at its clamp is a constant.
    along_q = tl.where(inverse_q < 1e12, tau * tl.sum(products, axis=1), 0.0)
    along_k = tl.where(inverse_k < 1e12, tau * tl.sum(products, axis=0), 0.0)
    slope = (tau * slope).to(q.dtype.element_ty)
    weights = weights.to(q.dtype.element_ty)
    for start in range(0, length, BL):
        l = tl.arange(0, BL).to(tl.int64) + start
        if grad_v is not None:
            x = load_tile(grad_out, c, l, size, length, grad_c, grad_l)
            value = tl.dot(tl.trans(weights), x, input_precision=PRECISION)
            at = grad_v + b * grad_v_b + g * size * grad_v_c
            store_tile(at, value, c, l, size, length, grad_v_c, grad_v_l)
        if grad_q is not None or grad_k is not None:
            x = load_tile(q, c, l, size, length, q_c, q_l).to(tl.float32) * inverse_q[:, None]
            y = load_tile(k, c, l, size, length, k_c, k_l).to(tl.float32) * inverse_k[:, None]
            if grad_q is not None:
                value = tl.dot(slope, y.to(slope.dtype), -along_q[:, None] * x, input_precision=PRECISION)
                at = grad_q + b * grad_q_b + g * size * grad_q_c
                store_tile(at, value * inverse_q[:, None], c, l, size, length, grad_q_c, grad_q_l)
            if grad_k is not None:
                value = tl.dot(tl.trans(slope), x.to(slope.dtype), -along_k[:, None] * y, input_precision=PRECISION)
                at = grad_k + b * grad_k_b + g * size * grad_k_c
                store_tile(at, value * inverse_k[:, None], c, l, size, length, grad_k_c, grad_k_l)


def _blocks(x, groups: int) -> dict[str, int]:
    """D, BL, num_warps and registers, by table: whole matrices of a group, steps as registers allow.

    A product of 64 x 64 in full float32 does not fit the registers; in three tensor-core products it does.
    """
    D = max(16, next_power_of_2(x.shape[1] // groups))
    if x.element_size() == 2:
        steps, warps = 32, {16: 4, 32: 4, 64: 8}[D]
    else:
        steps, warps = {16: (16, 2), 32: (16, 4), 64: (16, 8)}[D]
    precision = "ieee" if D < 64 else "tf32x3"
    BL = min(steps, max(16, next_power_of_2(x.shape[2])))
    return {"PRECISION": precision, "D": D, "BL": BL, "num_warps": warps, "registers": 255}


def forward(outputs, q, k, v, temperature, groups) -> None:
    """Launcher for `bdgf::group_channel_attention_fwd`."""
    if q.numel() == 0:
        return
    batch, channels, length = q.shape
    launch(
        group_channel_attention_fwd, batch * groups,
        q, k, v, temperature, outputs[0], groups, channels // groups, length, temperature.stride(0), *q.stride(),
        *k.stride(), *v.stride(), *outputs[0].stride(), **_blocks(q, groups),
    )  # fmt: skip


def backward(outputs, grad_out, q, k, v, temperature, groups, needs) -> None:
    """Launcher for `bdgf::group_channel_attention_bwd`."""
    grad_q, grad_k, grad_v, grad_temperature = outputs
    if q.numel() == 0:
        if grad_temperature is not None:
            grad_temperature.zero_()
        return
    batch, channels, length = q.shape
    tau_slope = None if grad_temperature is None else workspace(q, batch, groups)

    def strides(x):
        return (0, 0, 0) if x is None else x.stride()

    launch(
        group_channel_attention_bwd, batch * groups,
        grad_out, q, k, v, temperature, grad_q, grad_k, grad_v, tau_slope, groups, channels // groups, length,
        temperature.stride(0), *grad_out.stride(), *q.stride(), *k.stride(), *v.stride(), *strides(grad_q),
        *strides(grad_k), *strides(grad_v), **_blocks(q, groups),
    )  # fmt: skip
    if grad_temperature is not None:
        torch.sum(tau_slope, 0, out=grad_temperature)
