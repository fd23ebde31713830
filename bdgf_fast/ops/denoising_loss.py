"""The loss of a denoiser per sample and modality, its target noise drawn again instead of stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _native, backends, reference
from ..reference import tables
from ..reference.denoising_loss import loss_scale
from . import _check as check
from ._library import call_kernel, call_plain, define, gradients, needs_grad, register_triton
from ._noise import (
    ADDRESS_SCALARS,
    ADDRESS_TENSORS,
    PREDICTION_TYPES,
    address,
    check_range,
    launch_address,
    length,
    supports_native,
    timesteps,
)

backends.register_plain("denoising_loss", "reference", reference.denoising_loss)

_TENSORS = f"Tensor pred, Tensor? x0, Tensor t, Tensor sqrt_abar, Tensor sqrt_rest, Tensor? hidden, {ADDRESS_TENSORS}"
_SCALARS = f"int prediction, int[] channel_groups, {ADDRESS_SCALARS}"


def _allocate_forward(pred, *arguments):
    channel_groups = arguments[10]
    real = torch.float64 if pred.dtype is torch.float64 else torch.float32
    return [pred.new_empty(pred.shape[0], len(channel_groups), dtype=real)]


define("denoising_loss", "fwd", f"{_TENSORS}, {_SCALARS}", _allocate_forward)
define(
    "denoising_loss",
    "bwd",
    f"Tensor grad_loss, {_TENSORS}, {_SCALARS}, bool[] needs",
    lambda grad_loss, *arguments: gradients(arguments[:10], arguments[-1]),
)


def _native_run(loss, grad_loss, grad_pred, grad_x0, *arguments, workspace=None) -> None:
    *tensors, prediction, channel_groups, seed, stream, extent_h, extent_w = arguments
    _native.load().denoising_loss(
        loss, grad_loss, grad_pred, grad_x0, *tensors[:6], prediction, list(channel_groups),
        *launch_address(*tensors[6:], seed, stream, extent_h, extent_w), torch.get_num_threads(), workspace,
        _native.stream_of(tensors[0]),
    )  # fmt: skip


def _native_forward(outputs, *arguments) -> None:
    _native_run(outputs[0], None, None, None, *arguments)


def _native_backward(outputs, grad_loss, *arguments) -> None:
    _native_run(None, grad_loss, outputs[0], outputs[1], *arguments[:-1])


def _cuda_forward(outputs, pred, *arguments) -> None:
    native, groups = _native.load(), arguments[10]
    pixels = pred.shape[2:].numel()
    space = pred.new_empty(native.denoising_loss_workspace(pred.shape[0], pixels, list(groups)), dtype=torch.float32)
    _native_run(outputs[0], None, None, None, pred, *arguments, workspace=space)


backends.register("denoising_loss", "cpu", forward=_native_forward, backward=_native_backward, supports=supports_native)
backends.register("denoising_loss", "cuda", forward=_cuda_forward, backward=_native_backward, supports=supports_native)
register_triton("denoising_loss")


def denoising_loss(
    pred: Tensor,
    t: int | Tensor,
    schedule: Any,
    seed: int | Tensor,
    *,
    x0: Tensor | None = None,
    prediction_type: str = "epsilon",
    channel_groups: Sequence[int],
    weights: Tensor | None = None,
    min_snr_gamma: float | None = None,
    hidden: Tensor | None = None,
    sample_ids: Tensor | None = None,
    stream: int | Tensor = 0,
    origin: Tensor | None = None,
    extent: tuple[int, int] | None = None,
) -> Tensor:
    """Mean squared error of a denoiser's output for each sample and modality, weighted and not reduced.

    The target is eps, x0, or v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans and Ho, arXiv 2202.00512); eps is the
    noise that `q_sample` added at the same address.

    Args:
        pred: (batch, C, ...), float32, float16 or bfloat16 (float64 on the CPU), any strides.
        t: int64 (batch,) on pred's device, or one int. Out of range: ValueError on the CPU, NaN for that sample
            elsewhere.
        schedule: a `Schedule`, or a tensor of abar (T,).
        seed, sample_ids, stream, origin, extent: those given to `q_sample`.
        x0: of pred's shape, its dtype or float32. Needed for "sample", "v_prediction" and `hidden`.
        prediction_type: "epsilon", "sample" or "v_prediction".
        channel_groups: channels of each modality, M sizes that sum to C.
        weights: (M,) or (batch, M), float32; 1 when absent.
        min_snr_gamma: also multiply by the min-SNR weight (Hang et al., arXiv 2303.09556): min(snr, gamma) on the error
            of x0, and what that is for the other targets.
        hidden: bool (batch, M), True where the modality was hidden from the denoiser: the target is x0 there, whatever
            the prediction type (its eps is independent of all that the denoiser saw).

    Returns:
        (batch, M) float32 (float64 for float64 pred): the mean over a modality's channels and pixels. Differentiable in
        pred, x0 and weights.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    Complexity: O(n) time for n elements; the target noise is drawn again in the backward. The forward reads pred (and x0), the
    backward reads them again and writes the gradient.

    Examples:
        >>> from bdgf_fast.ops import philox_normal
        >>> eps = philox_normal((2, 3, 4), seed=1)
        >>> loss = denoising_loss(eps + 1, torch.tensor([5, 5]), torch.linspace(1, 0.1, 10), seed=1, channel_groups=(2, 1))
        >>> loss.shape, loss.round()
        (torch.Size([2, 2]), tensor([[1., 1.],
                [1., 1.]]))
    """
    check.a_tensor("pred", pred)
    if pred.dim() < 2:
        raise ValueError(f"pred has shape {tuple(pred.shape)}; it takes (batch, C, ...)")
    check.main("pred", pred, pred.dim(), "(batch, C, ...)")
    batch, channels = pred.shape[:2]
    check.choice("prediction_type", prediction_type, PREDICTION_TYPES)
    if not isinstance(channel_groups, Sequence) or isinstance(channel_groups, str):
        raise TypeError(f"channel_groups is {type(channel_groups).__name__}; it takes a sequence of ints")
    channel_groups = tuple(check.integer("channel_groups", size) for size in channel_groups)
    if not channel_groups or min(channel_groups) < 1 or sum(channel_groups) != channels:
        raise ValueError(
            f"channel_groups is {channel_groups}; it takes positive sizes that sum to pred's {channels} channels"
        )
    if pred.numel() == 0 and batch > 0:
        raise ValueError(f"pred has shape {tuple(pred.shape)}; it takes at least one pixel")
    real = torch.float64 if pred.dtype is torch.float64 else torch.float32
    if x0 is not None:
        check.beside("x0", x0, pred, (pred.dtype, real))
        check.shape("x0", x0, pred.shape, "pred's shape")
    elif prediction_type != "epsilon" or hidden is not None:
        asked = f"prediction_type {prediction_type!r}" if prediction_type != "epsilon" else "hidden"
        raise ValueError(f"x0 is None; {asked} takes it for its target")
    modalities = len(channel_groups)
    if weights is not None:
        check.beside("weights", weights, pred)
        if tuple(weights.shape) not in ((modalities,), (batch, modalities)):
            raise ValueError(
                f"weights has shape {tuple(weights.shape)}; it takes (M,) or (batch, M) = {(batch, modalities)}"
            )
        weights = weights.to(real)
    if hidden is not None:
        check.beside("hidden", hidden, pred, (torch.bool,))
        check.shape("hidden", hidden, (batch, modalities), "(batch, M)")
    count = length(schedule)
    t = timesteps(t, pred, count)
    tensors, scalars = address(pred.shape, pred.device, seed, sample_ids, stream, origin, extent)

    backend, _ = backends.choose("denoising_loss", pred.device.type, pred.dtype, needs_grad=needs_grad(pred, x0))
    plain = backends.plain("denoising_loss", backend)
    if plain is not None:
        check_range(t, count)
        seed = scalars[0] if tensors[0] is None else tensors[0]
        stream = scalars[1] if tensors[2] is None else tensors[2]
        return call_plain(
            plain, pred.device.type, pred, t, schedule, seed, x0=x0, prediction_type=prediction_type,
            channel_groups=channel_groups, weights=weights, min_snr_gamma=min_snr_gamma, hidden=hidden,
            sample_ids=sample_ids, stream=stream, origin=origin, extent=extent,
        )  # fmt: skip
    sqrt_abar, sqrt_rest = tables.schedule_tables(schedule, pred.device)
    tensors = (pred, x0, t, sqrt_abar, sqrt_rest, hidden, *tensors)
    numbers = (PREDICTION_TYPES.index(prediction_type), channel_groups, *scalars)
    loss = call_kernel("denoising_loss", backend, tensors, numbers)
    # Weights stay outside of the kernel: on (batch, M) they cost nothing, and autograd differentiates them.
    scale = loss_scale(t, schedule, pred, prediction_type, weights, min_snr_gamma, hidden)
    return loss if scale is None else loss * scale
