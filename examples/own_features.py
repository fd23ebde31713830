"""Features of another model guide the network, in place of the diffusion model's.

    python examples/own_features.py

Two ways. `ArrayFeatures` takes maps that are computed already: arrays in memory, .npy, GeoTIFF (on the command line:
`bdgf-fast run SCENE --out DIR --features maps.npy`). A class with `channels` and `tile` computes them
when they are asked for. Here the other model is a small frozen CNN with random filters; put your own in its place.
"""

import torch
from torch import nn

from bdgf_fast.config import Config
from bdgf_fast.data import make_split, prepare, synthetic_scene
from bdgf_fast.features import ArrayFeatures
from bdgf_fast.network import train
from bdgf_fast.report import evaluate

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
        self.mean, self.factor = torch.zeros(16, 1, 1), 1.0
        self.channels = (16,)  # one guide map
        whole = self.tile(0, 0, prepared.height, prepared.width)[0]
        at = whole[:, torch.from_numpy(prepared.split.train_region)]  # scaled by the training side alone, by one factor
        self.mean, self.factor = at.mean(1)[:, None, None], float(at.std(1).square().mean().sqrt())

    def tile(self, y0: int, x0: int, h: int, w: int) -> list[torch.Tensor]:
        r = self.reach
        window = self.prepared.window(y0 - r, x0 - r, h + 2 * r, w + 2 * r)  # mirrored outside the scene
        return [(self.model(window[None])[0] - self.mean) / self.factor]


def main() -> None:
    scene = synthetic_scene(size=(64, 64), bands=8)
    config = Config().override("data.patch=7", "model.width=16", "model.state=2", "model.branches=[cnn]", "train.crops=16",
                               "train.ema=0.9", "train.learning_rate=5e-3", "features.channels=8")  # fmt: skip
    prepared = prepare(scene, make_split(scene, patch=config.data.patch, seed=SEED))
    cnn = CnnFeatures(frozen_cnn(prepared.channels), prepared)
    maps = ArrayFeatures.fit(prepared, config, SEED, [cnn.tile(0, 0, scene.height, scene.width)[0].numpy()])
    for name, features in (("no guide", None), ("own class", cnn), ("precomputed maps", maps)):
        network, _ = train(prepared, features, config, seed=SEED)
        print(f"{name}: overall accuracy {100 * evaluate(network, features, prepared, config)['overall_accuracy']:.1f} %")


if __name__ == "__main__":
    main()
