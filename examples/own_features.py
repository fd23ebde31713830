"""Features of another model guide the network, in place of the diffusion model's.

    python examples/own_features.py

Two ways. `ArrayFeatures` takes maps that are computed already: arrays in memory, .npy, GeoTIFF (on the command line:
`bdgf-fast run SCENE --out DIR --features maps.npy`). A class with `channels`, `patches` and `block` computes them when they
are asked for. Here the other model is a small frozen CNN with random filters; put your own in its place.
"""

import torch
from torch import nn

from bdgf_fast.config import Config
from bdgf_fast.data import make_split, prepare, synthetic_scene
from bdgf_fast.diffusion import ArrayFeatures
from bdgf_fast.training import evaluate, train

SEED = 0


def frozen_cnn(bands: int, width: int = 16) -> nn.Module:
    torch.manual_seed(SEED)
    layers = [nn.Conv2d(bands, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


class CnnFeatures:
    """A feature source: one map of the CNN's channels, computed where it is asked for."""

    reach = 3  # of three 3 x 3 convolutions

    def __init__(self, model: nn.Module, prepared) -> None:
        self.model, self.prepared = model, prepared
        rows = torch.from_numpy(prepared.split.train_region).nonzero()[::10]
        self.mean = torch.zeros(16, 1, 1)
        self.channels = (16,)  # one guide map
        at = self.patches(rows, 1)[0]  # scaled by the training side alone, all channels by one factor
        self.mean, self.factor = at.mean(0), at.std(0).square().mean().sqrt()

    factor = 1.0

    def tile(self, y0: int, x0: int, h: int, w: int) -> torch.Tensor:
        r = self.reach
        window = self.prepared.window(y0 - r, x0 - r, h + 2 * r, w + 2 * r)  # mirrored outside the scene
        return (self.model(window[None])[0] - self.mean) / self.factor

    def block(self, y0: int, x0: int, h: int, w: int, size: int):
        before = size // 2
        tile = self.tile(y0 - before, x0 - before, h + size - 1, w + size - 1)
        return lambda rc: [torch.stack([tile[:, r - y0 : r - y0 + size, c - x0 : c - x0 + size] for r, c in rc.tolist()])]

    def patches(self, rc: torch.Tensor, size: int) -> list[torch.Tensor]:
        return self.block(0, 0, self.prepared.height, self.prepared.width, size)(rc)


def main() -> None:
    scene = synthetic_scene(size=(64, 64), bands=8)
    config = Config().override("data.patch=7", "model.width=16", "model.state=2", "model.branches=[cnn]", "train.epochs=6",
                               "train.ema=0.9", "train.learning_rate=5e-3", "features.channels=8")  # fmt: skip
    prepared = prepare(scene, make_split(scene, patch=config.data.patch, seed=SEED))
    cnn = CnnFeatures(frozen_cnn(prepared.channels), prepared)
    maps = ArrayFeatures.fit(prepared, config, SEED, [cnn.tile(0, 0, scene.height, scene.width).numpy()])
    for name, features in (("no guide", None), ("own class", cnn), ("precomputed maps", maps)):
        network, _ = train(prepared, features, config, seed=SEED)
        print(f"{name}: overall accuracy {100 * evaluate(network, features, prepared, config)['overall_accuracy']:.1f} %")


if __name__ == "__main__":
    main()
