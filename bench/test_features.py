"""Diffusion features of every pixel: dense (tiles of the scene, patches cut from their maps) against each patch through the U-Net.

Both are what stage 2 runs at the default configuration; the weights do not matter for time and are not trained. Gate: a tile of
another size gives the same dense features. End to end the network comes on top, which is the same for both.
"""

import numpy as np
import pytest
import torch
from race import race, report

from bdgf_fast.config import Config
from bdgf_fast.data import PreparedScene, make_split, prepare
from bdgf_fast.data.synthetic import synthetic_scene
from bdgf_fast.diffusion import DiffusionFeatures
from bdgf_fast.diffusion.denoiser import Denoiser
from bdgf_fast.models import GroupNetwork
from bdgf_fast.training.predict import predict_pixels

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
    dense, patch = (features(prepared, config.override(f"features.mode={mode}")) for mode in ("dense", "patch"))
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

    def __init__(self, block):
        self._block = block

    def block(self, y0, x0, h, w, size):
        return self._block


def test_a_pixel_end_to_end(benchmark):
    scene, config = synthetic_scene(0, (SIDE + 80, SIDE + 80)), Config()
    prepared, size = prepare(scene, make_split(scene, patch=config.data.patch, seed=0)), config.data.patch
    dense, patch = (features(prepared, config.override(f"features.mode={mode}")) for mode in ("dense", "patch"))
    network = GroupNetwork(prepared.groups, dense.channels, len(prepared.classes), config.model).eval()
    at = torch.cartesian_prod(torch.arange(40, 40 + SIDE), torch.arange(40, 40 + SIDE))[:: SIDE**2 // PATCHES]
    kept = Kept(dense.block(40, 40, SIDE, SIDE, size))
    wide = config.override("predict.block=512")  # one block holds all of them
    torch.testing.assert_close(
        predict_pixels(network, kept, prepared, wide, at[:8]).probabilities,
        predict_pixels(network, dense, prepared, wide, at[:8]).probabilities,
        rtol=0, atol=1e-4,
    )  # fmt: skip
    short = wide.override("predict.precision=bfloat16")
    torch.testing.assert_close(
        predict_pixels(network, kept, prepared, short, at).probabilities,
        predict_pixels(network, kept, prepared, wide, at).probabilities,
        rtol=0, atol=3e-2,
    )  # fmt: skip
    best = race({
        "features": lambda: dense.block(40, 40, SIDE, SIDE, size),
        "network": lambda: predict_pixels(network, kept, prepared, wide, at),
        "bfloat16": lambda: predict_pixels(network, kept, prepared, short, at),
        "patch mode": lambda: predict_pixels(network, patch, prepared, wide, at),
    }, rounds=3)  # fmt: skip
    pixel = {"ours": best["features"] / SIDE**2 + best["network"] / len(at), "patch mode": best["patch mode"] / len(at)}
    float32, bfloat16 = (1e3 * best[name] / len(at) for name in ("network", "bfloat16"))
    report(benchmark, "diffusion features and network of a pixel", pixel, network_float32=float32, network_bfloat16=bfloat16)
