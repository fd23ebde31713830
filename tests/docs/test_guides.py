"""The guides' scenes can be made and checked as the guides say, and the check prints what they quote."""

import re
import runpy
from pathlib import Path

import pytest

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
