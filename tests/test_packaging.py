"""The source distribution is complete, and the checks of the wheels see what they are there to see."""

from __future__ import annotations

import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "wheels"))
import check  # noqa: E402

import build  # noqa: E402


def test_the_source_distribution_holds_what_the_build_reads(tmp_path):
    pytest.importorskip("scikit_build_core")
    code = "import sys, scikit_build_core.build as b; b.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
    sources = [path for folder in ("csrc", "bdgf_fast", "triton_kernels") for path in (ROOT / folder).rglob("*") if path.is_file()]
    made = {".so", ".pyd", ".pyc"}
    needed = {str(p.relative_to(ROOT)) for p in sources if p.suffix not in made and "__pycache__" not in p.parts}
    needed |= {"CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"}
    assert len(needed) > 200 and not needed - held
    left_out = (".ci", ".github", ".venv", "build/", "dist/")
    assert not [name for name in held if name.endswith(tuple(made)) or name.startswith(left_out)]


def mach_o(symbols: dict[str, int], libraries: list[str]) -> bytes:
    """A Mach-O library for macOS 13.0 with undefined symbols, each with the number of its library (0xFE: dynamic lookup)."""
    commands = [struct.pack("<IIIIII", 0x32, 24, 1, 13 << 16, 0, 0)]
    for library in libraries:
        text = library.encode().ljust(40, b"\0")
        commands.append(struct.pack("<IIIIII", 0xC, 24 + len(text), 24, 0, 0, 0) + text)
    names, table = b"\0", b""
    size = 32 + sum(map(len, commands)) + 24
    for name, library in symbols.items():
        table += struct.pack("<IBBHQ", len(names), 0x1, 0, library << 8, 0)  # undefined and external
        names += name.encode() + b"\0"
    table += struct.pack("<IBBHQ", 0, 0xF, 1, 0xFE << 8, 0)  # defined: its description says nothing about libraries
    commands.append(struct.pack("<IIIIII", 0x2, 24, size, len(symbols) + 1, size + len(table), len(names)))
    header = struct.pack("<IIIIIIII", 0xFEEDFACF, 0x0100000C, 0, 6, len(commands), sum(map(len, commands)), 0, 0)
    return header + b"".join(commands) + table + names


def test_a_symbol_that_no_library_of_macos_has_is_found(tmp_path):
    extension = tmp_path / "_C.so"
    extension.write_bytes(mach_o({"_PyErr_Occurred": 0xFE, "_malloc": 1}, ["/usr/lib/libSystem.B.dylib"]))
    lines, problems = check.macos(extension, "macosx_13_0_x86_64")
    assert lines[-1] == "left to the process: 1 symbols of Python, 0 others" and problems == []
    extension.write_bytes(mach_o({"_omp_get_num_threads": 0xFE}, ["/opt/libomp.dylib"]))
    _, problems = check.macos(extension, "macosx_12_0_arm64")
    assert problems == [
        "the extension is for macOS 13.0",
        "the extension is not signed",
        "it links /opt/libomp.dylib",
        "no library has _omp_get_num_threads",
    ]


def test_a_python_is_an_interpreter_or_a_folder_of_headers(tmp_path):
    (tmp_path / "Python.h").touch()
    version = tmp_path / "patchlevel.h"
    version.write_text("#define PY_MAJOR_VERSION        3\n#define PY_MINOR_VERSION        14\n")
    assert build.python(str(tmp_path)) == build.Python("314", tmp_path)
    version.write_text("#define PY_MAJOR_VERSION 3\n#define PY_MINOR_VERSION 10\n")
    with pytest.raises(SystemExit, match="that is Python 3.10; bdgf_fast needs 3.11 or newer"):
        build.python(str(tmp_path))
    with pytest.raises(SystemExit, match="neither an interpreter nor a folder with Python.h"):
        build.python(str(tmp_path / "none"))
