"""Build the wheels of this Python for several platforms from one Linux machine, and check them.

    python tools/wheels/build.py [PLATFORM ...] [--out dist/wheels]          (`make wheels`)

The C++ compiler is the one that the package `ziglang` carries: it links against an old C library, as manylinux asks, and builds
for other platforms as well as for this one. The extension links no OpenMP library (csrc/cpu/threads/runtime.cpp).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import check

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"cpython-{sys.version_info.major}{sys.version_info.minor}"


@dataclass(frozen=True)
class Platform:
    """One wheel: its platform tag, zig's name of the target, and what CMake and Python call the system."""

    tag: str
    target: str
    system: str
    processor: str
    suffix: str


PLATFORMS = {
    "linux-x86_64": Platform("manylinux_2_28_x86_64", "x86_64-linux-gnu.2.28", "Linux", "x86_64", "x86_64-linux-gnu"),
    "linux-aarch64": Platform("manylinux_2_28_aarch64", "aarch64-linux-gnu.2.28", "Linux", "aarch64", "aarch64-linux-gnu"),
    "macos-arm64": Platform("macosx_13_0_arm64", "aarch64-macos.13.0", "Darwin", "arm64", "darwin"),
}


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


def build(name: str, out: Path) -> Path:
    """The wheel of a platform; objects that are up to date are not compiled again."""
    platform = PLATFORMS[name]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BDGF_ZIG": str(zig()), "BDGF_TARGET": platform.target, "BDGF_SYSTEM": platform.system,
        "BDGF_PROCESSOR": platform.processor, "BDGF_SUFFIX": f".{PYTHON}-{platform.suffix}.so",
    }  # fmt: skip
    defines = {"CMAKE_TOOLCHAIN_FILE": str(ROOT / "tools/wheels/zig.cmake"), "BDGF_CUDA": "OFF", "BDGF_OPENMP": "RUNTIME"}
    if platform.system == "Darwin":  # zig makes no bundles, and Python loads a library as well
        defines["CMAKE_SHARED_MODULE_CREATE_CXX_FLAGS"] = "-shared"
    options = [f"build-dir=build/wheels/{name}-{PYTHON}", "install.strip=false"]
    options += [f"cmake.define.{k}={v}" for k, v in defines.items()]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder]
        run([*command, *(x for o in options for x in ("-C", o)), str(ROOT)], environment)
        (built,) = Path(folder).glob("*.whl")  # it bears this machine's platform
        run([sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", platform.tag, str(built)], environment)
        (tagged,) = Path(folder).glob("*.whl")
        return Path(shutil.move(tagged, out / tagged.name))


LINUX = [name for name in PLATFORMS if name.startswith("linux")]  # the wheel for macOS has not been linked yet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("platforms", nargs="*", metavar="PLATFORM", help=f"of {', '.join(PLATFORMS)} (default: those for Linux)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "wheels")
    args = parser.parse_args()
    if unknown := set(args.platforms) - set(PLATFORMS):
        parser.error(f"no such platform: {', '.join(sorted(unknown))}; known are {', '.join(PLATFORMS)}")
    args.out.mkdir(parents=True, exist_ok=True)
    problems = [p for name in args.platforms or LINUX for p in check.report(build(name, args.out))]
    raise SystemExit("\n".join(problems) if problems else 0)


if __name__ == "__main__":
    main()
