"""One step of the scan and of the convolution against float64 arithmetic written out, with all their options."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bdgf_fast.nn import causal_conv1d_update, selective_state_update


def state_update(state, x, dt, A, B, C, D, z, dt_bias, softplus):
    """float64; state (b, h, d, n), x, dt, z (b, h, d), A (h, d, n), B, C (b, g, n), D, dt_bias (h, d)."""
    dt = dt if dt_bias is None else dt + dt_bias
    dt = F.softplus(dt) if softplus else dt
    B, C = (v.repeat_interleave(x.shape[1] // v.shape[1], 1) for v in (B, C))
    state = torch.exp(dt[..., None] * A) * state + (dt * x)[..., None] * B[:, :, None]
    y = (state * C[:, :, None]).sum(-1)
    y = y if D is None else y + D * x
    return y if z is None else y * F.silu(z), state


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", ["all", "none", "indexed"])
@pytest.mark.parametrize(("heads", "groups"), [(None, None), (None, 1), (4, 1), (4, 2), (6, 6)])
def test_state_update(dtype, options, heads, groups, assert_close):
    g = torch.Generator().manual_seed(heads or 1)
    batch, dim, n, slots = 3, 10, 5, 7 if options == "indexed" else 3
    sizes = (dim,) if heads is None else (heads, dim)
    grouped = () if groups is None else (groups,)

    def draw(*shape):
        return torch.randn(*shape, generator=g).to(dtype)

    state = torch.randn(slots, *sizes, n, generator=g)
    x, dt, z = draw(batch, *sizes), 0.2 * draw(batch, *sizes).abs(), draw(batch, *sizes)
    A, B, C = -torch.rand(*sizes, n, generator=g), draw(batch, *grouped, n), draw(batch, *grouped, n)
    D, dt_bias = (None, None) if options == "none" else (draw(*sizes), torch.randn(*sizes, generator=g))
    z, softplus = (None, False) if options == "none" else (z, True)
    rows = torch.tensor([5, 0, 2], dtype=torch.int32) if options == "indexed" else None

    before = state.clone()
    y = selective_state_update(state, x, dt, A, B, C, D, z, dt_bias, softplus, rows)
    chosen = torch.arange(3) if rows is None else rows.long()
    h = heads or 1

    def as_heads(v, *shape):
        return None if v is None else v.double().reshape(*shape)

    expected, after = state_update(
        before[chosen].double().view(batch, h, dim, n),
        *(as_heads(v, batch, h, dim) for v in (x, dt)),
        as_heads(A, h, dim, n),
        *(as_heads(v, batch, groups or 1, n) for v in (B, C)),
        as_heads(D, h, dim),
        as_heads(z, batch, h, dim),
        as_heads(dt_bias, h, dim),
        softplus,
    )
    assert y.dtype is dtype
    assert_close(y, expected.view(y.shape))
    assert_close(state[chosen], after.view(state[chosen].shape))
    untouched = [i for i in range(slots) if i not in chosen.tolist()]
    assert torch.equal(state[untouched], before[untouched])


def test_state_is_rounded_only_when_it_is_stored(assert_close):
    torch.manual_seed(0)
    state = torch.randn(2, 4, 3, dtype=torch.bfloat16)
    x, dt, A, B, C = torch.randn(2, 4), torch.rand(2, 4), -torch.rand(4, 3), torch.randn(2, 3), torch.randn(2, 3)
    exact = [v.double() for v in (state, x, dt, A, B, C)]
    expected, after = state_update(
        exact[0][:, None], exact[1][:, None], exact[2][:, None], exact[3][None], exact[4][:, None], exact[5][:, None],
        None, None, None, False,
    )  # fmt: skip
    assert_close(selective_state_update(state, x, dt, A, B, C), expected[:, 0])  # to float32's tolerance
    assert state.dtype is torch.bfloat16
    assert_close(state, after[:, 0])


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("kept", [3, 4, 7])
@pytest.mark.parametrize("length", [None, 1, 2])
@pytest.mark.parametrize("ring", [False, True])
def test_conv_update_step_by_step(width, kept, length, ring, assert_close):
    """Fed in pieces, the update gives what the convolution of the whole gives, through a shifted state or a ring."""
    g = torch.Generator().manual_seed(kept)
    batch, dim, steps = 2, 6, 8
    x = torch.randn(batch, dim, steps, generator=g)
    weight, bias = torch.randn(dim, width, generator=g), torch.randn(dim, generator=g)
    rows = torch.tensor([4, 1]) if ring else None
    state = torch.zeros(5 if ring else batch, dim, kept)
    found = []
    for i in range(0, steps, length or 1):
        piece = x[..., i] if length is None else x[..., i : i + length]
        seen = torch.full((batch,), i, dtype=torch.int32) if ring else None
        found.append(causal_conv1d_update(piece, state, weight, bias, "silu", seen, rows))
        assert found[-1].shape == piece.shape
    found = torch.stack(found, -1) if length is None else torch.cat(found, -1)
    expected = F.conv1d(F.pad(x, (width - 1, 0)).double(), weight.double()[:, None], bias.double(), groups=dim)
    assert_close(found, F.silu(expected))
    newest = state[rows] if ring else state
    if ring:
        newest = newest[..., torch.arange(steps - kept, steps) % kept]
    assert torch.equal(newest, x[..., -kept:])
    if ring:
        assert not state[[0, 2, 3]].any()


SLOTS = [[2, -1, 0], [-1, -1, 1], [-7, 0, 2], [-1, -2, -1], [1, 0, 2]]


@pytest.mark.parametrize("indices", SLOTS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_a_negative_slot_is_padding(indices, dtype):
    """Its output is 0, no state is written, and the other samples go on as they would alone."""
    torch.manual_seed(0)
    kept = [i for i, slot in enumerate(indices) if slot >= 0]
    slots = [indices[i] for i in kept]
    state, weight, x = torch.randn(4, 5, 3), torch.randn(5, 3), torch.randn(3, 5)
    found, alone = state.clone(), state.clone()
    out = causal_conv1d_update(x, found, weight, conv_state_indices=torch.tensor(indices, dtype=dtype))
    expected = causal_conv1d_update(x[kept], alone, weight, conv_state_indices=torch.tensor(slots, dtype=dtype))
    assert torch.equal(found, alone) and torch.equal(out[kept], expected)
    assert not out[[i for i in range(3) if i not in kept]].any()

    state, A, B = torch.randn(4, 5, 2), -torch.rand(5, 2), torch.randn(3, 2)
    found, alone = state.clone(), state.clone()
    out = selective_state_update(found, x, x.abs(), A, B, B, state_batch_indices=torch.tensor(indices, dtype=dtype))
    expected = selective_state_update(
        alone, x[kept], x[kept].abs(), A, B[kept], B[kept], state_batch_indices=torch.tensor(slots, dtype=dtype)
    )
    assert torch.equal(found, alone) and torch.equal(out[kept], expected)
    assert not out[[i for i in range(3) if i not in kept]].any()


def test_padding_that_is_not_a_number_stays_out():
    state = torch.full((3, 1, 2), torch.nan)
    state[2] = 0.0
    out = causal_conv1d_update(torch.tensor([[5.0], [7.0]]), state, torch.ones(1, 3), conv_state_indices=torch.tensor([2, -1]))
    assert out.tolist() == [[5.0], [0.0]] and state[2].tolist() == [[0.0, 5.0]] and state[:2].isnan().all()


def test_a_step_of_no_samples():
    state = torch.zeros(3, 1, 2)
    out = causal_conv1d_update(torch.zeros(0, 1), state, torch.ones(1, 3), conv_state_indices=torch.zeros(0, dtype=torch.int64))
    assert out.shape == (0, 1)


def test_step_errors_name_the_argument():
    state, x, A, B = torch.zeros(2, 4, 3), torch.zeros(2, 4), torch.zeros(4, 3), torch.zeros(2, 3)
    with pytest.raises(ValueError, match="dt has shape"):
        selective_state_update(state, x, torch.zeros(2, 5), A, B, B)
    with pytest.raises(ValueError, match="D has shape"):
        selective_state_update(state, x, x, A, B, B, D=torch.zeros(3))
    with pytest.raises(ValueError, match="B has 2 groups"):
        selective_state_update(state, x, x, A, torch.zeros(2, 2, 3), torch.zeros(2, 2, 3))
    with pytest.raises(TypeError, match="state_batch_indices is torch.float32"):
        selective_state_update(state, x, x, A, B, B, state_batch_indices=torch.zeros(2))
    with pytest.raises(ValueError, match="state_batch_indices has 2; it takes up to 1, and negative ones for padding"):
        selective_state_update(state, x, x, A, B, B, state_batch_indices=torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="conv_state_indices has 5; it takes up to 1"):
        causal_conv1d_update(x, torch.zeros(2, 4, 3), torch.zeros(4, 4), conv_state_indices=torch.tensor([5, -1]))
    with pytest.raises(ValueError, match="conv_state keeps 2 steps"):
        causal_conv1d_update(x, torch.zeros(2, 4, 2), torch.zeros(4, 4))
    with pytest.raises(ValueError, match="conv_state has shape"):
        causal_conv1d_update(x, torch.zeros(3, 4, 3), torch.zeros(4, 4))
    with pytest.raises(ValueError, match="x has length 4"):
        causal_conv1d_update(torch.zeros(2, 4, 4), torch.zeros(2, 4, 3), torch.zeros(4, 4), cache_seqlens=torch.zeros(2).int())
