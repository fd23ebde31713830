"""Selective scan: the state-space recurrence of Mamba."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import torch
from torch import Tensor

from .. import _native, backends, reference
from . import _check as check
from ._library import call_kernel, call_plain, cast, define, gradients, needs_grad, register_triton

backends.register_plain("selective_scan", "reference", reference.selective_scan)

_TENSORS = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, Tensor? initial_state"
_SCALARS = "bool delta_softplus, bool return_last_state, bool reverse, bool keep_checkpoints"
_INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")

# The CPU kernel's: steps from one kept state to the next (SCAN_CHECKPOINT_STEPS of the extension).
CHECKPOINT_STEPS = 256


def _allocate_forward(u, delta, A, B, C, D, z, delta_bias, initial_state, softplus, return_last_state, reverse, keep_checkpoints):
    batch, _, length = u.shape
    outputs = [torch.empty_like(u)]
    if return_last_state:
        outputs.append(u.new_empty(batch, *A.shape, dtype=A.dtype))
    if keep_checkpoints:
        outputs.append(u.new_empty(batch, -(-length // CHECKPOINT_STEPS), *A.shape, dtype=A.dtype))
    return outputs


def _allocate_backward(grad_out, grad_last_state, *arguments):
    return gradients(arguments[: len(_INPUTS)], arguments[-1])


define("selective_scan", "fwd", f"{_TENSORS}, {_SCALARS}", _allocate_forward)
define(
    "selective_scan",
    "bwd",
    f"Tensor grad_out, Tensor? grad_last_state, {_TENSORS}, Tensor? checkpoints, {_SCALARS}, bool[] needs",
    _allocate_backward,
)


def run_native(
    function: str, inputs: Mapping[str, Tensor | None], outputs: Mapping[str, Tensor | None], **options: bool | int
) -> None:
    """`_C.selective_scan_fwd` or `_bwd` on arguments by name, for the scan over a sequence and over an image."""
    u = inputs["u"]
    assert u is not None
    if u.numel() == 0:  # nothing to scan, and every gradient is 0
        for x in outputs.values():
            if x is not None:
                x.zero_()
        return
    kernel = getattr(_native.load(), function)
    arguments = {**inputs, **outputs, **options, "num_threads": torch.get_num_threads()}
    workspace = u.new_empty(kernel(**arguments, workspace=None), dtype=torch.float32)
    kernel(**arguments, workspace=workspace, cuda_stream=_native.stream_of(u))


def no_float64(facts) -> str | None:
    """Float64 is for the CPU."""
    return "it has no float64 arithmetic" if facts["dtype"] is torch.float64 else None


def _native_forward(outputs, *arguments):
    inputs = dict(zip(_INPUTS, arguments, strict=False))
    softplus, return_last_state, reverse, keep_checkpoints = arguments[len(_INPUTS) :]
    rest = iter(outputs[1:])
    written = {
        "out": outputs[0],
        "last_state": next(rest) if return_last_state else None,
        "checkpoints": next(rest) if keep_checkpoints else None,
    }
    run_native("selective_scan_fwd", inputs, written, delta_softplus=softplus, reverse=reverse)


def _native_backward(outputs, grad_out, grad_last_state, *arguments):
    inputs = dict(zip((*_INPUTS, "checkpoints"), arguments, strict=False))
    softplus, _, reverse, _, _ = arguments[len(inputs) :]
    inputs |= {"grad_out": grad_out, "grad_last_state": grad_last_state}
    written = {f"grad_{name}": grad for name, grad in zip(_INPUTS, outputs, strict=True)}
    run_native("selective_scan_bwd", inputs, written, delta_softplus=softplus, reverse=reverse)


backends.register("selective_scan", "cpu", forward=_native_forward, backward=_native_backward)
backends.register("selective_scan", "cuda", forward=_native_forward, backward=_native_backward, supports=no_float64)


def triton_states(facts: Mapping[str, Any]) -> str | None:
    """Why the Triton kernels cannot take N states."""
    state = facts.get("state", 1)
    return f"N is {state}; the Triton kernels keep up to 256 states in registers" if state > 256 else None


register_triton("selective_scan", triton_states)


@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    return_last_state: Literal[False] = ...,
    *,
    initial_state: Tensor | None = ...,
    reverse: bool = ...,
) -> Tensor: ...
@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    *,
    return_last_state: Literal[True],
    initial_state: Tensor | None = ...,
    reverse: bool = ...,
) -> tuple[Tensor, Tensor]: ...
@overload
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = ...,
    z: Tensor | None = ...,
    delta_bias: Tensor | None = ...,
    delta_softplus: bool = ...,
    return_last_state: bool = ...,
    *,
    initial_state: Tensor | None = ...,
    reverse: bool = ...,
) -> Tensor | tuple[Tensor, Tensor]: ...
def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    initial_state: Tensor | None = None,
    reverse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The selective scan of Mamba, a drop-in for mamba_ssm's `selective_scan_fn`.

    x_l = exp(delta_l A) x_{l-1} + delta_l B_l u_l,  y_l = C_l . x_l + D u_l,  out = y * silu(z),
    with delta replaced by softplus(delta + delta_bias) on request (Gu and Dao, arXiv 2312.00752, eq. 2 and section 3.2).

    Args:
        u: (batch, dim, L), float32, float16 or bfloat16 (float64 on the CPU). Any strides, here and below.
        delta: (batch, dim, L), u's dtype or float32.
        A: (dim, N), any float dtype. Complex A, as in mamba_ssm with y = 2 Re(C . x), runs on the reference.
        B, C: (batch, N, L) or (batch, G, N, L) in u's dtype, G a divisor of dim; or constant, (dim, N), any float
            dtype. With complex A a variable B or C holds (real, imaginary) pairs: its last size is 2 L.
        D: (dim,), any float dtype.
        z: (batch, dim, L), u's dtype: the gate, applied in float32 before the one rounding of out.
        delta_bias: (dim,), any float dtype.
        delta_softplus: apply softplus (linear above 20) to delta + delta_bias.
        return_last_state: return (out, last_state).
        initial_state: (batch, dim, N), any float dtype: the state before the first step; zero when absent.
        reverse: run from L-1 to 0. initial_state enters at L-1, last_state leaves at 0.

    Returns:
        out (batch, dim, L) in u's dtype; with return_last_state also last_state (batch, dim, N) in float32 (float64 for
        float64, complex for complex A), which may be differentiated as well.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    Arithmetic and state are float32 (float64 for float64 u).

    Complexity: O(batch dim N L) time; nothing of size L N is stored, because the backward computes the states again. If few long
    sequences are scanned on the CPU, it starts from every 256th state, which the forward keeps.

    Examples:
        >>> u = delta = torch.ones(1, 1, 4)
        >>> A, B, C = torch.zeros(1, 1), torch.ones(1, 1, 4), torch.ones(1, 1, 4)
        >>> selective_scan(u, delta, A, B, C)  # A = 0: a running sum of delta B u
        tensor([[[1., 2., 3., 4.]]])
        >>> out, last_state = selective_scan(u, delta, A, B, C, return_last_state=True)
        >>> last_state
        tensor([[[4.]]])
    """
    delta_softplus = check.flag("delta_softplus", delta_softplus)
    return_last_state = check.flag("return_last_state", return_last_state)
    reverse = check.flag("reverse", reverse)
    check.main("u", u, 3, "(batch, dim, L)")
    batch, dim, length = u.shape
    check.at_least_one("u", length, "length")
    real = torch.float64 if u.dtype is torch.float64 else torch.float32
    check.beside("delta", delta, u, (u.dtype, real))
    check.shape("delta", delta, u.shape, "u's shape")
    check.a_tensor("A", A, 2, "(dim, N)")
    complex_A = A.is_complex()
    check.beside("A", A, u, (torch.complex64, torch.complex128) if complex_A else None)
    state = A.shape[1]
    check.shape("A", A, (dim, state), "(dim, N)")
    check.at_least_one("A", state, "N")
    _check_matrix("B", B, u, state, complex_A)
    _check_matrix("C", C, u, state, complex_A)
    if z is not None:
        check.beside("z", z, u, (u.dtype,))
        check.shape("z", z, u.shape, "u's shape")
    for name, vector in (("D", D), ("delta_bias", delta_bias)):
        if vector is not None:
            check.beside(name, vector, u)
            check.shape(name, vector, (dim,), "(dim,)")
    if initial_state is not None:
        check.beside("initial_state", initial_state, u, (torch.complex64, torch.complex128) if complex_A else None)
        check.shape("initial_state", initial_state, (batch, dim, state), "(batch, dim, N)")

    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    if complex_A:
        backend = "reference"
    else:
        backend, _ = backends.choose(
            "selective_scan",
            u.device.type,
            u.dtype,
            needs_grad=needs_grad(*tensors),
            length=length,
            state=state,
            constant_B=B.dim() == 2,
            constant_C=C.dim() == 2,
        )
    plain = backends.plain("selective_scan", backend)
    if plain is not None:
        arguments = (u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)
        return call_plain(plain, u.device.type, *arguments, initial_state=initial_state, reverse=reverse)
    B, C = (cast(x, real) if x.dim() == 2 else x for x in (B, C))
    tensors = (u, delta, cast(A, real), B, C, cast(D, real), z, cast(delta_bias, real), cast(initial_state, real))
    scalars = (delta_softplus, return_last_state, reverse, _keeps_checkpoints(backend, tensors))
    return call_kernel("selective_scan", backend, tensors, scalars, visible=1 + return_last_state, most=2, kept=1)


def _keeps_checkpoints(backend: str, tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether the forward keeps states for the backward, which then does not compute them once more: of long sequences in few
    rows, where they are at most 5 % of what goes in and comes out."""
    u, A = tensors[0], tensors[2]
    assert u is not None and A is not None
    batch, _, length = u.shape
    if backend != "cpu" or u.dtype is torch.float64 or batch >= 8 or length < 2 * CHECKPOINT_STEPS or not needs_grad(*tensors):
        return False
    kept = -(-length // CHECKPOINT_STEPS) * batch * A.numel() * A.element_size()
    return 20 * kept <= sum(x.numel() * x.element_size() for x in (u, *tensors) if x is not None)  # u twice: out is like it


def _check_matrix(name: str, x: Tensor, u: Tensor, state: int, complex_A: bool) -> None:
    layout = "(dim, N), (batch, N, L) or (batch, G, N, L)"
    check.a_tensor(name, x, (2, 3, 4), layout)
    batch, dim, length = u.shape
    if complex_A:
        check.beside(name, x, u, (*check.FLOATING, torch.complex64, torch.complex128))
        length = length if x.is_complex() else 2 * length
    else:
        check.beside(name, x, u, None if x.dim() == 2 else (u.dtype,))
    if x.dim() == 2:
        check.shape(name, x, (dim, state), "(dim, N)")
    elif x.dim() == 3:
        check.shape(name, x, (batch, state, length), "(batch, N, L)")
    else:
        groups = x.shape[1]
        if groups < 1 or dim % groups:
            raise ValueError(f"{name} has {groups} groups; it takes a divisor of dim = {dim}")
        check.shape(name, x, (batch, groups, state, length), "(batch, G, N, L)")
