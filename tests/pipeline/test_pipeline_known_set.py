"""A known data set by name through the stages, from another working directory than the one it was named in."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bdgf_fast.cli import main

pytest.importorskip("rasterio")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "data"))
from known_files import H, W, listed, save_mat, small_scene  # noqa: E402


def test_known_set_by_name_through_all_stages(tmp_path, tiny, monkeypatch):
    bands, truth, train, test = small_scene("trento")
    folder = tmp_path / "files"
    folder.mkdir()
    for role, array in (("hsi", bands["hsi"]), ("lidar", bands["lidar"]), ("gt", truth)):
        save_mat(folder / f"trento_{role}.mat", {f"trento_{role}": array})
    save_mat(folder / "trento_index.mat", {"trento_train": listed(train, 1), "trento_test": listed(test, 1)})
    monkeypatch.chdir(tmp_path)
    assert main(["pretrain", "trento:files", "--out", "run", "--quiet", *tiny]) == 0
    out = tmp_path / "run"
    assert json.loads((out / "config.json").read_text())["scene"] == f"trento:{folder.resolve()}"
    monkeypatch.chdir(tmp_path.parent)
    for command in ("train", "evaluate"):
        assert main([command, str(out), "--quiet", "--threads", "1"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert list(report["per_class"]) == ["Apple trees", "Buildings", "Ground", "Woods", "Vineyard", "Roads"]
    assert report["test_pixels"] == int((test > 0).sum()) and report["train_pixels"] == int((train > 0).sum())
    assert np.array(report["confusion_matrix"]).sum() == (test > 0).sum() < H * W
