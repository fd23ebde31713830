"""Builds the module bdgf_emulated: csrc/cuda and the bindings by a plain C++ compiler, under AddressSanitizer.

Objects are kept in a folder of the machine's temporary directory, each under the hash of what the compiler read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCES = (
    *sorted(ROOT.glob("csrc/cuda/*.cu")),
    *sorted(p for p in ROOT.glob("csrc/bindings_*.cpp")),
    ROOT / "csrc/tensor_arg.cpp",
    HERE / "emulation.cpp",
    HERE / "module.cpp",
    HERE / "planted.cu",
)
FLAGS = [
    "-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden", "-fsanitize=address", "-ffp-contract=off", "-fno-math-errno",
    "-Wall", "-Wextra", "-Wno-psabi", "-Wno-unused-function", "-Wno-unknown-pragmas",
    "-DBDGF_EMULATED", "-DBDGF_WITH_CUDA",
]  # fmt: skip


def compiler() -> str | None:
    return shutil.which("g++")  # clang keeps its sanitizer in another place


def sanitizer_libraries() -> list[str]:
    """What must be loaded before Python for a module under AddressSanitizer (libstdc++ too: exceptions are intercepted)."""
    names = ("libasan.so", "libstdc++.so.6")
    found = [subprocess.run([compiler(), f"-print-file-name={n}"], capture_output=True, text=True).stdout.strip() for n in names]
    return [str(Path(f).resolve()) for f in found if "/" in f]


def build(folder: Path | None = None, name: str = "bdgf_emulated", sources=SOURCES, flags=FLAGS, kernel_flags=("-O1",)) -> Path:
    """The folder that holds the built module. `kernel_flags` are those of the .cu files and what stands in for a GPU."""
    import pybind11

    folder = folder or Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    includes = [f"-I{p}" for p in (HERE / "include", ROOT / "csrc", ROOT / "csrc/include", HERE)]
    includes += [f"-isystem{p}" for p in (pybind11.get_include(), sysconfig.get_paths()["include"])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda source: _compile(source, [*flags, *includes], kernel_flags, folder), sources))
    key = hashlib.sha256("".join(o.name for o in objects).encode()).hexdigest()[:16]
    module = folder / key / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    module.parent.mkdir(exist_ok=True)
    _make(module, [compiler(), "-shared", *(f for f in flags if f.startswith("-fsanitize")), *map(str, objects)])
    return module.parent


def _compile(source: Path, flags: list[str], kernel_flags: Sequence[str], folder: Path) -> Path:
    kernels = source.suffix == ".cu" or source.name == "emulation.cpp"
    command = [compiler(), *flags, *(kernel_flags if kernels else ["-O0"]), "-x", "c++", str(source)]
    text = subprocess.run([*command, "-E"], capture_output=True)
    key = hashlib.sha256(" ".join(command).encode() + text.stdout).hexdigest()[:24]
    target = folder / f"{key}.o"
    _make(target, [*command, "-c"])
    return target


def _make(target: Path, command: list[str]) -> None:
    """Let the command write the target, unless it is there; whole or not at all, whoever else builds it."""
    if target.exists():
        return
    beside = f"{target}.{os.getpid()}"
    done = subprocess.run([*command, "-o", beside], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-6000:]}")
    os.replace(beside, target)


if __name__ == "__main__":
    print(build())
