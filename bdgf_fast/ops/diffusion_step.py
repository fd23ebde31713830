"""Reverse steps of a diffusion model: DDPM and DDIM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _native, backends
from ..reference import diffusion_step as plain_step
from ..reference.philox import philox_normal
from . import _check as check
from ._library import call_kernel, call_plain, define, gradients, needs_grad, register_triton
from ._noise import (
    ADDRESS_SCALARS,
    ADDRESS_TENSORS,
    PREDICTION_TYPES,
    address,
    check_range,
    constant,
    launch_address,
    length,
    supports_native,
    timesteps,
)

# `coefficients` is (batch, 6) float32, the columns of reference.diffusion_step.StepCoefficients.
_TENSORS = f"Tensor pred, Tensor sample, Tensor coefficients, Tensor? noise, {ADDRESS_TENSORS}"
_SCALARS = f"bool clip_sample, bool draw_noise, {ADDRESS_SCALARS}"

define("diffusion_step", "fwd", f"{_TENSORS}, {_SCALARS}", lambda pred, sample, *_: [torch.empty_like(sample)])
define(
    "diffusion_step",
    "bwd",
    f"Tensor grad_out, {_TENSORS}, {_SCALARS}, bool[] needs",
    lambda grad_out, *arguments: gradients(arguments[:8], arguments[-1]),
)


def _plain(pred, sample, coefficients, noise, clip_sample, draw):
    if draw is not None:
        noise = philox_normal(sample.shape, purpose="sampler", dtype=torch.float32, device=sample.device, **draw)
    columns = plain_step.StepCoefficients(*coefficients.unbind(1))
    return plain_step.apply_step(pred, sample, columns, clip_sample, noise)


backends.register_plain("diffusion_step", "reference", _plain)


def _native_run(out, grad_out, grad_pred, grad_sample, pred, sample, coefficients, noise, *rest) -> None:
    *tensors, clip_sample, draw_noise, seed, stream, extent_h, extent_w = rest
    seed, stream, sample_ids, *_ = launch_address(*tensors, seed, stream, extent_h, extent_w)
    _native.load().diffusion_step(
        out, grad_out, grad_pred, grad_sample, pred, sample, coefficients.contiguous(), noise, clip_sample, draw_noise,
        seed, stream, sample_ids, torch.get_num_threads(), _native.stream_of(sample),
    )  # fmt: skip


def _native_forward(outputs, *arguments) -> None:
    _native_run(outputs[0], None, None, None, *arguments)


def _native_backward(outputs, grad_out, *arguments) -> None:
    _native_run(None, grad_out, outputs[0], outputs[1], *arguments[:-1])


for _backend in ("cpu", "cuda"):
    backends.register("diffusion_step", _backend, forward=_native_forward, backward=_native_backward, supports=supports_native)
register_triton("diffusion_step")


def _step(
    kind, pred, t, sample, schedule, prev_t, prediction_type, clip_sample, option, noise, seed, sample_ids, stream
):
    clip_sample = check.flag("clip_sample", clip_sample)
    check.a_tensor("sample", sample)
    if sample.dim() < 1:
        raise ValueError("sample has shape (); it takes (batch, ...)")
    check.main("sample", sample, sample.dim(), "(batch, ...)")
    check.beside("pred", pred, sample)
    check.shape("pred", pred, sample.shape, "sample's shape")
    check.choice("prediction_type", prediction_type, PREDICTION_TYPES)
    if noise is not None:
        check.beside("noise", noise, sample)
        check.shape("noise", noise, sample.shape, "sample's shape")
        constant("noise", noise)
        if seed is not None:
            raise ValueError("noise and seed are both given; give one")
    count = length(schedule)
    t = timesteps(t, sample, count)
    check_range(t, count)
    if prev_t is not None:
        prev_t = timesteps(prev_t, sample, count, "prev_t")
        check_range(prev_t.clamp(min=0), count, "prev_t")  # below 0 is the end
    draw = seed is not None
    tensors, scalars = address(sample.shape, sample.device, seed if draw else 0, sample_ids, stream)
    work_out = plain_step.ddpm_coefficients if kind == "ddpm" else plain_step.ddim_coefficients
    coefficients = torch.stack(work_out(t, prev_t, schedule, sample, prediction_type, option), dim=1)

    pred = pred.to(sample.dtype)
    facts = {"needs_grad": needs_grad(pred, sample)}
    backend, _ = backends.choose("diffusion_step", sample.device.type, sample.dtype, **facts)
    plain = backends.plain("diffusion_step", backend)
    if plain is not None:
        chosen = None
        if draw:
            seed = scalars[0] if tensors[0] is None else tensors[0]
            stream = scalars[1] if tensors[2] is None else tensors[2]
            chosen = {"seed": seed, "sample_ids": sample_ids, "stream": stream}
        return call_plain(plain, sample.device.type, pred, sample, coefficients, noise, clip_sample, chosen)
    if noise is not None:
        noise = noise.to(sample.dtype)
    return call_kernel(
        "diffusion_step", backend, (pred, sample, coefficients, noise, *tensors), (clip_sample, draw, *scalars)
    )


def ddpm_step(
    pred: Tensor,
    t: int | Tensor,
    sample: Tensor,
    schedule: Any,
    *,
    prev_t: int | Tensor | None = None,
    prediction_type: str,
    clip_sample: bool = False,
    variance: str = "fixed_small",
    noise: Tensor | None = None,
    seed: int | Tensor | None = None,
    sample_ids: Tensor | None = None,
    stream: int | Tensor = 0,
) -> Tensor:
    """One reverse step of DDPM, x_t to x_{prev_t} (Ho et al., arXiv 2006.11239, eq. 6 and 7; diffusers' DDPMScheduler).

    Args:
        pred: (batch, ...), the denoiser's output at t.
        t: int64 (batch,) on the device, or one int. Out of range: ValueError on the CPU, NaN for that sample elsewhere.
        sample: x_t, the noisy sample at step t, of pred's shape; float32, float16 or bfloat16 (float64 on the CPU), any strides.
        schedule: a `Schedule`, or a tensor of abar (T,). The coefficients are worked out in float64.
        prev_t: as t; t - 1 when None; below 0 is the end, where abar is 1.
        prediction_type: "epsilon", "sample" or "v_prediction".
        clip_sample: clamp the predicted x0 to [-1, 1].
        variance: "fixed_small", the posterior's, or "fixed_large", beta; none is added at t = 0.
        noise: standard normals of sample's shape, a constant; or
        seed, sample_ids, stream: the address at which they are drawn, as for `philox_normal` but apart from other noise. A
            sampler passes another stream (or seed) in each step. With neither noise nor seed the step is the mean.

    Returns:
        x_{prev_t}, of sample's shape and dtype. Differentiable in pred and sample.

    Raises:
        ValueError, TypeError: the shape, dtype, device or value of an argument is not accepted; the message names the argument.
        RuntimeError: a kernel is asked for a second derivative, a torch.func transform or forward-mode AD, which only the reference
            has.

    Complexity: O(n) time for n elements; two reads and one write.

    Examples:
        >>> abar = torch.tensor([0.9, 0.5])
        >>> x0, eps = torch.full((1, 2), 2.0), torch.tensor([[1.0, -1.0]])
        >>> ddpm_step(eps, 0, abar[0].sqrt() * x0 + (1 - abar[0]).sqrt() * eps, abar, prediction_type="epsilon")  # from t = 0: x0
        tensor([[2.0000, 2.0000]])
    """
    check.choice("variance", variance, ("fixed_small", "fixed_large"))
    return _step(
        "ddpm",
        pred,
        t,
        sample,
        schedule,
        prev_t,
        prediction_type,
        clip_sample,
        variance,
        noise,
        seed,
        sample_ids,
        stream,
    )


def ddim_step(
    pred: Tensor,
    t: int | Tensor,
    sample: Tensor,
    schedule: Any,
    *,
    prev_t: int | Tensor | None = None,
    prediction_type: str,
    clip_sample: bool = False,
    eta: float = 0.0,
    noise: Tensor | None = None,
    seed: int | Tensor | None = None,
    sample_ids: Tensor | None = None,
    stream: int | Tensor = 0,
) -> Tensor:
    """One step of DDIM (Song et al., arXiv 2010.02502, eq. 12; diffusers' DDIMScheduler with final abar 1).

    Arguments, result, errors and complexity as for `ddpm_step`, and

    Args:
        eta: share of the posterior's standard deviation that is drawn anew; 0 is deterministic and needs no noise. With
            eta above 0 either noise or seed must be given.

    Examples:
        >>> abar = torch.tensor([0.9, 0.5])
        >>> x0, eps = torch.full((1, 2), 2.0), torch.tensor([[1.0, -1.0]])
        >>> x1 = abar[1].sqrt() * x0 + (1 - abar[1]).sqrt() * eps
        >>> x = ddim_step(eps, 1, x1, abar, prediction_type="epsilon")
        >>> torch.allclose(x, abar[0].sqrt() * x0 + (1 - abar[0]).sqrt() * eps)
        True
    """
    eta = check.real("eta", eta)
    if not eta >= 0.0:
        raise ValueError(f"eta is {eta}; it takes a number of at least 0")
    if eta == 0.0:
        noise = seed = None
    elif noise is None and seed is None:
        raise ValueError("noise and seed are both None; eta above 0 takes one of them")
    return _step(
        "ddim", pred, t, sample, schedule, prev_t, prediction_type, clip_sample, eta, noise, seed, sample_ids, stream
    )
