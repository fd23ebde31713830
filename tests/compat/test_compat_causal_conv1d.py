"""causal_conv1d_fn with states and packed sequences against float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bdgf_fast.compat import causal_conv1d_fn


def written_out(x, weight, bias=None, initial_states=None, silu=False):
    past = weight.shape[1] - 1
    before = x.new_zeros(*x.shape[:2], past) if initial_states is None else initial_states
    steps = torch.cat([before, x], -1)
    y = F.conv1d(steps, weight[:, None], bias, groups=x.shape[1])
    return (F.silu(y) if silu else y), (steps[..., -past:] if past else steps[..., :0])


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
def test_states_and_their_gradients(width, length, initial, channels_last, check_gradients):
    g = torch.Generator().manual_seed(length)
    x = torch.randn(2, length, 5, generator=g).transpose(1, 2)
    t = {"x": x if channels_last else x.contiguous()}
    t |= {"weight": torch.randn(5, width, generator=g), "bias": torch.randn(5, generator=g)}
    if initial:
        t["initial_states"] = torch.randn(2, 5, width - 1, generator=g)
    check_gradients(
        lambda **t: causal_conv1d_fn(**t, return_final_states=True, activation="silu"),
        lambda **t: written_out(**t, silu=True),
        t,
    )
    check_gradients(lambda **t: causal_conv1d_fn(**t), lambda **t: written_out(**t)[0], t)


def test_final_states_are_written_where_asked():
    x, weight, place = torch.randn(2, 3, 2), torch.randn(3, 4), torch.full((2, 3, 3), 7.0)
    _, states = causal_conv1d_fn(x, weight, return_final_states=True, final_states_out=place)
    assert states is place
    assert torch.equal(place, F.pad(x, (1, 0)))


@pytest.mark.parametrize("initial", [False, True])
def test_packed_sequences_do_not_see_each_other(initial, check_gradients):
    """Against each sequence on its own; steps of padding give act(0)."""
    g = torch.Generator().manual_seed(0)
    lengths, width = [3, 1, 5], 4
    seq_idx = torch.tensor([0] * 3 + [1] + [2] * 5 + [-1] * 2).expand(2, -1).int()
    t = {"x": torch.randn(2, 6, 11, generator=g), "weight": torch.randn(6, width, generator=g), "bias": torch.randn(6, generator=g)}
    if initial:
        t["initial_states"] = torch.randn(2, 6, width - 1, generator=g)

    def apart(x, weight, bias, initial_states=None):
        pieces = x.split([*lengths, 2], -1)
        found = [
            written_out(p, weight, bias, initial_states if i == 0 else None, silu=True)[0] for i, p in enumerate(pieces[:3])
        ]
        return torch.cat([*found, torch.zeros_like(pieces[3])], -1)

    check_gradients(lambda **t: causal_conv1d_fn(**t, seq_idx=seq_idx, activation="swish"), apart, t)


def test_errors_name_the_argument():
    x, weight = torch.randn(2, 3, 5), torch.randn(3, 4)
    with pytest.raises(ValueError, match="initial_states has shape"):
        causal_conv1d_fn(x, weight, initial_states=torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="return_final_states is True; with seq_idx"):
        causal_conv1d_fn(x, weight, seq_idx=torch.zeros(2, 5).int(), return_final_states=True)
    with pytest.raises(ValueError, match="seq_idx has shape"):
        causal_conv1d_fn(x, weight, seq_idx=torch.zeros(2, 4).int())
    with pytest.raises(ValueError, match="activation is 'relu'"):
        causal_conv1d_fn(x, weight, activation="relu")
