"""Public operations on random shapes, layouts, types, flags and values, held against the float64 reference.

A short run of the same calls every time. BDGF_RANDOM_CALLS=20000 searches on from a random start, and prints what it finds.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from bdgf_fast import backends, ops, reference
from bdgf_fast.diffusion import Schedule

pytest.importorskip("hypothesis")  # a machine with a GPU may have torch and pytest alone
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

MORE = int(os.environ.get("BDGF_RANDOM_CALLS", "0"))
randomly = settings(
    max_examples=MORE or 40,
    derandomize=not MORE,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=bool(MORE),
)
SCHEDULE = Schedule.linear(50)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64])
SIZES = st.sampled_from([1, 2, 3, 5, 8, 17, 33])
FLAGS = st.sampled_from([True, False, None, 1, 0, np.bool_(True)])


def laid_out(draw, x: torch.Tensor) -> torch.Tensor:
    """`x` with strides of its own: transposed, with gaps, behind an offset, or the same for every sample."""
    layout = draw(st.sampled_from(["contiguous", "turned", "gaps", "offset", "expanded"]))
    if layout == "turned" and x.dim() >= 2:
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "gaps" and x.dim() >= 1:
        return torch.stack([x, torch.full_like(x, torch.nan)], -1).flatten(-2)[..., ::2]
    if layout == "offset":
        return torch.cat([torch.full((3,), torch.nan, dtype=x.dtype), x.flatten()])[3:].view(x.shape)
    if layout == "expanded" and x.dim() >= 2:
        return x[:1].expand_as(x)
    return x


class Source:
    """Tensors from one drawn seed, each with a layout."""

    def __init__(self, draw, dtype: torch.dtype) -> None:
        self.draw, self.dtype = draw, dtype
        self.generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def __call__(self, *shape: int, dtype: torch.dtype | None = None, size: float = 1.0) -> torch.Tensor:
        x = size * torch.randn(shape, generator=self.generator)
        return laid_out(self.draw, x.to(dtype or self.dtype))

    def parameter(self, *shape: int) -> torch.Tensor:
        """In the call's dtype or in float32."""
        return self(*shape, dtype=self.draw(st.sampled_from([self.dtype, torch.float32])))

    def maybe(self, x):
        return x if self.draw(st.booleans()) else None


@st.composite
def scans(draw):
    make = Source(draw, draw(DTYPES))
    groups, each = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 4, 16]))
    b, d, n, l = draw(st.sampled_from([1, 2, 3])), groups * each, draw(st.sampled_from([1, 3, 8, 16])), draw(SIZES)

    def matrix():
        shape = draw(st.sampled_from([(d, n), (b, n, l), (b, groups, n, l)]))
        return make.parameter(*shape) if len(shape) == 2 else make(*shape)

    t = {"u": make(b, d, l), "delta": make(b, d, l, size=0.5), "A": -make.parameter(d, n).abs(), "B": matrix(), "C": matrix()}
    t |= {"D": make.maybe(make.parameter(d)), "z": make.maybe(make(b, d, l)), "delta_bias": make.maybe(make.parameter(d))}
    t["initial_state"] = make.maybe(make.parameter(b, d, n))
    options = {"delta_softplus": True, "return_last_state": draw(FLAGS), "reverse": draw(FLAGS)}
    return "selective_scan", t, options


@st.composite
def plane_scans(draw):
    make = Source(draw, draw(DTYPES))
    b, d, n = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 4, 17])), draw(st.sampled_from([1, 4]))
    k = draw(st.sampled_from([1, 2, 4]))
    h, w = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 3, 9]))
    t = {"x": make(b, d, h, w), "delta": make(b, draw(st.sampled_from([1, k])), d, h * w, size=0.5)}
    t |= {"A": -make.parameter(k, d, n).abs(), "B": make(b, k, n, h * w), "C": make(b, k, n, h * w)}
    t |= {name: make.maybe(make.parameter(*draw(st.sampled_from([(d,), (k, d)])))) for name in ("D", "delta_bias")}
    return "selective_scan_2d", t, {"directions": k, "order": draw(st.sampled_from(["pixel", "scan"])), "delta_softplus": True}


@st.composite
def convolutions(draw):
    make = Source(draw, draw(DTYPES))
    b, d, l = draw(st.sampled_from([1, 2, 3])), draw(SIZES), draw(SIZES)
    t = {"x": make(b, d, l), "weight": make.parameter(d, draw(st.integers(2, 4))), "bias": make.maybe(make.parameter(d))}
    return "causal_conv1d", t, {"activation": draw(st.sampled_from([None, "silu", "swish"]))}


@st.composite
def gates(draw):
    make = Source(draw, draw(DTYPES))
    source, groups = draw(st.sampled_from(["x", "guide", "both"])), draw(st.sampled_from([1, 2, 3]))
    each, guided, hidden = draw(st.sampled_from([1, 4, 9])), draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 5]))
    b, h, w = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 4]))
    inputs = (each if source != "guide" else 0) + (guided if source != "x" else 0)
    t = {"x": make(b, groups * each, h, w), "guide": make(b, groups * guided, w, h) if source != "x" else None}
    t |= {"weight1": make.parameter(groups, hidden, inputs), "bias1": make.parameter(groups, hidden)}
    t |= {"weight2": make.parameter(groups, each, hidden), "bias2": make.parameter(groups, each)}
    return "group_channel_gate", t, {"groups": groups, "gate_source": source}


@st.composite
def channel_attentions(draw):
    make = Source(draw, draw(DTYPES))
    groups, b, length = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2])), draw(st.sampled_from([2, 5, 16, 49]))
    shape = (b, groups * draw(st.sampled_from([1, 2, 5, 17])), length)
    t = {name: make(*shape) for name in "qkv"}
    t["temperature"] = make.parameter(*draw(st.sampled_from([(), (1,), (groups,)])))
    return "group_channel_attention", t, {"groups": draw(st.sampled_from([groups, np.int64(groups)]))}


@st.composite
def attentions(draw):
    make = Source(draw, draw(DTYPES))
    b, h, rows, columns = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2])), draw(SIZES), draw(SIZES)
    depth = draw(st.sampled_from([1, 4, 8, 20]))
    t = {"query": make(b, h, rows, depth), "key": make(b, h, columns, depth), "value": make(b, h, columns, depth)}
    bias = make.maybe(make.parameter(*(draw(st.sampled_from([1, n])) for n in (b, h, rows)), columns))
    large = False
    if bias is not None and draw(st.booleans()):
        hidden = torch.rand(bias.shape, generator=make.generator) < 0.3
        value = draw(st.sampled_from([-torch.inf, torch.finfo(bias.dtype).min, -1e4]))
        if large := value == -1e4:  # float32 keeps few digits of a score beside it, so that no row may have it alone
            hidden[..., 0] = False
        bias = bias.masked_fill(hidden, value)
    mask = None if large else make.maybe(torch.rand(b, columns, generator=make.generator) < 0.7)
    t |= {"attn_bias": bias, "key_mask": mask}
    options = {"scale": draw(st.sampled_from([None, 0.3, 1, -0.5]))}
    if draw(st.booleans()):
        options |= {"dropout_p": draw(st.sampled_from([0.1, 0.9])), "seed": draw(st.integers(-(2**70), 2**70))}
    return "cross_attention", t, options


@st.composite
def noise_calls(draw):
    """q_sample, denoising_loss, ddpm_step and ddim_step, whose noise has an address of its own."""
    make = Source(draw, draw(DTYPES))
    b, c, h, w = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 3, 4])), draw(SIZES), draw(st.sampled_from([1, 4, 11]))
    t = torch.randint(50, (b,), generator=make.generator)
    options = {"t": draw(st.sampled_from([t, t.int(), int(t[0]), np.int64(t[0])])), "schedule": SCHEDULE}
    address = {"seed": draw(st.integers(-(2**70), 2**70)), "stream": draw(st.sampled_from([0, 5, 2**40]))}
    if draw(st.booleans()):
        address["sample_ids"] = torch.randint(-(2**40), 2**40, (b,), generator=make.generator)
    op = draw(st.sampled_from(["q_sample", "denoising_loss", "ddpm_step", "ddim_step"]))
    kind = draw(st.sampled_from(["epsilon", "sample", "v_prediction"]))
    if op in ("ddpm_step", "ddim_step"):
        shape = draw(st.sampled_from([(b, c, h, w), (b, h), (b,)]))
        options |= {"prediction_type": kind, "clip_sample": draw(FLAGS), "prev_t": draw(st.sampled_from([None, -1, t // 2]))}
        options |= {"eta": draw(st.sampled_from([0, 0.5, 1.0]))} if op == "ddim_step" else {"variance": "fixed_large"}
        return op, {"pred": make(*shape), "sample": make(*shape)}, options | address
    if draw(st.booleans()):
        address["origin"] = torch.randint(0, 30, (b, 2), generator=make.generator)
        address["extent"] = (h + 40, w + 40)
    if op == "q_sample":
        mask = make.maybe(torch.rand(b, c, generator=make.generator) < 0.4)
        options |= {"channel_mask": mask, "mask_mode": draw(st.sampled_from(["zero", "noise"]))}
        return op, {"x0": make(b, c, h, w)}, options | address
    sizes = [1] * c if draw(st.booleans()) else [c]
    weights = make.maybe(torch.rand(*draw(st.sampled_from([(len(sizes),), (b, len(sizes))])), generator=make.generator))
    hidden = make.maybe(torch.rand(b, len(sizes), generator=make.generator) < 0.4)
    options |= {"prediction_type": kind, "channel_groups": sizes, "min_snr_gamma": draw(st.sampled_from([None, 5, 0.3]))}
    return op, {"pred": make(b, c, h, w), "x0": make(b, c, h, w), "weights": weights}, options | address | {"hidden": hidden}


CALLS = (scans, plane_scans, convolutions, gates, channel_attentions, attentions, noise_calls)


def plainly(op, options, absent):
    """The definition in float64: for the noise operations their own way to it, which checks and casts."""
    plain = {name: int(x) if isinstance(x, np.integer) else x for name, x in options.items()}
    if "schedule" not in options:
        return lambda **t: getattr(reference, op)(**t, **absent, **plain)

    def call(**t):
        with backends.use_backend("reference"):
            return getattr(ops, op)(**t, **absent, **plain)

    return call


@pytest.mark.parametrize("kind", CALLS, ids=lambda f: f.__name__)
def test_every_call_is_the_references(kind, check_gradients):
    @randomly
    @given(kind())
    def run(case):
        op, tensors, options = case
        kernels = [name for name in backends.available(op) if name in ("cpu", "torch")]
        given_ = {name: x for name, x in tensors.items() if x is not None}
        absent = {name: None for name, x in tensors.items() if x is None}
        for backend in (None, *kernels):
            if backend == "cpu" and "schedule" in options and next(iter(given_.values())).dtype is torch.float64:
                continue  # the noise kernels compute in float32
            if backend == "torch" and ("seed" in options or {"key_mask", "attn_bias"} <= given_.keys()):
                continue
            with backends.use_backend(backend):
                check_gradients(
                    lambda **t: getattr(ops, op)(**t, **absent, **options),
                    plainly(op, options, absent),
                    given_,
                    scale=3.0,  # among thousands of calls some cancel to an unlucky few digits
                )

    run()


@pytest.mark.parametrize("kind", CALLS, ids=lambda f: f.__name__)
def test_what_is_not_finite_goes_where_the_references_goes(kind):
    """One NaN or infinity in one argument: the same outputs are finite, and they have the same values."""

    @randomly
    @given(kind(), st.data())
    def run(case, data):
        op, tensors, options = case
        absent = {name: x for name, x in tensors.items() if x is None or not x.is_floating_point()}
        floats = {name: x.clone() for name, x in tensors.items() if name not in absent and x.dtype is not torch.float64}
        if len(floats) + len(absent) < len(tensors) or absent.get("key_mask") is not None:
            return  # float64 is for gradcheck; a hidden key's contents do not matter
        name = data.draw(st.sampled_from(sorted(floats)))
        place = data.draw(st.integers(0, floats[name].numel() - 1))
        value = data.draw(st.sampled_from([torch.nan, torch.inf, -torch.inf]))
        floats[name][np.unravel_index(place, floats[name].shape)] = value
        found = []
        for backend in ("cpu", "reference"):
            with backends.use_backend(backend), torch.no_grad():
                out = getattr(ops, op)(**floats, **absent, **options)
                found.append(out if isinstance(out, tuple) else (out,))
        for ours, theirs in zip(*found, strict=True):
            finite = theirs.isfinite()
            assert torch.equal(ours.isfinite(), finite), f"{name}[{place}] = {value}"
            size = theirs[finite].abs().max().item() if finite.any() else 0.0
            rtol, atol = (1e-4, 1e-5) if ours.dtype is torch.float32 else (3e-2, 5e-2)
            torch.testing.assert_close(ours[finite], theirs[finite], rtol=2 * rtol, atol=2 * atol * max(size, 1e-30))

    run()
