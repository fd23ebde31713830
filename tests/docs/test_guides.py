"""The guides' scenes can be made and checked as the guides say, and the check prints what they quote."""

import csv
import json
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bdgf_fast.cli import main
from bdgf_fast.config import Config
from bdgf_fast.data import check

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs/guides"
TOML = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SESSION = re.compile(r"^```\n\$ (.+?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def scene_files(text: str) -> list[str]:
    return [block for block in TOML.findall(text) if "[[modality]]" in block]


def quoted(text: str, command: str) -> str:
    return next(output for line, output in SESSION.findall(text) if line == command).rstrip("\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_researchers_scene(folder):
    text = (GUIDES / "researcher.md").read_text(encoding="utf-8")
    program = re.search(r"^python - <<'END'\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)
    exec(compile(program[1], "researcher.md", "exec"), {"__name__": "guide"})
    Path("scene.toml").write_text(scene_files(text)[0], encoding="utf-8")
    assert check.check("scene.toml").text() == quoted(text, "bdgf-fast data check scene.toml")


def test_the_operators_scene(folder):
    for module in ("rasterio", "shapely", "pyogrio"):
        pytest.importorskip(module)
    text = (GUIDES / "operator.md").read_text(encoding="utf-8")
    runpy.run_path(str(ROOT / "examples/operator_files.py"), run_name="__main__")
    valley, neighbour = scene_files(text)
    Path("valley.toml").write_text(valley, encoding="utf-8")
    Path("next.toml").write_text(neighbour, encoding="utf-8")
    assert check.check("valley.toml").text() == quoted(text, "bdgf-fast data check valley.toml")
    assert check.check("next.toml").status() == 0


def test_the_guide_to_areas(folder):
    text = (GUIDES / "areas.md").read_text(encoding="utf-8")
    program = re.search(r"^python - <<'END'\n(.*?)^END$", text, re.MULTILINE | re.DOTALL)
    exec(compile(program[1], "areas.md", "exec"), {"__name__": "guide"})
    quick, priors = TOML.findall(text)
    Path("quick.toml").write_text(quick, encoding="utf-8")
    commands = re.findall(r"^bdgf-fast (.+)$", text, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert main([*shlex.split(command), "--quiet", "--threads", "1"]) == 0
    plain, smooth = (Path(place, "map.tif").read_bytes() for place in ("runs/areas", "smooth"))
    assert plain != smooth
    report = json.loads(Path("runs/areas/report.json").read_text(encoding="utf-8"))
    shares = Config().updated(tomllib.loads(priors)).predict.priors
    assert set(shares) == {entry["name"] for entry in report["classes"]}
    columns = {name for names in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", names)}
    with open("maps/areas.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert columns | {"code", "class"} == set(rows[0])
    assert {row["unit"] for row in rows} == {"ha"} and sum(int(row["pixels"]) for row in rows) == 96 * 96
    assert all(row["corrected"] and not row["error_matrix"] for row in rows)
    assert report["calibration"]["pixels"] > 50


def test_many_scenes(folder, capsys, caplog):
    """Every step of the guide, in its order: a program, the settings, the commands and what they print, the programs after them."""
    pytest.importorskip("rasterio")
    text = (GUIDES / "many_scenes.md").read_text(encoding="utf-8")
    write, look, python = re.findall(r"^```py(?:thon)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(compile(write, "many_scenes.md", "exec"), {"__name__": "guide"})
    Path("quick.toml").write_text(TOML.findall(text)[0], encoding="utf-8")
    Path("scenes/list.txt").write_text(re.search(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1], encoding="utf-8")
    for command, output in SESSION.findall(text):
        status = main([*command.split()[1:], "--quiet", "--threads", "1"])
        said = capsys.readouterr()
        assert status == ("not mapped" in output), said.err
        lines = [*said.out.splitlines(), *caplog.messages]
        for line in output.splitlines():
            assert any(re.fullmatch(".*".join(map(re.escape, line.split("…"))), own) for own in lines), (line, lines)
    states = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[:2] for line in states] == [
        ["west", "done"], ["east", "done"], ["north_east", "done"], ["south", "failed"]
    ]  # fmt: skip
    exec(compile(python, "many_scenes.md", "exec"), {"__name__": "guide"})
    assert "(96, 64) [" in capsys.readouterr().out


def test_elsewhere(folder, capsys):
    """The scenes, the settings, the command with the table it prints, and the program at the end."""
    pytest.importorskip("rasterio")
    text = (GUIDES / "elsewhere.md").read_text(encoding="utf-8")
    write, python = re.findall(r"^```py(?:thon)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(compile(write, "elsewhere.md", "exec"), {"__name__": "guide"})
    Path("quick.toml").write_text(TOML.findall(text)[0], encoding="utf-8")
    ((command, output),) = SESSION.findall(text)
    assert main([*command.split()[1:], "--quiet", "--threads", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    for line in output.splitlines():
        assert any(re.fullmatch(".*".join(map(re.escape, line.split("…"))), own) for own in said), line
    exec(compile(python, "elsewhere.md", "exec"), {"__name__": "guide"})
    assert "(64, 64)" in capsys.readouterr().out
