"""Stand-in kernels: each operation's reference behind the launcher interface, so that the layer in front of the kernels
(library operators, autograd, compile, autocast) is tested whatever kernels exist."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bdgf_fast import backends, reference
from bdgf_fast.ops import _noise, diffusion_step
from bdgf_fast.ops.q_sample import backward as q_sample_backward
from bdgf_fast.reference.denoising_loss import group_errors


class Abar:
    """The tables that a library operator receives, as a schedule."""

    def __init__(self, sqrt_abar, sqrt_rest):
        self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod = sqrt_abar, sqrt_rest

    def to(self, device):
        return self


def _address(seed_at, ids, stream_at, origin, seed, stream, height, width):
    return {
        "seed": seed if seed_at is None else seed_at,
        "sample_ids": ids,
        "stream": stream if stream_at is None else stream_at,
        "origin": origin,
        "extent": None if origin is None else (height, width),
    }


def _scan(u, delta, A, B, C, D, z, bias, initial, softplus, last, reverse, _):
    return reference.selective_scan(u, delta, A, B, C, D, z, bias, softplus, last, initial_state=initial, reverse=reverse)


def _scan_2d(x, delta, A, B, C, D, bias, softplus, directions, pixel):
    order = "pixel" if pixel else "scan"
    return reference.selective_scan_2d(
        x, delta, A, B, C, D, delta_bias=bias, delta_softplus=softplus, directions=directions, order=order
    )


def _conv(x, weight, bias, silu):
    return reference.causal_conv1d(x, weight, bias, "silu" if silu else None)


def _boxes(x, radii):
    return reference.box_statistics(x, radii)


def _gate(x, guide, w1, b1, w2, b2, groups, use_x, use_guide):
    source = {(True, True): "both", (True, False): "x", (False, True): "guide"}[use_x, use_guide]
    return reference.group_channel_gate(x, guide, w1, b1, w2, b2, groups=groups, gate_source=source)


def _channel_attention(q, k, v, temperature, groups):
    return reference.group_channel_attention(q, k, v, temperature, groups=groups)


def _attention(q, k, v, mask, bias, seed_at, scale, p, seed):
    seed = seed if seed_at is None else seed_at
    return reference.cross_attention(q, k, v, key_mask=mask, attn_bias=bias, scale=scale, dropout_p=p, seed=seed)


def _q_sample(x0, t, sqrt_abar, sqrt_rest, mask, *rest):
    _noise.check_range(t, len(sqrt_abar))
    *tensors, fill, seed, stream, height, width = rest
    address = _address(*tensors, seed, stream, height, width)
    mode = "noise" if fill else "zero"
    return reference.q_sample(x0, t, Abar(sqrt_abar, sqrt_rest), **address, channel_mask=mask, mask_mode=mode)


def _loss(pred, x0, t, sqrt_abar, sqrt_rest, hidden, *rest):
    _noise.check_range(t, len(sqrt_abar))
    *tensors, prediction, groups, seed, stream, height, width = rest
    kind = _noise.PREDICTION_TYPES[prediction]
    address = _address(*tensors, seed, stream, height, width)
    return group_errors(
        pred,
        t,
        Abar(sqrt_abar, sqrt_rest),
        x0=x0,
        prediction_type=kind,
        channel_groups=groups,
        hidden=hidden,
        **address,
    )


def _step(pred, sample, coefficients, noise, *rest):
    *tensors, clip, draw, seed, stream, _, _ = rest
    address = _address(*tensors, seed, stream, 0, 0)
    keys = ("seed", "sample_ids", "stream")
    return diffusion_step._plain(pred, sample, coefficients, noise, clip, {k: address[k] for k in keys} if draw else None)


# operation -> (function of the fwd operator's arguments, gradients it receives, tensors, tensors kept for the backward)
MIRRORS = {
    "selective_scan": (_scan, 2, 9, 1),
    "selective_scan_2d": (_scan_2d, 1, 7, 0),
    "box_statistics": (_boxes, 1, 1, 0),
    "causal_conv1d": (_conv, 1, 3, 0),
    "group_channel_gate": (_gate, 1, 6, 2),
    "group_channel_attention": (_channel_attention, 1, 4, 0),
    "cross_attention": (_attention, 1, 6, 1),
    "q_sample": (_q_sample, 1, 9, 0),
    "denoising_loss": (_loss, 1, 10, 0),
    "diffusion_step": (_step, 1, 8, 0),
}


def _in_a_clean_thread(function, *arguments):
    """Operators run below autograd and, maybe, under autocast; plain torch code wants neither."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def _launchers(op):
    function, grads, count, kept = MIRRORS[op]

    def forward(outputs, *arguments):
        with torch.no_grad():
            found = _in_a_clean_thread(function, *arguments)
            found = found if isinstance(found, tuple) else (found,)
            for out, value in zip(outputs, found, strict=False):
                out.copy_(value)
            for vector in outputs[len(found) :]:
                vector.zero_()

    def differentiate(needed, given, tensors, scalars):
        leaves = [x.detach().requires_grad_() if need else x for x, need in zip(tensors, needed, strict=True)]
        found = function(*leaves, *scalars)
        found = found if isinstance(found, tuple) else (found,)
        pairs = [(f, g) for f, g in zip(found, given, strict=False) if g is not None and f.requires_grad]
        leaves = [x for x, need in zip(leaves, needed, strict=True) if need]
        return torch.autograd.grad([f for f, _ in pairs], leaves, [g for _, g in pairs])

    def backward(outputs, *arguments):
        given, tensors = arguments[:grads], arguments[grads : grads + count]
        scalars = arguments[grads + count + kept : -1]
        results = _in_a_clean_thread(differentiate, [o is not None for o in outputs], given, tensors, scalars)
        for out, value in zip([o for o in outputs if o is not None], results, strict=True):
            out.copy_(value)

    return forward, q_sample_backward if op == "q_sample" else backward


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch):
    """Every operation has a stand-in as its `cpu` kernel."""
    registry = {op: dict(kernels) for op, kernels in backends._registry.items()}
    monkeypatch.setattr(backends, "_registry", registry)
    monkeypatch.setitem(backends._missing, "cpu", None)
    for op in MIRRORS:
        forward, backward = _launchers(op)
        backends.register(op, "cpu", forward=forward, backward=backward)

    def philox_normal(outputs, *arguments):
        out = outputs[0]
        address = _address(*arguments)
        out.copy_(reference.philox_normal(out.shape, dtype=out.dtype, device=out.device, **address))

    backends.register("philox_normal", "cpu", forward=philox_normal)
