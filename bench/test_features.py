"""What a pixel costs: its features, dense (tiles of the scene) against each patch through the U-Net, and the network behind them,
dense against one over patches.

Weights do not matter for time and are not trained. Gates: a tile of another size gives the same features, and blocks of another
size the same probabilities.
"""

import numpy as np
import pytest
import torch
from race import race, report

from bdgf_fast.config import Config
from bdgf_fast.data import PreparedScene, make_split, prepare
from bdgf_fast.data.synthetic import synthetic_scene
from bdgf_fast.diffusion.denoiser import Denoiser
from bdgf_fast.features.dense import DiffusionFeatures
from bdgf_fast.features.source import windows
from bdgf_fast.network.predict import predict_pixels
from bdgf_fast.network.statistics import fit_context, statistics_at
from bdgf_fast.network.stored_maps import StoredMaps
from bdgf_fast.network.train import make_network

SIDE, PATCHES = 256, 512


def features(prepared: PreparedScene, config: Config) -> DiffusionFeatures:
    torch.manual_seed(0)
    denoiser = Denoiser.create(prepared.groups, prepared.modality_names, config.pretrain)
    denoiser.unet.eval().requires_grad_(False)
    return DiffusionFeatures.fit(denoiser, prepared, config, 0, np.ones((prepared.height, prepared.width), bool))


@pytest.mark.parametrize("core", [128, 256])
def test_a_pixel_of_the_dense_mode(benchmark, core):
    scene, config = synthetic_scene(0, (SIDE + 80, SIDE + 80)), Config()
    prepared = prepare(scene, make_split(scene, patch=config.data.patch, seed=0))
    dense, patch = (features(prepared, config.override(f"features.mode={m}", f"model.mode={m}")) for m in ("dense", "patch"))
    torch.testing.assert_close(dense.tile(40, 40, 64, 64), [m[:, :64, :64] for m in dense.tile(40, 40, 100, 96)], rtol=0, atol=1e-5)
    at = torch.cartesian_prod(torch.arange(40, 40 + SIDE), torch.arange(40, 40 + SIDE))[:: SIDE**2 // PATCHES]
    corners = [(y, x) for y in range(40, 40 + SIDE, core) for x in range(40, 40 + SIDE, core)]
    sides = core + config.data.patch - 1
    best = race({
        "ours": lambda: [dense.tile(y - 5, x - 5, sides, sides) for y, x in corners],
        "patch mode": lambda: patch.patches(at, config.data.patch),
    }, rounds=3)  # fmt: skip
    best = {"ours": best["ours"] / SIDE**2, "patch mode": best["patch mode"] / len(at)}
    report(benchmark, f"diffusion features of a pixel, tiles of {core}", best, wanted=50.0)


class Kept:
    """A feature source whose maps are there already: what is left is the network."""

    def __init__(self, dense: DiffusionFeatures, prepared: PreparedScene):
        self.channels = dense.channels
        self.maps = StoredMaps(dense.tile, prepared.height, prepared.width, 512, 2**30)
        self.tile = self.maps.window
        self.tile(0, 0, prepared.height, prepared.width)

    def block(self, y0, x0, h, w, size):
        before = size // 2
        maps = self.tile(y0 - before, x0 - before, h + size - 1, w + size - 1)
        return lambda rc: [windows(m, rc - torch.tensor([y0, x0]), size) for m in maps]


def test_a_pixel_end_to_end(benchmark):
    scene, config = synthetic_scene(0, (SIDE, SIDE)), Config()
    prepared = prepare(scene, make_split(scene, patch=config.data.patch, seed=0))
    dense = features(prepared, config)
    over_patches = config.override("model.mode=patch")
    kept, train = Kept(dense, prepared), prepared.split.train
    network, patch_network = (make_network(prepared, dense, c, 0).eval() for c in (config, over_patches))
    fit_context(network.context, prepared, config)
    rows = statistics_at(prepared, kept.tile, config.model, train, SIDE, network.context)
    network.fit(rows[None], prepared.labels[train[:, 0], train[:, 1]], 0)
    every = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
    some = every[:: SIDE**2 // PATCHES]
    small, short = config.override("predict.block=64"), config.override("predict.precision=bfloat16")
    exact = predict_pixels(network, kept, prepared, config, some).probabilities
    torch.testing.assert_close(predict_pixels(network, dense, prepared, small, some).probabilities, exact, rtol=0, atol=1e-4)
    torch.testing.assert_close(predict_pixels(network, kept, prepared, short, some).probabilities, exact, rtol=0, atol=5e-2)
    best = race({
        "features": lambda: dense.tile(0, 0, SIDE, SIDE),
        "network": lambda: predict_pixels(network, kept, prepared, config, every),
        "bfloat16": lambda: predict_pixels(network, kept, prepared, short, every),
        "patch network": lambda: predict_pixels(patch_network, kept, prepared, over_patches, some),
    }, rounds=3)  # fmt: skip
    count = {"features": SIDE**2, "network": SIDE**2, "bfloat16": SIDE**2, "patch network": len(some)}
    pixel = {name: best[name] / count[name] for name in best}
    report(
        benchmark, "diffusion features and network of a pixel",
        {"ours": pixel["features"] + pixel["network"], "network over patches": pixel["features"] + pixel["patch network"]},
        features_ms=1e3 * pixel["features"], network_float32=1e3 * pixel["network"], network_bfloat16=1e3 * pixel["bfloat16"],
    )  # fmt: skip
