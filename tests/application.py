"""A scene on disk and settings so small that a whole run takes seconds."""

import pytest

from bdgf_fast.data import SplitSpec, synthetic_scene, write_scene

TINY = [
    "pretrain.steps=6", "pretrain.batch=2", "pretrain.crop=16", "pretrain.widths=[8,8]", "pretrain.checkpoint_every=2",
    "pretrain.evaluate_every=6", "features.timesteps=[10,300]", "features.levels=2", "features.channels=8",
    "model.width=16", "model.state=2", "model.stages=2", "train.epochs=2", "train.checkpoint_every=1", "data.patch=7",
]


@pytest.fixture(scope="session")
def scene_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    spec = SplitSpec(kind="blocks", block=8, train_fraction=0.4, per_class=12)
    return write_scene(synthetic_scene(seed=1, size=(64, 64), bands=6, split=spec), folder)


@pytest.fixture(scope="session")
def tiny():
    return [word for setting in TINY for word in ("--set", setting)] + ["--threads", "1"]


@pytest.fixture(scope="session", autouse=True)
def few_pixels_for_the_eye():
    """The t-SNE of a report takes seconds at its usual size."""
    from bdgf_fast.report import embedding

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "PIXELS", 40)
        yield
