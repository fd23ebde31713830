"""The command line towards its surroundings: closed pipes, narrow encodings, seeds, places that cannot be written, warnings."""

import io
import logging
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

from bdgf_fast import cli
from bdgf_fast.cli import main
from bdgf_fast.errors import DataWarning


def program(*arguments, **options):
    command = [sys.executable, "-m", "bdgf_fast", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def scene(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 60, 3)))
    np.save(tmp_path / "gt.npy", np.arange(60 * 60).reshape(60, 60) // 5 % 2 + 1)
    path = tmp_path / "scene.toml"
    path.write_text(
        '[[modality]]\nname = "x"\npath = "x.npy"\n[labels]\npath = "gt.npy"\nclasses = { 1 = "Wälder 森林", 2 = "b" }\n'
        "[split]\nblock = 5\nper_class = 9\n",
        encoding="utf-8",
    )
    return path


def test_a_reader_that_stops_is_no_internal_error():
    process = program("data", "list", "augsburg")
    process.stdout.close()  # like `| head -1`, before the first line
    assert process.stderr.read() == "" and process.wait() == 141


def test_names_beyond_the_terminal_s_encoding(scene):
    process = program("data", "check", scene, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    out, err = process.communicate()
    assert process.returncode == 0 and err == "" and r"W\xe4lder \u68ee\u6797 " in out


def test_signs_beyond_the_terminal_s_encoding_are_spelt_out(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with cli._speaking():
        print("OA 75.2 ± 2.8 %, 3 × 3, Wälder", flush=True)
    assert written.getvalue() == b"OA 75.2 +- 2.8 %, 3 x 3, W\\xe4lder\n"


def test_missing_packages_are_named_as_pip_calls_them(monkeypatch):
    from importlib import metadata

    from bdgf_fast.errors import missing_package

    lines = ["torch>=2.6", "scikit-learn>=1.5; extra == 'app'", 'nowhere-package>=1,<2; extra == "app"', "ruff; extra == 'docs'"]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    assert missing_package("sklearn.ensemble").endswith(": pip install scikit-learn nowhere-package")


@pytest.mark.parametrize(
    "arguments", [["run", "synthetic", "--seed", "-1"], ["demo", "--seed", str(2**32)], ["run", "synthetic", "--seeds", "0", "-3"]]
)
def test_seeds_out_of_range(arguments, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert "a seed is a whole number from 0 to 4294967295" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["predict .", "study synthetic", "run synthetic", "pretrain synthetic", "demo"])
def test_out_that_is_a_file_or_lies_below_one(command, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for out, said in ((file, "is a file; name a directory"), (file / "below", "which is a file; name a directory")):
        assert main([*command.split(), "--out", str(out)]) == 2
        assert said in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_out_that_may_not_be_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may write everywhere
    assert main(["study", "synthetic", "--out", str(tmp_path / "s")]) == 2
    assert "may not be written to; name another directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (PermissionError(13, "Permission denied", "/x/y"), 2, "error: /x/y: Permission denied"),
        (OSError(30, "Read-only file system", "/x"), 2, "error: /x: Read-only file system"),
        (MemoryError("5 GiB"), 2, "error: the memory is full"),
        (OSError(5, "Input/output error"), 1, "internal error: OSError"),
        (ValueError("no"), 1, "internal error: ValueError: no"),
    ],
)
def test_errors_of_paths_are_the_persons(error, status, said, monkeypatch, capsys):
    def fail(args):
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert main(["info"]) == status
    assert said in capsys.readouterr().err


def test_warnings_are_sentences(monkeypatch, caplog):
    def warn(args):
        warnings.warn("a.tif: 3 pixels hold nodata.", DataWarning, stacklevel=1)
        return 0

    before = warnings.formatwarning
    monkeypatch.setattr(cli, "_dispatch", warn)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "py.warnings"):
        warnings.simplefilter("always")
        assert main(["info"]) == 0
    assert [record.getMessage() for record in caplog.records] == ["warning: a.tif: 3 pixels hold nodata."]
    assert warnings.formatwarning is before


@pytest.mark.slow
def test_predict_says_that_a_scene_has_other_values(scene_file, tiny, tmp_path, capsys, caplog):
    """A scene with an offset is not classified as if nothing were wrong, and one whose bands are swapped is put right."""
    rasterio = pytest.importorskip("rasterio")
    out = tmp_path / "run"
    assert main(["pretrain", str(scene_file), "--out", str(out), "--quiet", *tiny]) == 0
    assert main(["train", str(out), "--quiet", "--threads", "1"]) == 0
    maps = {}
    for name in ("same", "offset", "swapped"):
        folder = tmp_path / name
        shutil.copytree(scene_file.parent, folder)
        with rasterio.open(folder / "sar.tif", "r+") as data:
            values = data.read()
            if name == "swapped":
                data.write(values[::-1])
                for i, text in enumerate(data.descriptions[::-1], 1):
                    data.set_band_description(i, text)
            elif name == "offset":
                data.offsets = (1000.0, 0.0)
        caplog.clear()
        with warnings.catch_warnings(), caplog.at_level(logging.WARNING, "py.warnings"):
            warnings.simplefilter("always", DataWarning)
            arguments = ["predict", str(out), "--scene", str(folder / "scene.toml"), "--out", str(folder / "map"), "--quiet"]
            assert main([*arguments, "--threads", "1"]) == 0
        said = " ".join(record.getMessage() for record in caplog.records)
        assert ("VV (100.0 % of the values clipped" in said) == (name == "offset")
        assert ("are in another order" in said) == (name == "swapped")
        with rasterio.open(folder / "map" / "probabilities.tif") as data:
            maps[name] = data.read()
    np.testing.assert_array_equal(maps["same"], maps["swapped"])
    assert not np.array_equal(maps["same"], maps["offset"])
