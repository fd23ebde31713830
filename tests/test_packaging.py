"""The source distribution is complete, and the checks of the wheels see what they are there to see."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "wheels"))
import check  # noqa: E402
import headers  # noqa: E402

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
    """A Mach-O library for macOS 13.0 with undefined symbols, each with the number of its library (-2: the process is searched)."""
    commands = [struct.pack("<IIIIII", 0x32, 24, 1, 13 << 16, 0, 0)]
    for library in libraries:
        text = library.encode().ljust(40, b"\0")
        commands.append(struct.pack("<IIIIII", 0xC, 24 + len(text), 24, 0, 0, 0) + text)
    size = 32 + sum(map(len, commands)) + 24 + 48
    names = b"\0_PyInit__C\0"
    table = struct.pack("<IBBHQ", 1, 0xF, 1, 0, 0)  # defined and external
    commands.append(struct.pack("<IIIIII", 0x2, 24, size, 1, size + len(table), len(names)))
    bind = b""
    for k, (name, library) in enumerate(symbols.items()):
        # The library; the name; a pointer; its place, 300 bytes into the first segment; bind, after all but the first and a step.
        bind += bytes([0x30 | library & 15 if library < 0 else 0x10 | library]) + b"\x40" + name.encode() + b"\0"
        bind += b"\x51\x71\xac\x02" + (b"\xa0\x08" if k else b"\x90")
    size += len(table) + len(names)
    commands.append(struct.pack("<12I", 0x80000022, 48, 0, 0, size, len(bind), 0, 0, 0, 0, 0, 0))
    header = struct.pack("<IIIIIIII", 0xFEEDFACF, 0x0100000C, 0, 6, len(commands), sum(map(len, commands)), 0, 0)
    return header + b"".join(commands) + table + names + bind


def test_a_symbol_that_no_library_of_macos_has_is_found(tmp_path):
    extension = tmp_path / "_C.so"
    extension.write_bytes(mach_o({"_PyErr_Occurred": -2, "_malloc": 1}, ["/usr/lib/libSystem.B.dylib"]))
    lines, problems = check.macos(extension, "macosx_13_0_x86_64")
    assert lines[-1] == "left to the process: 1 symbols of Python, 0 others" and problems == []
    extension.write_bytes(mach_o({"_malloc": 1, "_omp_get_num_threads": -2}, ["/opt/libomp.dylib"]))
    _, problems = check.macos(extension, "macosx_12_0_arm64")
    assert problems == [
        "the extension is for macOS 13.0",
        "the extension is not signed",
        "it links /opt/libomp.dylib",
        "no library has _omp_get_num_threads",
    ]


def pe(machine: int, exported: str, imports: dict[str, list[str]]) -> bytes:
    """A Windows library of one section, which the system puts 0x1000 - 0x200 bytes further than it stands in the file."""
    section, start = bytearray(40 + 20 * (len(imports) + 1)), 0x1000

    def put(content: bytes) -> int:
        section.extend(content + bytes(-len(content) % 8))
        return start + len(section) - len(content) - (-len(content) % 8)

    names = put(struct.pack("<I", put(exported.encode() + b"\0")))
    struct.pack_into("<III", section, 24, 1, 0, names)
    for k, (library, functions) in enumerate(imports.items()):
        hints = [put(struct.pack("<H", 0) + name.encode() + b"\0") for name in functions]
        thunks = put(struct.pack(f"<{len(hints) + 1}Q", *hints, 0))
        struct.pack_into("<IIIII", section, 40 + 20 * k, thunks, 0, 0, put(library.encode() + b"\0"), thunks)
    header = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40) + b"PE\0\0"
    header += struct.pack("<HHIIIHH", machine, 1, 0, 0, 0, 240, 0x2022)
    directories = struct.pack("<IIII", start, 40, start + 40, 20).ljust(128, b"\0")
    header += struct.pack("<H", 0x20B).ljust(112, b"\0") + directories
    header += b".rdata\0\0" + struct.pack("<IIII", len(section), start, len(section), 0x200) + bytes(16)
    return header.ljust(0x200, b"\0") + bytes(section)


def test_a_library_that_windows_would_not_find_is_found(tmp_path):
    extension = tmp_path / "_C.pyd"
    system = {"KERNEL32.dll": ["Sleep"], "api-ms-win-crt-heap-l1-1-0.dll": ["malloc", "free"]}
    extension.write_bytes(pe(0x8664, "PyInit__C", {"python311.dll": ["PyErr_Occurred", "_Py_Dealloc"], **system}))
    lines, problems = check.windows(extension, "cp311")
    assert lines == ["libraries: KERNEL32.dll, api-ms-win-crt-heap-l1-1-0.dll, python311.dll", "of Python: 2 symbols"]
    assert problems == []
    extension.write_bytes(pe(0xAA64, "PyInit_other", {"python312.dll": ["PyErr_Occurred"], "libomp.dll": ["omp_get_num_threads"]}))
    _, problems = check.windows(extension, "cp311")
    assert problems == [
        "the extension is for another processor (PE machine 0xaa64)",
        "it links python312.dll",
        "it links libomp.dll",
        "it takes nothing from python311.dll",
        "it does not show PyInit__C to Python",
    ]


def test_a_symbol_that_python_lacks_is_found(tmp_path):
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    here, extension = {f"linux-x86_64-{version}": [sys.executable]}, tmp_path / "_C"
    extension.write_bytes(mach_o({"_PyErr_Occurred": -2, "__Py_Dealloc": -2, "_PyErr_Forgotten": -2, "_malloc": 1}, []))
    said = "symbols of Python: 3, of which an interpreter here lacks 1"
    assert check.unknown(extension, version, here) == ([said], ["Python has no PyErr_Forgotten"])
    extension.write_bytes(pe(0x8664, "PyInit__C", {"python3.dll": ["PyErr_Occurred"], "KERNEL32.dll": ["Sleep"]}))
    assert check.unknown(extension, version, here)[1] == []
    assert "not compared" in check.unknown(extension, "cp399", here)[0][0]


LAYOUT = """
#include <Python.h>
#include <cstddef>
#include <cstdio>
int main() {
  std::printf("%zu %zu %zu %zu ", sizeof(PyObject), sizeof(PyTypeObject), sizeof(Py_ssize_t), sizeof(Py_tss_t));
  std::printf("%zu %zu %zu ", offsetof(PyTypeObject, tp_flags), offsetof(PyHeapTypeObject, as_buffer), sizeof(PyModuleDef));
  std::printf("%zu %zu %d\\n", sizeof(Py_buffer), sizeof(PyGetSetDef), PY_VERSION_HEX);
}
"""


def test_an_extension_sees_the_same_layouts_by_our_configuration(tmp_path):
    """tools/wheels/pyconfig.h in place of this Python's own, which knows one system only."""
    include = Path(sysconfig.get_path("include"))
    if shutil.which("g++") is None or not (include / "Python.h").exists():
        pytest.skip("needs g++ and the headers of Python")
    ours = headers.for_other_systems(include, tmp_path / "include")
    headers.for_other_systems(include, ours)  # a second time, as for the next wheel
    program = tmp_path / "layout.cpp"
    program.write_text(LAYOUT)
    said = []
    for k, folder in enumerate((include, ours)):
        subprocess.run(["g++", f"-I{folder}", str(program), "-o", str(tmp_path / f"layout{k}")], check=True)
        said.append(subprocess.run([tmp_path / f"layout{k}"], capture_output=True, text=True, check=True).stdout)
    assert said[0] == said[1] and said[0].endswith(f" {sys.hexversion}\n")


def test_the_import_library_lists_what_the_headers_promise(tmp_path):
    (tmp_path / "cpython").mkdir()
    (tmp_path / "object.h").write_text(
        "/* PyAPI_FUNC(type): declares a function. */\n"
        "PyAPI_FUNC(PyObject *) PyObject_Type(PyObject *);\n"
        "PyAPI_FUNC(void) _Py_NO_RETURN Py_FatalError(const char *message);\n"
        "Py_DEPRECATED(3.3) PyAPI_FUNC(int (*)(void)) PyOS_Hook(void);\n"
        "PyAPI_DATA(PyTypeObject) PyType_Type;\nPyAPI_DATA(const char *) Py_Names[3];\n"
    )
    more = "PyAPI_FUNC(int) pthread_self(void);\nPyAPI_FUNC(void)\n_Py_Dealloc(PyObject *);\n"
    (tmp_path / "cpython" / "more.h").write_text(more)
    assert headers.declared(tmp_path) == {
        "PyObject_Type": "FUNC", "Py_FatalError": "FUNC", "PyOS_Hook": "FUNC", "_Py_Dealloc": "FUNC",
        "PyType_Type": "DATA", "Py_Names": "DATA",
    }  # fmt: skip


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
