"""The site builds without a warning, and its figures are those of the benchmark's file."""

import importlib.util
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/_build/hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for module in ("mkdocs", "material", "mkdocstrings_handlers", "mkdocs_jupyter", "latex2mathml"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed (make docs installs it)")
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_pages_and_figures(site, hooks):
    page = (site / "operations/selective_scan/index.html").read_text(encoding="utf-8")
    assert "<math" in page and "BDGFFORMULA" not in page and "<!-- measured" not in page and "On the built site" not in page
    table = hooks.measured(["selective_scan"], json.loads(hooks.RESULTS.read_text()))
    first = next(row for row in table.splitlines() if "fwd (" in row)
    assert all(cell.strip() in unescape(page) for cell in first.strip("|").split("|"))


def test_a_reader_of_the_plain_file_is_told_where_the_table_is(hooks):
    """A marker alone is invisible where Markdown is shown without the hooks."""
    marked = [path for path in (ROOT / "docs").rglob("*.md") if path.name != "adding_an_operation.md"
              and re.search(r"^<!-- (measured: .+|known sets) -->$", path.read_text(encoding="utf-8"), re.MULTILINE)]  # fmt: skip
    assert len(marked) >= 14
    for path in marked:
        left = hooks._KNOWN.sub("", hooks._MEASURED.sub("", path.read_text(encoding="utf-8")))
        assert "<!--" not in left, f"{path}: a table's marker needs a sentence for readers of the plain file, and <!-- end -->"


def test_reference_holds_every_operation(site):
    from bdgf_fast import ops

    page = (site / "api/ops/index.html").read_text(encoding="utf-8")
    assert all(f".{name}\"" in page for name in ops.__all__)


def test_figures_follow_the_file(hooks):
    data = {
        "datetime": "2030-01-02T03:04:05",
        "machine_info": {"cpu": {"count": 3, "brand_raw": "Abacus"}, "bdgf": {"limits": {}, "disturbed": True}},
        "benchmarks": [
            {"group": "foo fwd (1, 2)", "extra_info": {"who": who}, "stats": {"min": seconds, "median": seconds}}
            for who, seconds in (("ours", 0.001), ("plain", 0.004))
        ],
    }
    table = hooks.measured(["foo"], data)
    assert "| foo fwd (1, 2) | 1.00 | plain | 4.00 | 4.0x | - |" in table
    assert "3 cores of Abacus, 2030-01-02" in table and "disturbed" in table
    assert "holds no row" in hooks.measured(["bar"], data)
