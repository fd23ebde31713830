"""scaled_dot_product_attention against torch's own in float64, with every way of its arguments."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F

from bdgf_fast.compat import scaled_dot_product_attention


def test_arguments_are_torchs():
    text = F.scaled_dot_product_attention.__doc__.partition("(")[2].partition(")")[0]
    published = [word.split("=")[0].strip() for word in text.replace("*", "").split(",")]
    assert list(inspect.signature(scaled_dot_product_attention).parameters) == [p for p in published if p.isidentifier()]


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 2, 3)])
@pytest.mark.parametrize("mask", [None, "causal", "keys", "bool", "float", "few dimensions", "one column"])
def test_is_torchs(lead, mask, check_gradients):
    g = torch.Generator().manual_seed(len(lead))
    rows, columns, depth = 5, 7, 8
    t = {
        "query": torch.randn(*lead, rows, depth, generator=g),
        "key": torch.randn(*lead, columns, depth, generator=g),
        "value": torch.randn(*lead, columns, depth, generator=g),
    }
    options = {"is_causal": mask == "causal"}
    if mask == "keys":
        shape = (*lead[:-1], *[1] * min(len(lead), 1), 1, columns)
        t["attn_mask"] = torch.rand(shape, generator=g) > 0.4
    elif mask == "bool":
        t["attn_mask"] = torch.rand(*lead, rows, columns, generator=g) > 0.4
    elif mask == "float":
        t["attn_mask"] = torch.randn(*lead, rows, columns, generator=g)
    elif mask == "few dimensions":
        t["attn_mask"] = torch.randn(rows, columns, generator=g)
    elif mask == "one column":
        t["attn_mask"] = torch.rand(rows, 1, generator=g) > 0.4
    check_gradients(
        lambda **t: scaled_dot_product_attention(**t, **options, scale=0.3),
        lambda **t: F.scaled_dot_product_attention(**t, **options, scale=0.3),
        t,
    )


@pytest.mark.parametrize("depths", [(8, 3), (3, 8)])
def test_another_depth_of_the_values(depths, check_gradients):
    d, v = depths
    t = {"query": torch.randn(2, 2, 4, d), "key": torch.randn(2, 2, 6, d), "value": torch.randn(2, 2, 6, v)}
    check_gradients(scaled_dot_product_attention, F.scaled_dot_product_attention, t)


def test_shared_heads_and_broadcast_batches(check_gradients):
    t = {"query": torch.randn(2, 6, 4, 8), "key": torch.randn(2, 2, 5, 8), "value": torch.randn(2, 2, 5, 8)}
    check_gradients(
        lambda **t: scaled_dot_product_attention(**t, enable_gqa=True),
        lambda **t: F.scaled_dot_product_attention(**t, enable_gqa=True),
        t,
    )
    t = {"query": torch.randn(2, 3, 4, 8), "key": torch.randn(1, 3, 5, 8), "value": torch.randn(1, 3, 5, 8)}
    check_gradients(scaled_dot_product_attention, F.scaled_dot_product_attention, t)


def test_rows_that_see_nothing_give_zero():
    mask = torch.tensor([[True, False], [False, False]])
    x = torch.randn(1, 1, 2, 4)
    y = scaled_dot_product_attention(x, x, x, mask)
    assert torch.equal(y[0, 0, 1], torch.zeros(4)) and torch.isfinite(y).all()


@pytest.mark.parametrize(("rows", "columns", "depth", "value_depth"), [(3, 4, 0, 5), (3, 0, 4, 4), (0, 4, 4, 4), (3, 4, 4, 0)])
@pytest.mark.parametrize("causal", [False, True])
def test_nothing_to_attend_to_is_what_torch_says(rows, columns, depth, value_depth, causal):
    shapes = {"query": (2, 2, rows, depth), "key": (2, 2, columns, depth), "value": (2, 2, columns, value_depth)}
    found = []
    for function in (scaled_dot_product_attention, F.scaled_dot_product_attention):
        t = {name: torch.ones(shape, requires_grad=True) for name, shape in shapes.items()}
        out = function(**t, is_causal=causal)
        out.sum().backward()
        found.append((out, *(x.grad for x in t.values())))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b) or a.isnan().equal(b.isnan())


def test_flags_are_truth_values():
    x = torch.randn(1, 2, 4, 8)
    assert torch.equal(scaled_dot_product_attention(x, x, x, is_causal=None), scaled_dot_product_attention(x, x, x))
    with pytest.raises(TypeError, match="is_causal is str; it takes True or False"):
        scaled_dot_product_attention(x, x, x, is_causal="no")


def test_dropout_follows_torchs_seed():
    q, k, v = torch.randn(2, 4, 64, 8), torch.randn(2, 4, 64, 8), torch.ones(2, 4, 64, 8)

    def once(seed):
        torch.manual_seed(seed)
        return scaled_dot_product_attention(q, k, v, dropout_p=0.4)

    first = once(1)
    assert torch.equal(first, once(1)) and not torch.equal(first, once(2))
    assert abs(first.mean() - 1.0) < 0.05 and first.std() > 0.05


def test_errors_name_the_argument():
    x = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="attn_mask is given with is_causal"):
        scaled_dot_product_attention(x, x, x, torch.ones(4, 4).bool(), is_causal=True)
    with pytest.raises(ValueError, match="attn_mask has shape"):
        scaled_dot_product_attention(x, x, x, torch.ones(1, 1, 1, 4, 4))
    with pytest.raises(ValueError, match="enable_gqa takes heads that divide"):
        scaled_dot_product_attention(torch.randn(1, 3, 4, 8), x, x, enable_gqa=True)
