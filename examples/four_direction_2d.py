"""A patch read along its rows and columns, both ways: a 2-D block over the kernels that VMamba builds.

Written for selective_scan_cuda_oflex only. Where that is not installed, on any CPU:

    bdgf-fast compat examples/four_direction_2d.py
"""

import argparse

import selective_scan_cuda_oflex
import torch
import torch.nn.functional as F
from torch import nn


class SelectiveScan(torch.autograd.Function):
    """The kernels take no part in autograd; this does."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, delta_bias):
        out, x = selective_scan_cuda_oflex.fwd(u, delta, A, B, C, D, delta_bias, True, 1, True)
        ctx.save_for_backward(u, delta, A, B, C, D, delta_bias, x)
        return out

    @staticmethod
    def backward(ctx, grad):
        u, delta, A, B, C, D, delta_bias, x = ctx.saved_tensors
        return tuple(
            selective_scan_cuda_oflex.bwd(u, delta, A, B, C, D, delta_bias, grad.contiguous(), x, True, 1)
        )


def four_ways(x):
    """(batch, C, H, W) -> (batch, 4, C, H W): rows, columns, and both from the end."""
    two = torch.stack([x.flatten(2), x.transpose(2, 3).flatten(2)], 1)
    return torch.cat([two, two.flip(-1)], 1)


def merged(y, height, width):
    """The way back, added up: (batch, 4, C, H W) -> (batch, C, H, W)."""
    two = y[:, :2] + y[:, 2:].flip(-1)
    return two[:, 0].unflatten(-1, (height, width)) + two[:, 1].unflatten(-1, (width, height)).transpose(2, 3)


class FourDirectionBlock(nn.Module):
    def __init__(self, width, state=4, rank=2):
        super().__init__()
        inner, self.state, self.rank = 2 * width, state, rank
        self.norm, self.in_proj = nn.LayerNorm(width), nn.Linear(width, 2 * inner, bias=False)
        self.conv = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.x_proj = nn.Parameter(torch.randn(4, rank + 2 * state, inner) * inner**-0.5)
        self.dt_weight = nn.Parameter(torch.randn(4, inner, rank) * rank**-0.5)
        self.dt_bias = nn.Parameter(torch.full((4 * inner,), -3.0))
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, state + 1)).repeat(4 * inner, 1))
        self.D = nn.Parameter(torch.ones(4 * inner))
        self.out_norm, self.out_proj = nn.LayerNorm(inner), nn.Linear(inner, width, bias=False)

    def forward(self, x):
        batch, height, width, _ = x.shape
        u, z = self.in_proj(self.norm(x)).chunk(2, dim=-1)
        u = F.silu(self.conv(u.permute(0, 3, 1, 2)))
        with torch.cuda.device(u.device):  # kernels launch on the current device
            xs = four_ways(u)
            dt, b, c = torch.einsum("bkdl,kcd->bkcl", xs, self.x_proj).split([self.rank, self.state, self.state], dim=2)
            dt = torch.einsum("bkrl,kdr->bkdl", dt, self.dt_weight)
            y = SelectiveScan.apply(
                xs.flatten(1, 2), dt.flatten(1, 2).contiguous(), -self.A_log.exp(), b.contiguous(), c.contiguous(),
                self.D, self.dt_bias,
            )  # fmt: skip
        y = merged(y.unflatten(1, (4, -1)), height, width).permute(0, 2, 3, 1)
        return x + self.out_proj(self.out_norm(y) * F.silu(z))


class FourDirectionClassifier(nn.Module):
    def __init__(self, bands, classes, width=24, depth=2):
        super().__init__()
        self.embed = nn.Linear(bands, width)
        self.blocks = nn.Sequential(*[FourDirectionBlock(width) for _ in range(depth)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x):
        return self.head(self.blocks(self.embed(x.permute(0, 2, 3, 1))).mean((1, 2)))


def patches(count, bands, size, classes, generator):
    """Patches of a texture whose direction tells the class."""
    label = torch.randint(classes, (count,), generator=generator)
    angle = label.float() * torch.pi / classes + 0.1 * torch.randn(count, generator=generator)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    phase = 6.3 * torch.rand(count, 1, 1, generator=generator)
    wave = torch.sin(1.3 * (angle.cos()[:, None, None] * row + angle.sin()[:, None, None] * column) + phase)
    x = 0.5 + torch.sin(torch.linspace(0, 4, bands))[:, None, None] * wave[:, None]
    return x + 0.3 * torch.randn(x.shape, generator=generator), label


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = FourDirectionClassifier(bands=16, classes=4).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(options.steps):
        x, label = (v.to(device) for v in patches(options.batch, 16, 7, 4, generator))
        loss = F.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step == options.steps - 1:
            print(f"step {step} loss {loss.item():.4f}")
    model.eval()
    with torch.no_grad():
        x, label = (v.to(device) for v in patches(512, 16, 7, 4, generator))
        print(f"accuracy {(model(x).argmax(-1) == label).float().mean().item():.3f}")


if __name__ == "__main__":
    main()
