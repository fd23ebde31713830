"""The pixels around a pixel as a sequence: a selective-scan block of its own making over causal_conv1d and mamba_ssm.

Written for mamba_ssm and causal_conv1d only. Where those are not installed, on any CPU:

    bdgf-fast compat examples/spatial_patch_sequence.py
"""

import argparse

import torch
import torch.nn.functional as F
from causal_conv1d import causal_conv1d_fn
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from mamba_ssm.ops.triton.layer_norm import RMSNorm, rms_norm_fn
from torch import nn


def patches(count, bands, size, classes, generator):
    """Patches of a texture whose direction and spectrum tell the class, the centre's label counting."""
    label = torch.randint(classes, (count,), generator=generator)
    angle = label.float() * torch.pi / classes + 0.1 * torch.randn(count, generator=generator)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    phase = 6.3 * torch.rand(count, 1, 1, generator=generator)
    wave = torch.sin(1.3 * (angle.cos()[:, None, None] * row + angle.sin()[:, None, None] * column) + phase)
    spectrum = 0.5 + 0.3 * torch.sin(torch.linspace(0, 4, bands) + 0.3 * label.float()[:, None])
    x = spectrum[:, :, None, None] + 0.5 * wave[:, None]
    return x + 0.2 * torch.randn(x.shape, generator=generator), label


class ScanBlock(nn.Module):
    """Norm (with the residual added in the same call), projection, causal convolution, selective scan, gate."""

    def __init__(self, width, state=8, rank=4):
        super().__init__()
        self.norm = RMSNorm(width)
        self.inner, self.state, self.rank = 2 * width, state, rank
        self.in_proj = nn.Linear(width, 2 * self.inner, bias=False)
        self.conv_weight = nn.Parameter(0.3 * torch.randn(self.inner, 4))
        self.conv_bias = nn.Parameter(torch.zeros(self.inner))
        self.x_proj = nn.Linear(self.inner, rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(rank, self.inner)
        nn.init.constant_(self.dt_proj.bias, -3.0)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, state + 1)).repeat(self.inner, 1))
        self.D = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, width, bias=False)

    def forward(self, x, residual=None):
        x, residual = rms_norm_fn(
            x, self.norm.weight, self.norm.bias, residual=residual, eps=self.norm.eps, prenorm=True, residual_in_fp32=True
        )
        u, z = self.in_proj(x).transpose(1, 2).chunk(2, dim=1)
        u = causal_conv1d_fn(u, self.conv_weight, self.conv_bias, activation="silu")
        dt, b, c = self.x_proj(u.transpose(1, 2)).split([self.rank, self.state, self.state], dim=-1)
        y = selective_scan_fn(
            u,
            (dt @ self.dt_proj.weight.t()).transpose(1, 2),
            -self.A_log.exp(),
            b.transpose(1, 2),
            c.transpose(1, 2),
            self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
        )
        return self.out_proj(y.transpose(1, 2)), residual


class PatchClassifier(nn.Module):
    def __init__(self, bands, size, classes, width=32, depth=2):
        super().__init__()
        self.embed = nn.Conv2d(bands, width, 1)
        self.position = nn.Parameter(0.02 * torch.randn(size * size, width))
        self.blocks = nn.ModuleList(ScanBlock(width) for _ in range(depth))
        self.norm, self.head = RMSNorm(width), nn.Linear(width, classes)

    def forward(self, x):
        x, residual = self.embed(x).flatten(2).transpose(1, 2) + self.position, None
        for block in self.blocks:
            x, residual = block(x, residual)
        return self.head(self.norm(x, residual=residual, residual_in_fp32=True).mean(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=48)
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = PatchClassifier(bands=24, size=9, classes=5).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(options.steps):
        x, label = (v.to(device) for v in patches(options.batch, 24, 9, 5, generator))
        loss = F.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step == options.steps - 1:
            print(f"step {step} loss {loss.item():.4f}")
    model.eval()
    with torch.no_grad():
        x, label = (v.to(device) for v in patches(512, 24, 9, 5, generator))
        print(f"accuracy {(model(x).argmax(-1) == label).float().mean().item():.3f}")


if __name__ == "__main__":
    main()
