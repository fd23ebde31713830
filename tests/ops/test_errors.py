"""Bad arguments: one error that names the argument, what it got and what it takes, before any kernel runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bdgf_fast import ops
from bdgf_fast.diffusion import Schedule

R = torch.randn
SCHEDULE = Schedule.linear(50)


def scan(**changes):
    b, d, L, N = 2, 4, 5, 3
    t = {"u": R(b, d, L), "delta": R(b, d, L), "A": -torch.rand(d, N), "B": R(b, N, L), "C": R(b, N, L)}
    return ops.selective_scan(**(t | changes))


def scan_2d(**changes):
    b, d, K, N = 2, 4, 4, 3
    t = {"x": R(b, d, 2, 3), "delta": R(b, K, d, 6), "A": -torch.rand(K, d, N), "B": R(b, K, N, 6), "C": R(b, K, N, 6)}
    return ops.selective_scan_2d(**(t | changes))


def conv(**changes):
    return ops.causal_conv1d(**({"x": R(2, 4, 5), "weight": R(4, 3)} | changes))


def boxes(**changes):
    return ops.box_statistics(**({"x": R(2, 3, 7, 9), "radii": [1, 3]} | changes))


def gate(**changes):
    t = {"x": R(2, 4, 3, 3), "guide": R(2, 6, 2, 2), "weight1": R(2, 7, 5), "bias1": R(2, 7), "weight2": R(2, 2, 7)}
    return ops.group_channel_gate(**(t | {"bias2": R(2, 2), "groups": 2} | changes))


def channel(**changes):
    t = {"q": R(2, 4, 5), "k": R(2, 4, 5), "v": R(2, 4, 5), "temperature": 1.0, "groups": 2}
    return ops.group_channel_attention(**(t | changes))


def attention(**changes):
    return ops.cross_attention(**({"query": R(2, 3, 4, 8), "key": R(2, 3, 5, 8), "value": R(2, 3, 5, 8)} | changes))


def normal(**changes):
    return ops.philox_normal(**({"shape": (2, 3, 4, 4), "seed": 1} | changes))


def noising(**changes):
    t = {"x0": R(2, 3, 4, 4), "t": torch.tensor([1, 2]), "schedule": SCHEDULE, "seed": 1}
    return ops.q_sample(**(t | changes))


def loss(**changes):
    t = {"pred": R(2, 3, 4, 4), "t": torch.tensor([1, 2]), "schedule": SCHEDULE, "seed": 1, "channel_groups": (1, 2)}
    return ops.denoising_loss(**(t | changes))


def ddpm(**changes):
    t = {"pred": R(2, 3), "t": torch.tensor([1, 2]), "sample": R(2, 3), "schedule": SCHEDULE, "seed": 1}
    return ops.ddpm_step(**(t | {"prediction_type": "epsilon"} | changes))


def ddim(**changes):
    t = {"pred": R(2, 3), "t": torch.tensor([1, 2]), "sample": R(2, 3), "schedule": SCHEDULE}
    return ops.ddim_step(**(t | {"prediction_type": "epsilon"} | changes))


def forest(**changes):
    """One tree of three nodes."""
    child = torch.tensor([[1, 2], [1, 1], [2, 2]], dtype=torch.int32)
    t = {"x": R(4, 5), "feature": torch.zeros(3).int(), "threshold": R(3), "child": child, "share": R(3, 2)}
    return ops.decision_forest(**(t | {"root": torch.zeros(1).int()} | changes))


V, T = ValueError, TypeError
I64 = torch.zeros(2, dtype=torch.int64)
BAD = [
    (scan, {"u": R(4, 5)}, V, r"u has shape \(4, 5\); it takes \(batch, dim, L\)"),
    (scan, {"u": R(2, 4, 5).long()}, T, "u is torch.int64; it takes float32"),
    (scan, {"u": [1.0]}, T, "u is list; it takes a tensor"),
    (scan, {"u": R(2, 4, 0), "delta": R(2, 4, 0)}, V, "u has length 0; it takes at least 1"),
    (scan, {"delta": R(2, 4, 6)}, V, r"delta has shape \(2, 4, 6\); it takes u's shape = \(2, 4, 5\)"),
    (scan, {"delta": R(2, 4, 5).half()}, T, "delta is torch.float16; it takes torch.float32"),
    (scan, {"u": R(2, 4, 5).double()}, T, "delta is torch.float32; it takes torch.float64$"),
    (scan, {"A": R(3, 3)}, V, r"A has shape \(3, 3\); it takes \(dim, N\) = \(4, 3\)"),
    (scan, {"A": R(4, 0)}, V, "A has N 0"),
    (scan, {"A": R(4)}, V, r"A has shape \(4,\); it takes \(dim, N\)"),
    (scan, {"B": R(2, 3, 4)}, V, r"B has shape \(2, 3, 4\); it takes \(batch, N, L\) = \(2, 3, 5\)"),
    (scan, {"B": R(2, 3, 3, 5)}, V, "B has 3 groups; it takes a divisor of dim = 4"),
    (scan, {"C": R(3, 3)}, V, r"C has shape \(3, 3\); it takes \(dim, N\) = \(4, 3\)"),
    (scan, {"C": R(5)}, V, r"C has shape \(5,\); it takes \(dim, N\), \(batch, N, L\) or"),
    (scan, {"C": R(2, 3, 5).double()}, T, "C is torch.float64; it takes torch.float32"),
    (scan, {"D": R(3)}, V, r"D has shape \(3,\); it takes \(dim,\) = \(4,\)"),
    (scan, {"D": 1.0}, T, "D is float; it takes a tensor"),
    (scan, {"delta_bias": I64}, T, "delta_bias is torch.int64"),
    (scan, {"z": R(2, 4, 1)}, V, "z has shape"),
    (scan, {"initial_state": R(2, 4)}, V, r"initial_state has shape \(2, 4\); it takes \(batch, dim, N\)"),
    (scan, {"D": torch.empty(4, device="meta")}, V, "D is on meta; it takes a tensor on cpu"),
    (scan, {"return_last_state": "no"}, T, "return_last_state is str; it takes True or False"),
    (scan, {"delta_softplus": torch.ones(2)}, T, "delta_softplus is Tensor; it takes True or False"),
    (scan, {"reverse": [True]}, T, "reverse is list; it takes True or False"),
    (scan_2d, {"delta_softplus": "yes"}, T, "delta_softplus is str; it takes True or False"),
    (scan_2d, {"directions": "4"}, T, "directions is '4'; it takes an int"),
    (scan_2d, {"x": R(2, 4, 6)}, V, r"x has shape .* it takes \(batch, dim, H, W\)"),
    (scan_2d, {"x": R(2, 4, 0, 3)}, V, "x has pixels 0"),
    (scan_2d, {"directions": 3}, V, "directions is 3; it takes one of 1, 2, 4"),
    (scan_2d, {"order": "rows"}, V, "order is 'rows'; it takes one of 'pixel', 'scan'"),
    (scan_2d, {"delta": R(2, 2, 4, 6)}, V, r"delta has shape .* \(batch, K or 1, dim, H\*W\) = \(2, 4, 4, 6\)"),
    (scan_2d, {"A": R(2, 4, 3)}, V, r"A has shape .* \(K, dim, N\) = \(4, 4, 3\)"),
    (scan_2d, {"B": R(2, 4, 3, 5)}, V, "B has shape"),
    (scan_2d, {"D": R(2, 4)}, V, r"D has shape .* it takes \(dim,\) or \(K, dim\)"),
    (scan_2d, {"delta_bias": R(3)}, V, "delta_bias has shape"),
    (conv, {"x": R(4, 5)}, V, "x has shape"),
    (conv, {"weight": R(4, 5)}, V, r"weight has shape \(4, 5\); it takes \(dim, width\) = \(4, 2 to 4\)"),
    (conv, {"weight": R(3, 3)}, V, "weight has shape"),
    (conv, {"bias": R(3)}, V, "bias has shape"),
    (conv, {"activation": "relu"}, V, "activation is 'relu'; it takes one of None, 'silu', 'swish'"),
    (gate, {"x": R(2, 4, 3)}, V, "x has shape"),
    (gate, {"groups": 3}, V, "groups is 3; it takes a divisor of the 4 channels of x"),
    (gate, {"groups": 2.0}, T, "groups is 2.0; it takes an int"),
    (gate, {"groups": 4}, V, "groups is 4; it takes a divisor of the 6 channels of guide"),
    (gate, {"guide": None}, T, "guide is NoneType; it takes a tensor"),
    (gate, {"guide": R(3, 6, 2, 2)}, V, "guide has batch 3; it takes x's batch, 2"),
    (gate, {"guide": R(2, 6, 2, 2).half()}, T, "guide is torch.float16"),
    (gate, {"gate_source": "none"}, V, "gate_source is 'none'"),
    (gate, {"weight1": R(2, 7, 4)}, V, r"weight1 has shape .* = \(2, 7, 5\)"),
    (gate, {"bias1": R(7)}, V, "bias1 has shape"),
    (gate, {"weight2": R(2, 3, 7)}, V, "weight2 has shape"),
    (gate, {"bias2": R(4)}, V, "bias2 has shape"),
    (channel, {"q": R(2, 4)}, V, "q has shape"),
    (channel, {"k": R(2, 4, 6)}, V, "k has shape"),
    (channel, {"v": R(2, 2, 5)}, V, "v has shape"),
    (channel, {"groups": 0}, V, "groups is 0"),
    (channel, {"temperature": R(3)}, V, r"temperature has shape \(3,\); it takes \(\) or \(groups,\) = \(2,\)"),
    (channel, {"temperature": "1"}, T, "temperature is str; it takes a number or a tensor"),
    (attention, {"query": R(2, 3, 4)}, V, "query has shape"),
    (attention, {"key": R(2, 3, 5, 7)}, V, r"key has shape .* = \(2, 3, 5, 8\)"),
    (attention, {"value": R(2, 3, 4, 8)}, V, "value has shape"),
    (attention, {"key": R(2, 3, 0, 8), "value": R(2, 3, 0, 8)}, V, "key has length 0"),
    (attention, {"key_mask": torch.ones(2, 5)}, T, "key_mask is torch.float32; it takes torch.bool"),
    (attention, {"key_mask": torch.ones(2, 4).bool()}, V, r"key_mask has shape .* it takes \(batch, Lk\) = \(2, 5\)"),
    (attention, {"attn_bias": R(2, 2, 4, 5)}, V, r"attn_bias has shape .* of \(2, 3, 4, 5\)"),
    (attention, {"attn_bias": R(1, 1, 1, 1)}, V, "attn_bias has shape"),
    (attention, {"dropout_p": 1.0, "seed": 1}, V, r"dropout_p is 1.0; it takes a probability in \[0, 1\)"),
    (attention, {"dropout_p": 0.1}, V, "seed is None; dropout_p above 0 takes"),
    (attention, {"dropout_p": 0.1, "seed": 1.5}, T, "seed is float"),
    (forest, {"x": R(5)}, V, r"x has shape \(5,\); it takes \(n, S\)"),
    (forest, {"x": R(4, 5).double()}, T, "x is torch.float64; it takes torch.float32"),
    (forest, {"x": R(4, 0)}, V, "x has features 0; it takes at least 1"),
    (forest, {"feature": torch.zeros(3).long()}, T, "feature is torch.int64; it takes torch.int32"),
    (forest, {"feature": torch.full((3,), 5).int()}, V, "feature has 5; it takes 0 to 4"),
    (forest, {"threshold": R(2)}, V, r"threshold has shape \(2,\); it takes \(nodes,\) = \(3,\)"),
    (forest, {"child": torch.zeros(3).int()}, V, r"child has shape \(3,\); it takes \(nodes, 2\) = \(3, 2\)"),
    (forest, {"child": torch.zeros(3, 2).int()}, V, r"child of node 1 is \(0, 0\); it takes the node itself twice"),
    (forest, {"share": R(2, 2)}, V, r"share has shape \(2, 2\); it takes \(nodes, K\) = \(3, 2\)"),
    (forest, {"share": R(3, 2).half()}, T, "share is torch.float16; it takes torch.float32"),
    (forest, {"root": torch.zeros(0).int()}, V, "root has trees 0; it takes at least 1"),
    (forest, {"root": torch.tensor([3]).int()}, V, "root has 3; it takes 0 to 2"),
    (forest, {"x": R(4, 5).requires_grad_()}, V, "x requires a gradient, .* detach it"),
    (attention, {"dropout_p": "0.1"}, T, "dropout_p is str; it takes a number"),
    (attention, {"scale": "0.1"}, T, "scale is str; it takes a number"),
    (attention, {"scale": R(2)}, T, "scale is Tensor; it takes a number"),
    (normal, {"shape": ()}, V, r"shape is \(\)"),
    (normal, {"shape": 3}, T, r"shape is int; it takes \(batch, ...\)"),
    (normal, {"shape": (2, -1)}, V, r"shape is \(2, -1\)"),
    (normal, {"shape": (2, 3.0)}, T, "shape is 3.0; it takes an int"),
    (normal, {"seed": None}, T, "seed is NoneType; it takes an int or a 0-d int64 tensor"),
    (normal, {"seed": I64}, T, r"seed is torch.int64 of shape \(2,\)"),
    (normal, {"stream": torch.tensor(1.0)}, T, "stream is torch.float32"),
    (normal, {"dtype": torch.int32}, V, "dtype is torch.int32"),
    (normal, {"sample_ids": torch.arange(3)}, V, r"sample_ids has shape \(3,\); it takes \(batch,\) = \(2,\)"),
    (normal, {"sample_ids": torch.arange(2.0)}, T, "sample_ids is torch.float32; it takes torch.int64"),
    (normal, {"origin": torch.zeros(2, 2).long()}, V, "extent is None; with origin it takes"),
    (normal, {"origin": I64, "extent": (9, 9)}, V, r"origin has shape \(2,\); it takes \(batch, 2\)"),
    (normal, {"origin": torch.zeros(2, 2).long(), "extent": (9, 3)}, V, r"extent is \(9, 3\); .* tile's \(4, 4\)"),
    (normal, {"origin": torch.zeros(2, 2).long(), "extent": (9.5, 9)}, T, "extent is 9.5; it takes an int"),
    (normal, {"extent": (9, 9)}, V, "extent is given without origin"),
    (normal, {"shape": (2, 3), "origin": torch.zeros(2, 2).long(), "extent": (9, 9)}, V, "origin is given for 2 dim"),
    (noising, {"x0": R(2)}, V, r"x0 has shape \(2,\); it takes \(batch, C, ...\)"),
    (noising, {"t": torch.tensor([1, 50])}, V, "t has 50; it takes 0 to 49"),
    (noising, {"t": torch.tensor([-1, 3])}, V, "t has -1; it takes 0 to 49"),
    (noising, {"t": 50}, V, "t is 50; it takes 0 to 49"),
    (noising, {"t": 1.0}, T, "t is float"),
    (noising, {"t": torch.tensor([1.0, 2.0])}, T, "t is torch.float32; it takes torch.int64"),
    (noising, {"t": torch.tensor([1, 2, 3])}, V, r"t has shape \(3,\); it takes \(batch,\) = \(2,\)"),
    (noising, {"schedule": 1000}, T, "schedule is int; it takes a Schedule or a tensor of abar"),
    (noising, {"schedule": R(2, 2)}, V, r"schedule has torch.float32 abar of shape \(2, 2\)"),
    (noising, {"channel_mask": torch.ones(2, 4).bool()}, V, "channel_mask has shape"),
    (noising, {"channel_mask": torch.ones(2, 3)}, T, "channel_mask is torch.float32; it takes torch.bool"),
    (noising, {"mask_mode": "one"}, V, "mask_mode is 'one'"),
    (loss, {"channel_groups": 3}, T, "channel_groups is int; it takes a sequence of ints"),
    (loss, {"channel_groups": (1.5, 1.5)}, T, "channel_groups is 1.5; it takes an int"),
    (loss, {"channel_groups": (1, 1)}, V, r"channel_groups is \(1, 1\); it takes .* 3 channels"),
    (loss, {"channel_groups": (0, 3)}, V, "channel_groups is"),
    (loss, {"prediction_type": "x0"}, V, "prediction_type is 'x0'; it takes one of 'epsilon', 'sample', 'v_"),
    (loss, {"prediction_type": "sample"}, V, "x0 is None; prediction_type 'sample' takes it"),
    (loss, {"hidden": torch.ones(2, 2).bool()}, V, "x0 is None; hidden takes it"),
    (loss, {"x0": R(2, 3, 4, 5)}, V, "x0 has shape"),
    (loss, {"x0": R(2, 3, 4, 4), "hidden": torch.ones(2, 3).bool()}, V, r"hidden has shape .* \(batch, M\) = \(2, 2\)"),
    (loss, {"weights": R(3)}, V, r"weights has shape \(3,\); it takes \(M,\) or \(batch, M\)"),
    (loss, {"t": torch.tensor([1, 99])}, V, "t has 99"),
    (ddpm, {"pred": R(2, 4)}, V, "pred has shape"),
    (boxes, {"x": R(3, 7, 9)}, V, r"x has shape \(3, 7, 9\); it takes \(batch, C, H, W\)"),
    (boxes, {"x": R(2, 3, 7, 9).long()}, T, "x is torch.int64"),
    (boxes, {"radii": 3}, T, "radii is 3; it takes a sequence of ints"),
    (boxes, {"radii": [1.0]}, T, r"radii is \[1.0\]; it takes a sequence of ints"),
    (boxes, {"radii": [2, -1]}, V, r"radii is \[2, -1\]; it takes 0 or more each"),
    (boxes, {"radii": [4]}, V, "x is 7 x 9 pixels; a box of radius 4 takes 9 x 9"),
    (ddpm, {"clip_sample": "no"}, T, "clip_sample is str; it takes True or False"),
    (ddpm, {"prediction_type": "noise"}, V, "prediction_type is 'noise'"),
    (ddpm, {"variance": "learned"}, V, "variance is 'learned'; it takes one of 'fixed_small', 'fixed_large'"),
    (ddpm, {"noise": R(2, 3)}, V, "noise and seed are both given"),
    (ddpm, {"seed": None, "noise": R(2, 3).requires_grad_()}, V, "noise requires a gradient; .* detach it"),
    (ddpm, {"t": torch.tensor([1, 77])}, V, "t has 77"),
    (ddpm, {"prev_t": torch.tensor([1, 77])}, V, "prev_t has 77"),
    (ddpm, {"prev_t": 1.5}, T, "prev_t is float"),
    (ddim, {"eta": -0.1}, V, "eta is -0.1"),
    (ddim, {"eta": "0"}, T, "eta is str; it takes a number"),
    (ddim, {"eta": 0.5}, V, "noise and seed are both None"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "changes", "kind", "message"), BAD, ids=lambda v: getattr(v, "__name__", None))
def test_bad_arguments(call, changes, kind, message):
    call()  # right without the change
    with pytest.raises(kind, match=message):
        call(**changes)


FALSE = [None, 0, np.bool_(False), torch.tensor(False)]
TRUE = [1, np.bool_(True), torch.tensor(True), 1.0]


@pytest.mark.parametrize(("value", "means"), [*((v, False) for v in FALSE), *((v, True) for v in TRUE)], ids=repr)
def test_a_flag_is_a_truth_value(value, means):
    torch.manual_seed(0)
    u, delta, A, B = R(2, 4, 5), R(2, 4, 5), -torch.rand(4, 3), R(2, 3, 5)
    for name in ("delta_softplus", "return_last_state", "reverse"):
        found, expected = (ops.selective_scan(u, delta, A, B, B, **{name: v}) for v in (value, means))
        for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (found, expected)), strict=True):
            assert torch.equal(a, b)
    plane = {"x": R(2, 4, 2, 3), "delta": R(2, 4, 4, 6), "A": -torch.rand(4, 4, 3), "B": R(2, 4, 3, 6), "C": R(2, 4, 3, 6)}
    step = {"pred": 9.0 * R(2, 3), "sample": R(2, 3)}
    for call, given, name in ((scan_2d, plane, "delta_softplus"), (ddpm, step, "clip_sample")):
        assert torch.equal(call(**given, **{name: value}), call(**given, **{name: means}))


def test_numpys_numbers_are_numbers():
    torch.manual_seed(0)
    i, x = np.int64, R(2, 4, 3, 3)
    q = R(2, 4, 5)
    attended = [ops.group_channel_attention(q, q, q, tau, groups=n) for tau, n in ((np.float32(2.0), i(2)), (2.0, 2))]
    assert torch.equal(*attended)
    assert torch.equal(ops.q_sample(x, i(3), SCHEDULE, i(7), stream=i(2)), ops.q_sample(x, 3, SCHEDULE, 7, stream=2))
    kept = {"seed": 1, "t": 3, "pred": x, "schedule": SCHEDULE}
    assert torch.equal(ops.denoising_loss(**kept, channel_groups=[i(1), i(3)]), ops.denoising_loss(**kept, channel_groups=(1, 3)))
    query = R(1, 2, 3, 4)
    given = {"scale": np.float64(0.3), "dropout_p": np.float32(0.5), "seed": i(4)}
    plain = {"scale": 0.3, "dropout_p": 0.5, "seed": 4}
    assert torch.equal(ops.cross_attention(query, query, query, **given), ops.cross_attention(query, query, query, **plain))
    assert torch.equal(ops.philox_normal(np.array([2, 3]).tolist(), i(5)), ops.philox_normal((i(2), i(3)), 5))


@pytest.mark.parametrize("value", [torch.zeros(2, 2), 3, torch.zeros(0)])
def test_a_schedule_checks_its_table(value):
    with pytest.raises(ValueError, match="alphas_cumprod is"):
        Schedule(value)


def test_a_schedule_lists_its_names():
    with pytest.raises(ValueError, match="schedule 'sigmoid' is unknown; there are linear, scaled_linear, cosine"):
        Schedule.from_name("sigmoid")
    with pytest.raises(ValueError, match="steps is 0; a schedule of 50 takes 1 to 50"):
        SCHEDULE.sampling_timesteps(0)
