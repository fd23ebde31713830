"""docs/adding_an_operation.md followed to the letter: a copy of the repository gets the operation of examples/new_operation on
every backend, is built, and runs the new operation's tests.

Only to save time, the other operations' kernels are then left out of what is compiled; every line that the page asks for is in
the copy before, at its place.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/adding_an_operation.md"
TEMPLATE = ROOT / "examples/new_operation"
FENCE = re.compile(r"^```\w+ title=(?P<mark>[\"'])(?P<title>[^\n]*)(?P=mark)\n(?P<lines>.*?)^```$", re.MULTILINE | re.DOTALL)
FILES = ["CMakeLists.txt", "CHANGELOG.md", "README.md", "mkdocs.yml", "pyproject.toml"]
FOLDERS = ["bdgf_fast", "bench", "csrc", "docs", "tests", "triton_kernels"]
STEM = "squareplus"

# The editable install's finder would answer for the package before the path does.
ONLY_THE_PATH = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if type(f).__name__ != 'ScikitBuildRedirectingFinder']\n"


def insertions() -> list[tuple[str, str, str, str]]:
    """(file, "above", "below" or "at the end", the line meant, the new lines) of every titled block of the page."""
    found = []
    for block in FENCE.finditer(PAGE.read_text(encoding="utf-8")):
        file, _, rest = block["title"].partition(", ")
        where, _, anchor = rest.partition(": ")
        assert where in ("above", "below", "at the end"), block["title"]
        found.append((file, where, anchor, block["lines"]))
    return found


def insert(path: Path, where: str, anchor: str, new: str) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if where == "at the end":
        at = len(lines)
    else:
        meant = [i for i, line in enumerate(lines) if anchor in line]
        assert len(meant) == 1, f"{path.name} has {len(meant)} lines with {anchor!r}"
        at = meant[0] + (where == "below")
    path.write_text("".join([*lines[:at], new, *lines[at:]]), encoding="utf-8")


def leave_out(path: Path, pattern: str, keep: str) -> None:
    """Drop what matches the pattern, but for what holds `keep`."""
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(pattern, lambda m: m[0] if re.search(keep, m[0]) else "", text, flags=re.MULTILINE), encoding="utf-8")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    settings = {**os.environ, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1", **environment}
    settings.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run([*map(str, command)], cwd=cwd, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def pytest_in(copy: Path, *arguments: str, **environment: str) -> None:
    out = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, cwd=copy, **environment)
    assert " passed" in out and "failed" not in out


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The repository with the page's files and lines."""
    copy = tmp_path_factory.mktemp("copy")
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "results", "pictures"))
    shutil.copytree(TEMPLATE, copy, dirs_exist_ok=True)
    for file, where, anchor, new in insertions():
        insert(copy / file, where, anchor, new)
    (copy / "bdgf_fast/triton_kernels").symlink_to("../triton_kernels")  # where a wheel has them
    (copy / "sitecustomize.py").write_text(ONLY_THE_PATH)
    return copy


@pytest.fixture(scope="module")
def built(copy) -> Path:
    """The copy with its extension."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} to build the extension with")
    pybind11 = pytest.importorskip("pybind11", reason="the extension is built with pybind11")
    leave_out(copy / "csrc/cpu/kernel_table.h", r"^  X\(\w+, \w+\) ?\\?\n", STEM)
    leave_out(copy / "csrc/cpu/isa/kernels.inc", r'^#include "cpu/\w+\.inc"\n', f"{STEM}|elementwise")
    leave_out(copy / "csrc/bindings.cpp", r"^  bind_\w+\(m\);\n", STEM)
    leave_out(copy / "CMakeLists.txt", r"\s+csrc/bindings_\w+\.cpp", STEM)
    leave_out(copy / "csrc/cpu/CMakeLists.txt", r" selective_scan_f64\.cpp", STEM)
    options = ["-DBDGF_CUDA=OFF", "-DCMAKE_BUILD_TYPE=Quick", "-DCMAKE_CXX_FLAGS=-O0", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    run("cmake", "-S", ".", "-B", "build", *options, f"-DPython_EXECUTABLE={sys.executable}", cwd=copy)
    run("cmake", "--build", "build", cwd=copy)
    (extension,) = (copy / "build").glob("_C.*")
    shutil.copy(extension, copy / "bdgf_fast")
    return copy


def test_the_page_names_every_file_of_the_template():
    text = PAGE.read_text(encoding="utf-8")
    files = {str(path.relative_to(TEMPLATE)) for path in TEMPLATE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    named = {name for name in re.findall(r"`([\w/.]+/\w+\.\w+)`", text) if STEM in name}
    assert named - {f"tests/emulated/cases_{STEM}.py"} == files


def test_every_line_has_its_place(copy):
    assert len(insertions()) >= 20
    for path in copy.rglob(f"*{STEM}*.py"):
        ast.parse(path.read_text(encoding="utf-8"))
    count = (copy / "bench/count.py").read_text(encoding="utf-8")
    ast.parse(count)
    assert STEM in count


@pytest.mark.slow
def test_on_the_cpu(built):
    pytest_in(built, f"tests/ops/test_{STEM}.py", f"tests/native/test_{STEM}.py")
    shown = run(sys.executable, "-c", f"import bdgf_fast; print(bdgf_fast.__file__, bdgf_fast.explain({STEM!r}))", cwd=built)
    assert str(built) in shown and "cpu" in shown


@pytest.mark.slow
def test_in_tritons_interpreter(copy):
    pytest.importorskip("triton", reason="needs triton (Linux only)")
    pytest_in(copy, f"tests/triton/interpreted/{STEM}.py", TRITON_INTERPRET="1")


@pytest.mark.slow
def test_on_emulated_cuda(copy):
    """The operation's tests on the CUDA kernel, as tests/emulated/test_kernels.py runs them."""
    leave_out(copy / "tests/emulated/module.cpp", r"^  bind_\w+\(m\);\n", STEM)
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, "tests/emulated")
        import emulated_build as build
        if build.compiler() is None: sys.exit("no compiler")
        chosen = [p for p in build.SOURCES if {STEM!r} in p.name or p.parent == build.HERE or p.name == "tensor_arg.cpp"]
        from pathlib import Path
        folder = Path("build/emulated"); folder.mkdir(parents=True, exist_ok=True)
        print(build.build(folder.resolve(), sources=chosen), " ".join(build.sanitizer_libraries()), sep="\\n")
    """)
    folder, libraries = run(sys.executable, "-c", script, cwd=copy).splitlines()[-2:]
    pytest_in(
        copy, "-p", "emulated_plugin", f"tests/ops/test_{STEM}.py", BDGF_EMULATED=folder, LD_PRELOAD=libraries,
        ASAN_OPTIONS="detect_leaks=0:abort_on_error=0:allocator_may_return_null=1", PYTHONPATH=f"{copy}:{copy}/tests/emulated",
    )  # fmt: skip


@pytest.mark.slow
def test_benchmark_and_pages(built):
    """The page's example runs; the benchmark and the case of bench-count are collected, not timed."""
    pytest_in(built, "tests/docs/test_docs_examples.py", "-k", f"{STEM} or page_with_an_example")
    listed = run(sys.executable, "-m", "pytest", "-q", "--collect-only", f"bench/test_{STEM}.py", cwd=built)
    assert "test_forward_backward" in listed
    script = "import sys; sys.path.insert(0, 'bench'); import count; print([name for name, *_ in count.cases()])"
    assert f"'{STEM} (4096) [elements]'" in run(sys.executable, "-c", script, cwd=built)
