"""Imports go one way: no module leads back to itself, and no folder imports from one above it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "bdgf_fast"
# From the lowest to the highest: what stands in a line imports from the lines before it alone.
LAYERS = [
    ("errors", "_native", "_vml"),
    ("reference",),
    ("backends",),
    ("ops",),
    ("nn",),
    ("compat",),
    ("common",),
    ("validation",),
    ("config",),
    ("files",),
    ("data",),
    ("diffusion",),
    ("features",),
    ("network",),
    ("baselines", "report"),
    ("pipeline",),
    ("studies",),
    ("benchmark",),
    ("cli",),
    ("__main__",),
]
HEIGHT = {unit: height for height, units in enumerate(LAYERS) for unit in units}


def modules() -> dict[str, Path]:
    """Every module of the package but the stand-ins, which take the place of other packages."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if "stand_ins" not in parts:
            found[".".join(part for part in parts if part != "__init__")] = path
    return found

def imported(name: str, path: Path, known: set[str]) -> dict[str, int]:
    """Modules of the package that a module imports, also within functions, with a line of each."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = [part for part in package[: len(package) - node.level + 1] if part]
            module = ".".join([*base, *([node.module] if node.module else [])])
        elif (node.module or "").partition(".")[0] == "bdgf_fast":
            module = (node.module or "").partition(".")[2]
        else:
            continue
        for alias in node.names:
            full = f"{module}.{alias.name}" if module else alias.name
            found.setdefault(full if full in known else module, node.lineno)
    return found

@pytest.fixture(scope="module")
def graph() -> dict[str, dict[str, int]]:
    paths = modules()
    return {name: imported(name, path, set(paths)) for name, path in paths.items() if name}

def test_no_circle(graph):
    done: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, f"circle of imports: {' -> '.join([*trail[trail.index(name):], name])}"
        if name not in done:
            for other in graph.get(name, {}):
                if other != name and not name.startswith(f"{other}."):  # a package is there before its modules
                    visit(other, [*trail, name])
            done.add(name)

    for name in graph:
        visit(name, [])

def test_every_arrow_runs_down(graph):
    backward = []
    for name, others in graph.items():
        unit = name.partition(".")[0]
        assert unit in HEIGHT, f"bdgf_fast/{unit} is not in the table of layers"
        for other, line in others.items():
            target = other.partition(".")[0]
            if target != unit and HEIGHT.get(target, -1) >= HEIGHT[unit]:
                backward.append(f"{name}, line {line}: {other}")
    assert not backward, "imports from a folder above or beside:\n" + "\n".join(backward)
