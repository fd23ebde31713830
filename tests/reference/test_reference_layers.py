"""The reference convolution, gate and attentions against loops and torch's own modules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bdgf_fast import reference
from bdgf_fast.reference.philox import dropout_threshold


@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("width", [2, 3, 4])
def test_conv_is_the_sum_over_the_past(width, length):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(2, 3, length)), rng.normal(size=(3, width)), rng.normal(size=3)
    expected = np.zeros_like(x)
    for l in range(length):
        for w in range(width):
            if l - width + 1 + w >= 0:
                expected[:, :, l] += weight[:, w] * x[:, :, l - width + 1 + w]
    expected += bias[:, None]
    t = [torch.tensor(a) for a in (x, weight, bias)]
    np.testing.assert_allclose(reference.causal_conv1d(*t).numpy(), expected, rtol=1e-12, atol=1e-12)
    silu = expected / (1.0 + np.exp(-expected))
    np.testing.assert_allclose(reference.causal_conv1d(*t, "silu").numpy(), silu, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("source", ["x", "guide", "both"])
def test_gate_is_one_small_network_a_group(source):
    torch.manual_seed(0)
    groups, hidden, channels, guide_channels = 2, 3, 4, 6
    x, guide = torch.randn(2, channels, 3, 5).double(), torch.randn(2, guide_channels, 2, 2).double()
    inputs = (channels if source != "guide" else 0) + (guide_channels if source != "x" else 0)
    networks = [
        torch.nn.Sequential(
            torch.nn.Linear(inputs // groups, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, channels // groups),
            torch.nn.Sigmoid(),
        ).double()
        for _ in range(groups)
    ]  # fmt: skip
    expected = []
    for g, network in enumerate(networks):
        mine = x[:, 2 * g : 2 * g + 2]
        squeezed = {"x": [mine], "guide": [guide[:, 3 * g : 3 * g + 3]]}
        squeezed["both"] = squeezed["x"] + squeezed["guide"]
        gate = network(torch.cat([F.adaptive_avg_pool2d(s, 1).flatten(1) for s in squeezed[source]], dim=1))
        expected.append(mine * gate[:, :, None, None])
    parameters = [torch.stack([getattr(n[i], p) for n in networks]) for i in (0, 2) for p in ("weight", "bias")]
    out = reference.group_channel_gate(x, guide, *parameters, groups=groups, gate_source=source)
    torch.testing.assert_close(out, torch.cat(expected, dim=1), rtol=1e-12, atol=1e-12)


def test_channel_attention_is_attention_over_channels():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 6, 5).double()
    q[0, 1] = 0.0  # a channel without a norm
    temperature = torch.tensor([0.7, 3.0]).double()
    out = reference.group_channel_attention(q, k, v, temperature, groups=2)
    for g, tau in enumerate(temperature.tolist()):
        part = slice(3 * g, 3 * g + 3)
        unit_q, unit_k = (t[:, part] / t[:, part].norm(dim=-1, keepdim=True).clamp(min=1e-12) for t in (q, k))
        expected = F.scaled_dot_product_attention(unit_q, unit_k, v[:, part], scale=tau)
        torch.testing.assert_close(out[:, part], expected, rtol=1e-12, atol=1e-12)


def test_cross_attention_is_torchs():
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, n, 5).double() for n in (4, 6, 6))
    bias = torch.randn(1, 2, 4, 6).double()
    bias[0, 1, 2, 3] = -math.inf
    mask = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 0, 1], [1] * 6]).bool()
    expected = F.scaled_dot_product_attention(query, key, value, scale=0.3)
    torch.testing.assert_close(reference.cross_attention(query, key, value, scale=0.3), expected)
    full = bias.masked_fill(~mask[:, None, None], -math.inf)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=full)
    torch.testing.assert_close(reference.cross_attention(query, key, value, key_mask=mask, attn_bias=bias), expected)


def test_rows_without_a_key_give_zero_and_no_gradient():
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 1, 3, 4).double().requires_grad_() for _ in range(3))
    bias = torch.zeros(1, 1, 3, 3).double().requires_grad_()
    mask = torch.tensor([[True] * 3, [False] * 3])
    out = reference.cross_attention(query, key, value, key_mask=mask, attn_bias=bias)
    assert not out[1].any()
    grads = torch.autograd.grad(out.sum() + out.square().sum(), (query, key, value, bias))
    assert all(g.isfinite().all() for g in grads)
    assert not any(g[1].any() for g in grads[:3])


def philox(counter, key):
    """Philox4x32-10 on Python integers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 % 2**32, (p0 >> 32) ^ c[3] ^ k[1], p0 % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def test_dropout_drops_by_the_words_of_the_counter():
    torch.manual_seed(0)
    batch, heads, rows, columns, p, seed = 2, 3, 2, 5, 0.4, 2**40 + 17
    query, key = torch.randn(batch, heads, rows, 4).double(), torch.randn(batch, heads, columns, 4).double()
    value = torch.randn(batch, heads, columns, 4).double()
    tagged = seed ^ (0x9E3779B97F4A7C15 * 6 % 2**64)
    weights = (query @ key.transpose(-1, -2) / 2.0).softmax(-1)
    for b in range(batch):
        for h in range(heads):
            for i in range(rows):
                for j in range(columns):
                    e = (h * rows + i) * columns + j
                    word = philox((e // 4, 0, b, 0), (tagged % 2**32, tagged >> 32))[e % 4]
                    weights[b, h, i, j] *= 0.0 if word < p * 2**32 else 1.0 / (1.0 - p)
    out = reference.cross_attention(query, key, value, dropout_p=p, seed=seed)
    torch.testing.assert_close(out, weights @ value, rtol=1e-12, atol=1e-12)
    assert dropout_threshold(0.5) == 2**31
