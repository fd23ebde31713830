"""Build wheels for several platforms and versions of Python from one Linux machine, and check them.

    python tools/wheels/build.py [PLATFORM ...] [--python PYTHON ...] [--out dist/wheels]          (`make wheels`)

The C++ compiler is the one that the package `ziglang` carries: it links against an old C library, as manylinux asks, and builds
for other platforms as well as for this one. The extension links no OpenMP library (csrc/cpu/threads/runtime.cpp), and of a Python
it needs the headers only. Those of this machine serve every 64-bit system (headers.py).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import check
import headers

ROOT = Path(__file__).resolve().parents[2]
ASK = "import sys, sysconfig; print(sys.version_info.major, sys.version_info.minor, sysconfig.get_path('include'), sep='\\n')"


@dataclass(frozen=True)
class Platform:
    """One wheel: its platform tag, zig's name of the target, and what CMake and Python call the system."""

    tag: str
    target: str
    system: str
    processor: str
    suffix: str  # of an extension, with {} for the version


LINUX, MACOS, WINDOWS = ".cpython-{}-%s-linux-gnu.so", ".cpython-{}-darwin.so", ".cp{}-win_amd64.pyd"
PLATFORMS = {
    "linux-x86_64": Platform("manylinux_2_28_x86_64", "x86_64-linux-gnu.2.28", "Linux", "x86_64", LINUX % "x86_64"),
    "linux-aarch64": Platform("manylinux_2_28_aarch64", "aarch64-linux-gnu.2.28", "Linux", "aarch64", LINUX % "aarch64"),
    "macos-arm64": Platform("macosx_13_0_arm64", "aarch64-macos.13.0", "Darwin", "arm64", MACOS),
    "macos-x86_64": Platform("macosx_13_0_x86_64", "x86_64-macos.13.0", "Darwin", "x86_64", MACOS),
    "windows-x86_64": Platform("win_amd64", "x86_64-windows-gnu", "Windows", "AMD64", WINDOWS),
}


@dataclass(frozen=True)
class Python:
    """A version to build for: 3.12 as "312", and the folder of its headers."""

    version: str
    include: Path


def python(named: str) -> Python:
    """The Python of an interpreter, or of a folder that holds Python.h."""
    if (Path(named) / "Python.h").exists():
        include, text = Path(named).resolve(), (Path(named) / "patchlevel.h").read_text()
        major, minor = (re.search(rf"#define PY_{part}_VERSION\s+(\d+)", text)[1] for part in ("MAJOR", "MINOR"))
    else:
        try:
            done = subprocess.run([*shlex.split(named), "-c", ASK], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            raise SystemExit(f"--python {named}: neither an interpreter nor a folder with Python.h") from None
        major, minor, folder = done.stdout.split("\n")[:3]
        include = Path(folder)
        if not (include / "Python.h").exists():
            raise SystemExit(f"--python {named}: its headers are not installed ({include / 'Python.h'})")
    if (int(major), int(minor)) < (3, 11):
        raise SystemExit(f"--python {named}: that is Python {major}.{minor}; bdgf_fast needs 3.11 or newer")
    return Python(f"{major}{minor}", include)


def zig() -> Path:
    """The compiler inside the package ziglang."""
    try:
        import ziglang
    except ImportError:
        raise SystemExit("the wheels are built with the Python package ziglang: pip install ziglang (make wheels does)") from None
    return Path(ziglang.__file__).parent / "zig"


def run(command: list[str], environment: dict[str, str]) -> None:
    """Run a command; if it fails, end with the last of what it said."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-6000:]}")


def build(name: str, python: Python, out: Path) -> Path:
    """The wheel of a platform and a Python. Kernels know of no Python: they are compiled once for all of them."""
    platform = PLATFORMS[name]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BDGF_ZIG": str(zig()), "BDGF_TARGET": platform.target, "BDGF_SYSTEM": platform.system,
        "BDGF_PROCESSOR": platform.processor, "BDGF_SUFFIX": platform.suffix.format(python.version),
    }  # fmt: skip
    folder = ROOT / "build" / "wheels" / name
    include = headers.for_other_systems(python.include, folder / f"include{python.version}")
    defines = {
        "CMAKE_TOOLCHAIN_FILE": str(ROOT / "tools/wheels/zig.cmake"), "Python_INCLUDE_DIR": str(include),
        "BDGF_CUDA": "OFF", "BDGF_OPENMP": "RUNTIME",
    }  # fmt: skip
    if platform.system == "Windows":
        defines["Python_LIBRARY"] = str(headers.import_library(include, python.version, zig(), folder))
    options = [f"build-dir={folder}", "install.strip=false"]
    options += [f"cmake.define.{k}={v}" for k, v in defines.items()]
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", scratch]
        run([*command, *(x for o in options for x in ("-C", o)), str(ROOT)], environment)
        (built,) = Path(scratch).glob("*.whl")  # it bears this machine's platform and Python
        tags = {"python": f"cp{python.version}", "abi": f"cp{python.version}", "platform": platform.tag}
        given = [x for kind, tag in tags.items() for x in (f"--{kind}-tag", tag)]
        run([sys.executable, "-m", "wheel", "tags", "--remove", *given, str(built)], environment)
        (tagged,) = Path(scratch).glob("*.whl")
        return Path(shutil.move(tagged, out / tagged.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help=f"of {', '.join(PLATFORMS)} (default: all)")
    parser.add_argument("--python", action="append", help="an interpreter or a folder with Python.h, once for each (default: this)")
    parser.add_argument("--load", action="append", default=[], help="an interpreter to load wheels with, such as an emulated one")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "wheels")
    args = parser.parse_args()
    if unknown := set(args.platforms) - set(PLATFORMS):
        parser.error(f"no such platform: {', '.join(sorted(unknown))}; known are {', '.join(PLATFORMS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    named = args.python or [sys.executable]
    pythons = [python(p) for p in named]
    loaders = check.interpreters([p for p in named if not Path(p).is_dir()] + args.load)
    problems = []
    for name in args.platforms or PLATFORMS:
        for version in pythons:
            problems += check.report(build(name, version, args.out), loaders)
    raise SystemExit("\n".join(problems) if problems else 0)


if __name__ == "__main__":
    main()
