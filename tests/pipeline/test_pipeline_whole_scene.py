"""Prediction of whole scenes: bounded memory, a kill in the middle, strides, and several processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from bdgf_fast.cli import main
from bdgf_fast.config import Config
from bdgf_fast.errors import UserError
from bdgf_fast.network.whole_scene import GDAL_SHARE, fit_to_memory, parse_bytes
from bdgf_fast.pipeline import run as pipeline_run


@pytest.fixture(scope="module")
def finished(scene_file, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    settings = [*tiny, "--set", "predict.block=16"]
    assert main(["run", str(scene_file), "--out", str(out), "--quiet", "--baselines", "none", *settings]) == 0
    return out


@pytest.fixture(scope="module")
def over_patches(scene_file, tiny, tmp_path_factory):
    """A stride is for networks over patches."""
    out = tmp_path_factory.mktemp("patches") / "run"
    settings = [*tiny, "--set", "model.mode=patch", "--set", "train.epochs=1"]
    assert main(["run", str(scene_file), "--out", str(out), "--quiet", "--baselines", "none", *settings]) == 0
    return out


def read(path):
    with rasterio.open(path) as data:
        return data.read()


def test_a_killed_prediction_goes_on(finished, tmp_path):
    out = tmp_path / "map"
    command = [sys.executable, "-m", "bdgf_fast", "predict", str(finished), "--out", str(out), "--quiet", "--threads", "1"]
    process = subprocess.Popen(command, cwd=tmp_path)
    deadline = time.time() + 120
    while len(list(out.glob("blocks/[0-9]*.npz"))) < 3 and time.time() < deadline and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob("blocks/[0-9]*.npz")}
    assert len(kept) >= 3 and not (out / "map.tif").exists()
    written = []
    from bdgf_fast.network import whole_scene

    save = whole_scene.Blocks.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_scene.Blocks, "save", lambda self, *a: (written.append(self.path(*a[:2]).name), save(self, *a)))
        assert main(command[3:]) == 0
    assert not set(written) & set(kept) and len(written) + len(kept) == 16
    np.testing.assert_allclose(read(out / "probabilities.tif"), read(finished / "probabilities.tif"), atol=1e-5)
    assert not (out / "blocks").exists()


def test_blocks_of_other_settings_are_not_taken(finished, tmp_path):
    blocks = tmp_path / "blocks"
    blocks.mkdir()
    np.savez(blocks / "0-0.npz", probabilities=np.zeros((1, 1, 1)))
    (blocks / "mine.txt").write_text("a person's own file")
    assert main(["predict", str(finished), "--out", str(tmp_path), "--quiet"]) == 0
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), read(finished / "map.tif"))
    assert [path.name for path in blocks.iterdir()] == ["mine.txt"]


def test_stride_interpolates_between_classified_pixels(over_patches, tmp_path):
    assert main(["predict", str(over_patches), "--out", str(tmp_path), "--quiet", "--stride", "5"]) == 0
    whole, coarse = read(over_patches / "probabilities.tif"), read(tmp_path / "probabilities.tif")
    np.testing.assert_allclose(coarse[:, ::5, ::5], whole[:, ::5, ::5], atol=1e-4)
    np.testing.assert_allclose(coarse.sum(0), 1, atol=1e-5)
    between = 0.6 * whole[:, 5, 10] + 0.4 * whole[:, 10, 10]
    np.testing.assert_allclose(coarse[:, 7, 10], between, atol=1e-4)
    np.testing.assert_allclose(coarse[:, 63, 63], whole[:, 60, 60], atol=1e-4)  # beyond the last classified row and column


def test_bfloat16_gives_nearly_the_same_map(finished, tmp_path):
    assert main(["predict", str(finished), "--out", str(tmp_path), "--quiet", "--precision", "bfloat16"]) == 0
    whole, short = read(finished / "probabilities.tif"), read(tmp_path / "probabilities.tif")
    # a statistic that rounding takes over a tree's threshold is another leaf: single pixels move further, and the fitted
    # temperature sharpens what they move by
    assert np.mean(np.abs(short - whole) > 3e-2) < 5e-2 and np.abs(short - whole).max() < 0.3
    assert np.mean(short.argmax(0) != whole.argmax(0)) < 0.03
    assert (short != whole).any()


def test_two_processes_share_a_run(scene_file, finished, tiny, tmp_path):
    out = tmp_path / "ranks"
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", "localhost:0", "-m", "bdgf_fast", "run", str(scene_file), "--out", str(out), "--baselines", "none",
        "--quiet", "--device", "cpu", *tiny, "--set", "predict.block=16",
    ]  # fmt: skip
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    one, two = (json.loads((path / "report.json").read_text()) for path in (finished, out))
    for name, facts in one["modalities"].items():
        assert two["modalities"][name]["loss"] == pytest.approx(facts["loss"], rel=1e-3)
    histories = [json.loads((path / "history.json").read_text())["train"]["curves"]["series"] for path in (finished, out)]
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, rel=5e-3, abs=1e-5)
    np.testing.assert_allclose(read(out / "probabilities.tif"), read(finished / "probabilities.tif"), atol=2e-2)


def test_a_refined_map_and_whose_figures_are_reported(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    assert main(["predict", str(run), "--quiet", "--refine", "2"]) == 0
    found, plain = read(run / "probabilities.tif"), read(finished / "probabilities.tif")
    np.testing.assert_allclose(found.sum(0), plain.sum(0), atol=1e-5)
    assert np.nanmax(np.abs(found - plain)) > 0.01
    # the run's own setting is 0 rounds: its figures stay, and the page says that they are not the map's
    assert main(["evaluate", str(run), "--quiet"]) == 0
    before, after = (json.loads((path / "report.json").read_text()) for path in (finished, run))
    assert after["overall_accuracy"] == before["overall_accuracy"]
    page = " ".join((run / "report.html").read_text().split())
    assert "averaged over similar pixels nearby, in 2 rounds. The figures on this page are of test pixels without that." in page
    # where it is the run's setting the figures are the map's, also where they are predicted anew
    settings = json.loads((run / "config.json").read_text())
    settings["config"]["predict"]["refine"] = 2
    (run / "config.json").write_text(json.dumps(settings))
    assert main(["evaluate", str(run), "--quiet"]) == 0
    with np.load(run / "split.npz") as split:
        rows, columns = split["test"][:, :2].T
    report = json.loads((run / "report.json").read_text())
    best = found[:, rows, columns].argmax(0)
    matrix = np.array(report["confusion_matrix"])
    assert matrix.sum(0).tolist() == np.bincount(best, minlength=len(matrix)).tolist()
    assert "The figures on this page" not in (run / "report.html").read_text()
    capsys.readouterr()
    assert main(["predict", str(run), "--quiet", "--refine", "-1"]) == 2
    assert "predict.refine" in capsys.readouterr().err


def test_less_memory_first_cuts_the_batch_then_the_block():
    def chosen(budget, stride=1, mode="patch"):
        prepared = SimpleNamespace(cache_bytes=2**31, height=4000, width=4000, channels=32, classes=[None] * 7)
        config = Config().override(f"model.mode={mode}", "model.twins=true")
        config = fit_to_memory(parse_bytes(budget), prepared, config, (48, 48, 48), stride)
        assert prepared.cache_bytes < parse_bytes(budget) / 8
        return config.predict

    roomy, tight = chosen("8GiB"), chosen("2GiB")
    assert (roomy.block, roomy.batch) == (512, Config().predict.batch)
    assert tight.block == 256 and 64 <= tight.batch < roomy.batch
    assert chosen("2GiB", 32).block == 256 and chosen("1.5GiB").block == 128
    assert chosen("8GiB", mode="dense").block == 512 and chosen("1.2GiB", mode="dense").block < 256
    for mode in ("patch", "dense"):
        with pytest.raises(UserError, match="--memory 0.50 GiB is too small for one block of 16 pixels"):
            chosen("512MiB", mode=mode)


def test_the_picture_is_drawn_within_the_memory_too(finished, scene_file, tmp_path, monkeypatch):
    """It reads the scene again, and GDAL's cache would otherwise take its own share of the machine."""
    seen = []
    monkeypatch.setattr(pipeline_run, "write_png", lambda *_, **__: seen.append(rasterio.env.getenv().get("GDAL_CACHEMAX")))
    command = ["predict", str(finished), "--scene", str(scene_file), "--out", str(tmp_path / "maps"), "--quiet", "--memory", "4GiB"]
    assert main(command) == 0
    assert seen == [(4 << 30) // GDAL_SHARE]


def test_a_large_scene_stays_within_its_memory(over_patches, scene_file, tmp_path):
    """Reduced: 1,200 x 1,200 pixels, whose map and bands would not fit what is left of the budget were they held whole."""
    side, rng = 1200, np.random.default_rng(0)
    text = scene_file.read_text().split("[labels]")[0].split("[split]")[0]
    for source in scene_file.parent.glob("*.tif"):
        with rasterio.open(source) as data:
            count = data.count
        if source.name not in text:
            continue
        with rasterio.open(tmp_path / source.name, "w", driver="GTiff", height=side, width=side, count=count, dtype="float32",
                           tiled=True, transform=from_origin(0, 0, 1, 1), crs="EPSG:32718") as data:  # fmt: skip
            for band in range(1, count + 1):
                data.write(rng.normal(size=(side, side)).astype(np.float32), band)
    (tmp_path / "large.toml").write_text(text)
    program = (
        "import sys; from bdgf_fast.cli import main; code = main(sys.argv[1:]);"
        "print(code, 1024 * int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0]))"
    )
    arguments = ["predict", str(over_patches), "--scene", str(tmp_path / "large.toml"), "--out", str(tmp_path / "out"), "--quiet",
                 "--stride", "32", "--memory", "900MiB"]  # fmt: skip
    found = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300)
    code, peak = found.stdout.split()[-2:]
    assert code == "0", found.stderr
    assert int(peak) < 900 * 2**20
    assert read(tmp_path / "out" / "map.tif").shape == (1, side, side)
