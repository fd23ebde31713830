"""The benchmarks that train on several splits of a scene, on a small scene with brief settings."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from bdgf_fast.config import Config
from bdgf_fast.data import SplitSpec, synthetic_scene, write_scene

BRIEF = ("pretrain.steps=2", "pretrain.widths=[8,8]", "pretrain.crop=16", "features.levels=1", "model.branches=[cnn]",
         "model.width=16", "model.trees=4", "train.epochs=1", "train.crop=32", "train.checkpoint_every=1")  # fmt: skip


@pytest.fixture
def bench(monkeypatch):
    """bench(name): a module of the folder ``bench``."""
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "bench"))
    yield importlib.import_module
    for name in ("splits", "areas"):
        sys.modules.pop(name, None)


def test_a_split_is_trained_once_and_its_result_is_kept(bench, monkeypatch, tmp_path, capsys):
    split = SplitSpec(kind="blocks", block=8, train_fraction=0.5, per_class=20)
    scene = write_scene(synthetic_scene(0, (64, 64), bands=4, split=split), tmp_path / "scene")
    monkeypatch.setattr(bench("splits"), "default_config", lambda: Config().override(*BRIEF))
    splits, areas = bench("splits"), bench("areas")
    kept, out = tmp_path / "kept", tmp_path / "areas.json"
    monkeypatch.setattr(sys, "argv", ["areas.py", str(scene), str(kept), "--splits", "3", "--out", str(out)])
    splits.gather(areas.__doc__, "areas", areas.one_split, settings={"threads": 1})
    result = json.loads(out.read_text())
    assert list(result) == ["settings", "splits"] and list(result["splits"]) == ["3"]
    assert {"areas-3.json", "denoiser-3.safetensors", "network-3.safetensors"} <= {path.name for path in kept.iterdir()}
    found = result["splits"]["3"]
    assert all(sum(found["shares"][name].values()) == pytest.approx(1) for name in ("true", "counted"))
    assert set(found["seconds"]) == {"train", "calibrate"}
    capsys.readouterr()

    def never(*args):
        raise AssertionError("the split is kept")

    splits.gather(areas.__doc__, "areas", never, settings={"threads": 1})
    assert json.loads(out.read_text()) == result and capsys.readouterr().out == ""
