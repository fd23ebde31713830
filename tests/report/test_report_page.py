"""The page people look at: one file with all its pictures; baselines, TensorBoard, and another model's features."""

import builtins
import json
import re
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bdgf_fast.baselines import FORESTS, GUIDED_FOREST
from bdgf_fast.cli import main
from bdgf_fast.report.figure import RIGHT, UNLABELLED, WRONG, _errors


@pytest.fixture(scope="module")
def finished(scene_file, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("reports") / "run"
    arguments = ["run", str(scene_file), "--out", str(out), "--quiet", "--baselines", "all", *tiny]
    assert main([*arguments, *(["--tensorboard"] if _tensorboard() else [])]) == 0
    return out


def _tensorboard():
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None


def test_the_page_holds_its_pictures(finished):
    page = (finished / "report.html").read_text()
    sources = re.findall(r'src="([^"]{0,40})', page)
    assert len(sources) == 6 and all(s.startswith("data:image/png;base64,") for s in sources)
    assert "http://" not in page and "https://" not in page
    for name in ("map", "losses", "mask_rates", "confusion", "tsne", "reliability"):
        image = plt.imread(finished / f"{name}.png")
        assert min(image.shape[:2]) > 200 and image[..., :3].std() > 0.01
    for word in ("loss", "t-SNE", "hidden R²", "channel exchange", "dual-branch denoiser"):
        assert word.lower() in page.lower()


def test_every_baseline_is_a_row(finished):
    report = json.loads((finished / "report.json").read_text())
    assert list(report["baselines"]) == [
        *FORESTS, GUIDED_FOREST, "residual CNN", "BDGF, spectral alone", "BDGF, sar alone",
        "BDGF, surface alone", "channel exchange", "dual-branch denoiser",
    ]  # fmt: skip
    for row in report["baselines"].values():
        assert 0 < row["overall_accuracy"] <= 1 and set(row) == {"overall_accuracy", "average_accuracy", "kappa"}


def test_the_error_map_shows_scored_pixels_only():
    labels = np.array([[0, 1, -1], [1, 1, 0]])
    predicted = np.array([[0, 0, 0], [1, 0, 0]])
    scored = np.array([[True, True, True], [False, True, True]])
    expected = np.array([[RIGHT, WRONG, UNLABELLED], [UNLABELLED, WRONG, RIGHT]], np.uint8)
    np.testing.assert_array_equal(_errors(labels, predicted, scored), expected)


def test_the_embedding_has_every_branch(finished):
    with np.load(finished / "checkpoints" / "tsne.npz") as data:
        branches = {"cnn", "mamba", "transformer"}
        assert set(data.files) == {"truth", "fusion"} | branches
        assert all(data[name].shape == (40, 2) and np.isfinite(data[name]).all() for name in data.files if name != "truth")


@pytest.mark.skipif(not _tensorboard(), reason="the package tensorboard is not installed (an extra)")
def test_tensorboard_reads_the_logs(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    names = {"pretrain/loss/sar", "pretrain/mask rate/sar", "pretrain/step/loss", "train/step/loss", "train/loss/ce"}
    assert names <= set(tags["scalars"])
    assert {"map", "losses", "mask_rates", "confusion", "tsne", "reliability"} <= set(tags["images"])
    report = json.loads((finished / "report.json").read_text())
    assert events.Scalars("result/overall_accuracy")[0].value == pytest.approx(report["overall_accuracy"])
    assert [e.step for e in events.Scalars("pretrain/step/loss")] == [1, 2, 3, 4, 5, 6]


def test_without_tensorboard_one_sentence(scene_file, tiny, tmp_path, capsys, monkeypatch):
    original = builtins.__import__

    def missing(name, globals=None, locals=None, fromlist=(), level=0):
        if level == 0 and name.startswith(("tensorboard", "torch.utils.tensorboard")):
            raise ImportError(name)
        return original(name, globals, locals, fromlist, level)

    for name in [n for n in sys.modules if n.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["run", str(scene_file), "--out", str(tmp_path / "run"), "--quiet", "--tensorboard", *tiny]) == 2
    assert "--tensorboard needs the package tensorboard: pip install tensorboard" in capsys.readouterr().err


def test_maps_of_another_model_guide_a_whole_run(scene_file, tiny, tmp_path, capsys):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "maps.npy", rng.normal(size=(5, 64, 64)).astype(np.float32))
    out = tmp_path / "run"
    arguments = ["run", str(scene_file), "--out", str(out), "--quiet", "--baselines", "none", *tiny]
    assert main([*arguments, "--features", str(tmp_path / "maps.npy")]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["features"] == [str(tmp_path / "maps.npy")] and report["modalities"] == {}
    assert not (out / "checkpoints" / "denoiser.safetensors").exists()
    assert "maps.npy" in (out / "report.html").read_text()
    first = report["confusion_matrix"]
    assert main(["evaluate", str(out), "--quiet", "--threads", "1"]) == 0
    assert json.loads((out / "report.json").read_text())["confusion_matrix"] == first
    again = ["predict", str(out), "--scene", str(scene_file), "--quiet", "--threads", "1", "--out", str(tmp_path / "map")]
    assert main([*again, "--features", str(tmp_path / "maps.npy")]) == 0
    np.testing.assert_array_equal(plt.imread(tmp_path / "map" / "map.tif"), plt.imread(out / "map.tif"))
    np.save(tmp_path / "small.npy", np.zeros((5, 60, 64), np.float32))
    assert main([*arguments[:3], str(tmp_path / "other"), *arguments[4:], "--features", str(tmp_path / "small.npy")]) == 2
    assert "small.npy" in capsys.readouterr().err
