"""Selective scan over the pixels of an image, in several directions at once."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import backends, reference
from . import _check as check
from ._library import call_kernel, call_plain, cast, define, gradients, needs_grad, register_triton
from .selective_scan import no_float64, run_native, triton_states

backends.register_plain("selective_scan_2d", "reference", reference.selective_scan_2d)

_TENSORS = "Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? delta_bias"
_SCALARS = "bool delta_softplus, int directions, bool pixel_order"

define("selective_scan_2d", "fwd", f"{_TENSORS}, {_SCALARS}", lambda x, *_: [torch.empty_like(x)])
define(
    "selective_scan_2d",
    "bwd",
    f"Tensor grad_out, {_TENSORS}, {_SCALARS}, bool[] needs",
    lambda grad_out, *arguments: gradients(arguments[:7], arguments[-1]),
)


def _native_forward(outputs, x, delta, A, B, C, D, delta_bias, softplus, directions, pixel_order):
    """x and the output may have any strides; those whose rows do not follow each other are copied first."""
    out = outputs[0]
    pixels = out.flatten(2)
    inputs = {"u": x.flatten(2), "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
    run_native("selective_scan_fwd", inputs, {"out": pixels}, **_options(x, softplus, directions, pixel_order))
    _write_back(out, pixels)


def _native_backward(outputs, grad_out, x, delta, A, B, C, D, delta_bias, softplus, directions, pixel_order, _):
    grad_x, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_delta_bias = outputs
    pixels = None if grad_x is None else grad_x.flatten(2)
    inputs = {"u": x.flatten(2), "delta": delta, "A": A, "B": B, "C": C, "D": D, "delta_bias": delta_bias}
    inputs |= {"grad_out": grad_out.flatten(2)}
    found = {"grad_u": pixels, "grad_delta": grad_delta, "grad_A": grad_A, "grad_B": grad_B, "grad_C": grad_C}
    found |= {"grad_D": grad_D, "grad_delta_bias": grad_delta_bias}
    run_native("selective_scan_bwd", inputs, found, **_options(x, softplus, directions, pixel_order))
    if pixels is not None:
        _write_back(grad_x, pixels)


def _options(x: Tensor, softplus: bool, directions: int, pixel_order: bool) -> dict[str, bool | int]:
    height, width = x.shape[2:]
    image = {"directions": directions, "height": height, "width": width, "visiting_order": not pixel_order}
    return {"delta_softplus": softplus, **image}


def _write_back(out: Tensor, pixels: Tensor) -> None:
    if pixels.data_ptr() != out.data_ptr():
        out.copy_(pixels.view_as(out))


backends.register("selective_scan_2d", "cpu", forward=_native_forward, backward=_native_backward)
backends.register("selective_scan_2d", "cuda", forward=_native_forward, backward=_native_backward, supports=no_float64)
register_triton("selective_scan_2d", triton_states)


def selective_scan_2d(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = True,
    directions: int = 4,
    order: str = "pixel",
) -> Tensor:
    """The cross-scan of VMamba's SS2D (arXiv 2401.10166, section 4), merged by sum, without its K-fold copies.

    Direction k is `selective_scan` over x in its own order of the pixels, with its own delta, A, B, C, D and
    delta_bias; the K results are added up pixel by pixel in float32.

    Args:
        x: (batch, dim, H, W), float32, float16 or bfloat16 (float64 on the CPU). Any strides, here and below.
        delta: (batch, K, dim, H*W), or (batch, 1, dim, H*W) shared by the directions pixel by pixel; x's dtype or
            float32.
        A: (K, dim, N), any float dtype.
        B, C: (batch, K, N, H*W), x's dtype.
        D, delta_bias: (dim,), the same in every direction, or (K, dim); any float dtype.
        delta_softplus: apply softplus (linear above 20) to delta + delta_bias.
        directions: K. 4: rows, columns, rows reversed, columns reversed. 2: rows, rows reversed. 1: rows.
        order: of the last axis of delta, B and C. "pixel": row-major pixels, whatever the direction. "scan": as
            direction k visits them, VMamba's layout (a shared delta is in row-major pixels all the same).

    Returns:
        (batch, dim, H, W) in x's dtype.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    Complexity: O(batch K dim N H W) time; nothing of size H W N or of K copies of x is stored.

    Examples:
        >>> x = torch.ones(1, 1, 2, 2)
        >>> delta, matrix = torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4)
        >>> selective_scan_2d(x, delta, torch.zeros(1, 1, 1), matrix, matrix, delta_softplus=False, directions=1)
        tensor([[[[1., 2.],
                  [3., 4.]]]])
    """
    delta_softplus = check.flag("delta_softplus", delta_softplus)
    directions = check.integer("directions", directions)
    check.main("x", x, 4, "(batch, dim, H, W)")
    batch, dim, height, width = x.shape
    check.at_least_one("x", height * width, "pixels")
    check.choice("directions", directions, (1, 2, 4))
    check.choice("order", order, ("pixel", "scan"))
    real = torch.float64 if x.dtype is torch.float64 else torch.float32
    check.beside("delta", delta, x, (x.dtype, real))
    if delta.dim() != 4 or delta.shape[1] != 1:
        check.shape("delta", delta, (batch, directions, dim, height * width), "(batch, K or 1, dim, H*W)")
    check.shape("delta", delta, (batch, delta.shape[1], dim, height * width), "(batch, K or 1, dim, H*W)")
    check.a_tensor("A", A, 3, "(K, dim, N)")
    check.beside("A", A, x)
    state = A.shape[2]
    check.shape("A", A, (directions, dim, state), "(K, dim, N)")
    check.at_least_one("A", state, "N")
    for name, matrix in (("B", B), ("C", C)):
        check.beside(name, matrix, x, (x.dtype,))
        check.shape(name, matrix, (batch, directions, state, height * width), "(batch, K, N, H*W)")
    for name, vector in (("D", D), ("delta_bias", delta_bias)):
        if vector is not None:
            check.beside(name, vector, x)
            if vector.dim() != 1:
                check.shape(name, vector, (directions, dim), "(dim,) or (K, dim)")
            elif vector.shape[0] != dim:
                check.shape(name, vector, (dim,), "(dim,) or (K, dim)")

    backend, _ = backends.choose(
        "selective_scan_2d",
        x.device.type,
        x.dtype,
        needs_grad=needs_grad(x, delta, A, B, C, D, delta_bias),
        directions=directions,
        state=state,
        height=height,
        width=width,
    )
    plain = backends.plain("selective_scan_2d", backend)
    if plain is not None:
        options = {"delta_bias": delta_bias, "delta_softplus": delta_softplus, "directions": directions, "order": order}
        return call_plain(plain, x.device.type, x, delta, A, B, C, D, **options)
    D, delta_bias = (None if v is None else cast(v, real).expand(directions, dim) for v in (D, delta_bias))
    tensors = (x, delta, cast(A, real), B, C, D, delta_bias)
    return call_kernel("selective_scan_2d", backend, tensors, (delta_softplus, directions, order == "pixel"))
