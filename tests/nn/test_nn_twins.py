"""Each module against a plain PyTorch twin with the same weights, copied both ways: outputs and every gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bdgf_fast.nn import SS2D, CrossAttention, GroupChannelAttention, GroupChannelGate, GuidedFusion, Mamba


def scan(u, delta, A, B, C, D):
    """u, delta (B, d, L), A (d, N), B, C (B, N, L), D (d,); one step after the other."""
    state, ys = torch.zeros(u.shape[0], *A.shape, dtype=u.dtype), []
    for i in range(u.shape[-1]):
        step = delta[..., i, None]
        state = torch.exp(step * A) * state + step * u[..., i, None] * B[:, None, :, i]
        ys.append((state * C[:, None, :, i]).sum(-1) + D * u[..., i])
    return torch.stack(ys, -1)


class MambaTwin(nn.Module):
    def __init__(self, width, state=16, conv=4, expand=2, conv_bias=True, bias=False):
        super().__init__()
        inner, self.rank, self.state = expand * width, math.ceil(width / 16), state
        self.in_proj = nn.Linear(width, 2 * inner, bias=bias)
        self.conv1d = nn.Conv1d(inner, inner, conv, groups=inner, padding=conv - 1, bias=conv_bias)
        self.x_proj = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log, self.D = nn.Parameter(torch.zeros(inner, state)), nn.Parameter(torch.zeros(inner))
        self.out_proj = nn.Linear(inner, width, bias=bias)

    def forward(self, x):
        u, z = self.in_proj(x).transpose(1, 2).chunk(2, 1)
        u = F.silu(self.conv1d(u)[..., : x.shape[1]])
        dt, b, c = self.x_proj(u.transpose(1, 2)).split([self.rank, self.state, self.state], -1)
        delta = F.softplus(self.dt_proj(dt)).transpose(1, 2)
        y = scan(u, delta, -self.A_log.exp(), b.transpose(1, 2), c.transpose(1, 2), self.D)
        return self.out_proj((y * F.silu(z)).transpose(1, 2))


class SS2DTwin(nn.Module):
    """The four sequences laid out one by one."""

    def __init__(self, width, state=16, conv=3, ratio=2.0):
        super().__init__()
        inner, self.rank, self.state = int(ratio * width), math.ceil(width / 16), state
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, conv, padding=(conv - 1) // 2, groups=inner)
        self.x_proj_weight = nn.Parameter(torch.zeros(4, self.rank + 2 * state, inner))
        self.dt_projs_weight = nn.Parameter(torch.zeros(4, inner, self.rank))
        self.dt_projs_bias = nn.Parameter(torch.zeros(4, inner))
        self.A_logs, self.Ds = nn.Parameter(torch.zeros(4 * inner, state)), nn.Parameter(torch.zeros(4 * inner))
        self.out_norm, self.out_proj = nn.LayerNorm(inner), nn.Linear(inner, width, bias=False)

    def forward(self, x):
        height, width = x.shape[1:3]
        u, z = self.in_proj(x).chunk(2, -1)
        u = F.silu(self.conv2d(u.permute(0, 3, 1, 2)))
        total = 0.0
        for k, (by_columns, backward) in enumerate([(False, False), (True, False), (False, True), (True, True)]):
            s = (u.transpose(2, 3) if by_columns else u).flatten(2)
            s = s.flip(-1) if backward else s
            dt, b, c = (self.x_proj_weight[k] @ s).split([self.rank, self.state, self.state], 1)
            delta = F.softplus(self.dt_projs_weight[k] @ dt + self.dt_projs_bias[k][:, None])
            y = scan(s, delta, -self.A_logs.exp().chunk(4)[k], b, c, self.Ds.chunk(4)[k])
            y = y.flip(-1) if backward else y
            total = total + (y.unflatten(-1, (width, height)).transpose(2, 3) if by_columns else y.unflatten(-1, (height, width)))
        return self.out_proj(self.out_norm(total.permute(0, 2, 3, 1)) * F.silu(z))


class ChannelAttentionTwin(nn.Module):
    def __init__(self, channels, guide_channels, groups):
        super().__init__()
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key_value = nn.Conv2d(guide_channels, 2 * channels, 1, bias=False)
        self.temperature = nn.Parameter(torch.zeros(groups))
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x, guide):
        groups = len(self.temperature)
        q, k, v = (t.flatten(2).unflatten(1, (groups, -1)) for t in (self.query(x), *self.key_value(guide).chunk(2, 1)))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
        return self.out(((scores * self.temperature[:, None, None]).softmax(-1) @ v).view_as(x))


class FusionTwin(nn.Module):
    def __init__(self, channels, guide_channels):
        super().__init__()
        self.guide, self.merge = nn.Conv2d(guide_channels, channels, 1), nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x, guide):
        return x + self.merge(torch.cat([x, self.guide(guide)], 1))


CASES = {
    "mamba": (lambda: Mamba(24, 5), lambda: MambaTwin(24, 5), [(3, 9, 24)]),
    "mamba with biases": (
        lambda: Mamba(18, 4, 3, expand=3, bias=True, conv_bias=False),
        lambda: MambaTwin(18, 4, 3, 3, conv_bias=False, bias=True),
        [(2, 2, 18)],
    ),
    "mamba of a width without kernel": (lambda: Mamba(8, 3, 6), lambda: MambaTwin(8, 3, 6), [(2, 7, 8)]),
    "ss2d": (lambda: SS2D(17, 4), lambda: SS2DTwin(17, 4), [(2, 3, 5, 17)]),
    "ss2d by ratio": (lambda: SS2D(8, 3, 5, ssm_ratio=1.5), lambda: SS2DTwin(8, 3, 5, 1.5), [(2, 4, 4, 8)]),
    "channel attention": (
        lambda: GroupChannelAttention(12, 7, 3),
        lambda: ChannelAttentionTwin(12, 7, 3),
        [(2, 12, 4, 5), (2, 7, 4, 5)],
    ),
    "fusion": (lambda: GuidedFusion(6, 9), lambda: FusionTwin(6, 9), [(2, 6, 3, 4), (2, 9, 3, 4)]),
}


def compare(ours, twin, inputs, names, assert_close):
    """Outputs, gradients of the inputs, and gradients of the parameters `names` maps ours to."""
    exact = [x.double().requires_grad_() for x in inputs]
    inputs = [x.requires_grad_() for x in inputs]
    y, expected = ours(*inputs), twin(*exact)
    assert_close(y, expected, scale=3.0)
    weight = torch.randn(expected.shape, dtype=torch.float64)
    (y * weight.float()).sum().backward()
    (expected * weight.float().double()).sum().backward()
    largest = max(x.grad.abs().max().item() for x in [*exact, *twin.parameters()])
    for a, b in zip(inputs, exact, strict=True):
        assert_close(a.grad, b.grad, scale=3.0, floor=0.03 * largest)
    for a, b in names:
        assert_close(a.grad, b.grad, scale=3.0, floor=0.03 * largest)


@pytest.mark.parametrize("case", CASES)
def test_module_is_its_twin(case, assert_close):
    torch.manual_seed(3)
    make, make_twin, shapes = CASES[case]
    ours, twin = make(), make_twin()
    twin.load_state_dict(ours.state_dict())  # strict: the same keys and shapes
    other = make()
    other.load_state_dict(twin.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), other.parameters(), strict=True))
    found = dict(twin.named_parameters())
    with torch.no_grad():  # away from the values that a module starts with
        for name, parameter in ours.named_parameters():
            if name in ("D", "Ds", "temperature"):
                parameter.uniform_(0.5, 2.0)
                found[name].copy_(parameter)
    twin = twin.double()
    names = [(p, found[name]) for name, p in ours.named_parameters()]
    compare(ours, twin, [torch.randn(shape) for shape in shapes], names, assert_close)


def test_cross_attention_is_torch_multihead_attention(assert_close):
    torch.manual_seed(4)
    width, heads = 24, 3
    ours = CrossAttention(width, heads, context_width=10)
    theirs = nn.MultiheadAttention(width, heads, kdim=10, vdim=10, batch_first=True)
    with torch.no_grad():
        theirs.q_proj_weight.copy_(ours.query.weight)
        theirs.k_proj_weight.copy_(ours.key_value.weight[:width])
        theirs.v_proj_weight.copy_(ours.key_value.weight[width:])
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, context = torch.randn(2, 7, width), torch.randn(2, 5, 10)
    mask = torch.tensor([[True, False, True, True, False], [True] * 5])
    theirs = theirs.double()
    compare(
        lambda q, c: ours(q, c, key_mask=mask),
        _Called(theirs, lambda q, c: theirs(q, c, c, key_padding_mask=~mask, need_weights=False)[0]),
        [x, context],
        [(ours.query.weight, theirs.q_proj_weight), (ours.out.weight, theirs.out_proj.weight)],
        assert_close,
    )
    other = CrossAttention(width, heads, context_width=10)  # and the way back
    other.load_state_dict(
        {
            "query.weight": theirs.q_proj_weight,
            "query.bias": theirs.in_proj_bias[:width],
            "key_value.weight": torch.cat([theirs.k_proj_weight, theirs.v_proj_weight]),
            "key_value.bias": theirs.in_proj_bias[width:],
            "out.weight": theirs.out_proj.weight,
            "out.bias": theirs.out_proj.bias,
        }
    )
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), other.parameters(), strict=True))


class _Called(nn.Module):
    def __init__(self, module, call):
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *inputs):
        return self.call(*inputs)


@pytest.mark.parametrize("source", ["x", "both"])
def test_gate_is_grouped_squeeze_and_excitation(source, assert_close):
    """The two grouped 1 x 1 convolutions of a squeeze-and-excitation block hold the gate's weights, group after group."""
    torch.manual_seed(5)
    groups, channels, guide_channels = 2, 8, 6
    ours = GroupChannelGate(channels, guide_channels, groups, gate_source=source)
    taken, hidden = ours.weight1.shape[2], ours.weight1.shape[1]
    first = nn.Conv2d(groups * taken, groups * hidden, 1, groups=groups)
    second = nn.Conv2d(groups * hidden, channels, 1, groups=groups)
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn(p.shape))
        first.weight.copy_(ours.weight1.view_as(first.weight))
        first.bias.copy_(ours.bias1.view(-1))
        second.weight.copy_(ours.weight2.view_as(second.weight))
        second.bias.copy_(ours.bias2.view(-1))

    def twin(x, guide):
        squeezed = [x.mean((2, 3), keepdim=True).unflatten(1, (groups, -1))]
        if source == "both":
            squeezed.append(guide.mean((2, 3), keepdim=True).unflatten(1, (groups, -1)))
        hidden = F.relu(first(torch.cat(squeezed, 2).flatten(1, 2)))
        y = x * torch.sigmoid(second(hidden))
        return y if source == "both" else y + 0.0 * guide.sum()

    modules = nn.ModuleList([first, second]).double()
    names = [(ours.weight1, first.weight), (ours.weight2, second.weight), (ours.bias1, first.bias), (ours.bias2, second.bias)]
    inputs = [torch.randn(3, channels, 4, 4), torch.randn(3, guide_channels, 2, 2)]
    call = ours if source == "both" else lambda x, guide: ours(x, guide) + 0.0 * guide.sum()
    found = {}
    for a, b in names:  # the twin's gradients in the shapes of ours
        b.register_hook(lambda g, a=a: found.__setitem__(id(a), g.view(a.shape)))
    compare(call, _Called(modules, twin), inputs, [], assert_close)
    for a, _ in names:
        assert_close(a.grad, found[id(a)], scale=3.0, floor=0.1)
    back = GroupChannelGate(channels, guide_channels, groups, gate_source=source)
    back.load_state_dict(
        {
            "weight1": first.weight.view(groups, hidden, taken),
            "bias1": first.bias.view(groups, hidden),
            "weight2": second.weight.view(groups, channels // groups, hidden),
            "bias2": second.bias.view(groups, channels // groups),
        }
    )
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), back.parameters(), strict=True))
