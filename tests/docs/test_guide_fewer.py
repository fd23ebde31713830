"""The commands of the guide on missing sensors, few labels and small networks run as it writes them, with less training."""

import re
import shlex
from pathlib import Path

import rasterio

from bdgf_fast.cli import main

PAGE = Path(__file__).resolve().parents[2] / "docs/guides/fewer.md"
SHORT = ["pretrain.steps=4", "pretrain.batch=2", "pretrain.widths=[8,8]", "features.levels=2", "features.timesteps=[10]",
         "features.channels=8", "model.width=16", "model.state=2", "model.trees=5", "train.epochs=1"]  # fmt: skip


def test_the_commands_of_the_guide(tmp_path, monkeypatch):
    text = PAGE.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    program = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code = program[1].replace("synthetic_scene(seed=", "synthetic_scene(size=(80, 80), seed=")
    exec(compile(code, "fewer.md", "exec"), {"__name__": "guide"})
    commands = re.findall(r"^\$ bdgf-fast (.+)$", text, re.MULTILINE)
    assert [line.split()[0] for line in commands] == ["run", "predict", "study", "distil"]
    for line in commands:
        words = shlex.split(line)
        if words[0] == "study":  # fewer cells of the same kind
            words = [word for word in words if word not in ("5", "guidance-off")]
        trained = [word for setting in SHORT for word in ("--set", setting)] if words[0] in ("run", "study") else []
        if words[0] == "distil":
            trained = ["--set", "train.epochs=1"]
        assert main([*words, *trained, "--quiet", "--threads", "1"]) == 0, line
    with rasterio.open("maps/no_radar/quality.tif") as data:
        assert set(data.read(1).ravel()) == {3} and data.tags(1)["CLASS_3"] == "without sar"
    assert Path("runs/labels/labels.png").exists() and Path("runs/small/map.tif").exists()
