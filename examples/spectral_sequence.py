"""A pixel's spectrum as a sequence of band groups, read in both directions by two Mamba blocks.

Written for mamba_ssm only. Where that is not installed, on any CPU:

    bdgf-fast compat examples/spectral_sequence.py
"""

import argparse

import torch
import torch.nn.functional as F
from mamba_ssm import Mamba
from torch import nn


def spectra(count, bands, classes, generator):
    """Smooth reflectances with an absorption at a place of each class's own, under uneven light and noise."""
    label = torch.randint(classes, (count,), generator=generator)
    wavelength = torch.linspace(0, 1, bands)
    centre = (label.float() + 0.7) / (classes + 0.4) + 0.02 * torch.randn(count, generator=generator)
    shape = 0.5 + 0.2 * torch.sin(3 * wavelength) - 0.3 * torch.exp(-((wavelength - centre[:, None]) ** 2) / 0.003)
    light = 0.6 + 0.8 * torch.rand(count, 1, generator=generator)
    x = light * shape + 0.02 * torch.randn(count, bands, generator=generator)
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True), label


class BidirectionalMamba(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.ahead, self.back = Mamba(d_model=width, d_state=8), Mamba(d_model=width, d_state=8)

    def forward(self, x):
        y = self.norm(x)
        return x + self.ahead(y) + self.back(y.flip(1)).flip(1)


class SpectralClassifier(nn.Module):
    def __init__(self, bands, classes, group=4, width=32, depth=2):
        super().__init__()
        self.group = group
        self.embed = nn.Linear(group, width)
        self.position = nn.Parameter(0.02 * torch.randn(bands // group, width))
        self.blocks = nn.Sequential(*[BidirectionalMamba(width) for _ in range(depth)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x):
        tokens = self.embed(x.unflatten(-1, (-1, self.group))) + self.position
        return self.head(self.blocks(tokens).mean(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = SpectralClassifier(bands=64, classes=6).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(options.steps):
        x, label = (v.to(device) for v in spectra(options.batch, 64, 6, generator))
        loss = F.cross_entropy(model(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0 or step == options.steps - 1:
            print(f"step {step} loss {loss.item():.4f}")
    model.eval()
    with torch.no_grad():
        x, label = (v.to(device) for v in spectra(512, 64, 6, generator))
        print(f"accuracy {(model(x).argmax(-1) == label).float().mean().item():.3f}")


if __name__ == "__main__":
    main()
