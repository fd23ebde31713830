"""A small scene with three related modalities, cheap enough to train on within a test."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bdgf_fast.config import Config
from bdgf_fast.data import SplitSpec, make_split, prepare, scene_from_arrays

CLASSES = {1: "low", 2: "middle", 3: "high"}


@dataclasses.dataclass
class Site:
    scene: object
    split: object
    prepared: object


def smooth(rng: np.random.Generator, size: int, width: int) -> np.ndarray:
    """A smooth random field in [-1, 1], made by averaging noise over width x width boxes."""
    field = rng.normal(size=(size + width, size + width)).cumsum(0).cumsum(1)
    box = field[width:, width:] - field[:-width, width:] - field[width:, :-width] + field[:-width, :-width]
    return box / np.abs(box).max()


@pytest.fixture(scope="session")
def site() -> Site:
    rng = np.random.default_rng(5)
    size = 65
    a, b = smooth(rng, size, 9), smooth(rng, size, 13)
    noise = rng.normal(size=(6, size, size)) * 0.05
    arrays = {
        "optical": np.stack([a, a + b, b]) + noise[:3],
        "radar": np.stack([a - b, 0.5 * a]) + noise[3:5],
        "height": (b + 0.3 * a)[None] + noise[5:],
    }
    arrays = {name: value.astype(np.float32) for name, value in arrays.items()}
    labels = 1 + np.digitize(a + b, np.quantile(a + b, [1 / 3, 2 / 3]))
    spec = SplitSpec(kind="blocks", block=8, train_fraction=0.4, per_class=20)
    scene = scene_from_arrays("small", arrays, labels, classes=CLASSES, split=spec)
    split = make_split(scene, 7, 0)
    return Site(scene, split, prepare(scene, split))


@pytest.fixture
def config() -> Config:
    """Small enough for seconds on the reference backend."""
    return Config().override(
        "data.patch=7",
        "pretrain.steps=8",
        "pretrain.batch=4",
        "pretrain.crop=16",
        "pretrain.widths=[8,12,16]",
        "pretrain.mask_every=2",
        "pretrain.checkpoint_every=4",
        "features.tile=32",
        "features.channels=8",
        "model.width=8",
        "model.state=2",
        "model.heads=2",
        "model.groups=2",
        "model.stages=2",
        "train.epochs=2",
        "train.batch=16",
        "train.checkpoint_every=1",
        "predict.block=16",
        "predict.batch=64",
    )
