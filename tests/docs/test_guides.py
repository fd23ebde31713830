"""The guides' scenes can be made and checked as the guides say, and the check prints what they quote."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from bdgf_fast.cli import main
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


def test_many_scenes(folder, capsys):
    """Every step of the guide, in its order: a program, the settings, the commands and what they print, the programs after them."""
    pytest.importorskip("rasterio")
    text = (GUIDES / "many_scenes.md").read_text(encoding="utf-8")
    write, look, python = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    exec(compile(write, "many_scenes.md", "exec"), {"__name__": "guide"})
    Path("quick.toml").write_text(TOML.findall(text)[0], encoding="utf-8")
    Path("scenes/list.txt").write_text(re.search(r"^```text\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1], encoding="utf-8")
    for command, output in SESSION.findall(text):
        status = main([*command.split()[1:], "--quiet", "--threads", "1"])
        said = capsys.readouterr()
        assert status == ("not mapped" in output), said.err
        for line in output.splitlines():
            assert any(re.fullmatch(".*".join(map(re.escape, line.split("…"))), own) for own in (said.out + said.err).splitlines())
    states = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[:2] for line in states] == [
        ["west", "done"], ["east", "done"], ["north_east", "done"], ["south", "failed"]
    ]  # fmt: skip
    exec(compile(python, "many_scenes.md", "exec"), {"__name__": "guide"})
    assert "(96, 64) [" in capsys.readouterr().out
