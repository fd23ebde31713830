"""Build the native check (every CPU kernel, without Python) and run it.

    python tests/native/check/run.py              on this processor
    python tests/native/check/run.py aarch64      by Debian's cross compiler, under qemu-user (`make test-aarch64`)
    python tests/native/check/run.py windows      by the compiler of the wheels, under Wine (`make test-windows`)

`--install` first fetches what the latter two lack, where that is Debian and the user is root. Threads come from std::thread, as in
the wheels. Builds are kept in build/check-*.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SEARCHED = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/lib/wine"])


@dataclass(frozen=True)
class Target:
    """What builds the check and what runs it."""

    packages: dict[str, str]  # Debian's, by the tool that each is needed for
    toolchain: Path | None = None
    emulator: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


TARGETS = {
    "here": Target({"g++": "g++"}),
    "aarch64": Target(
        {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64-static": "qemu-user-static"},
        HERE / "aarch64.cmake",
        ("qemu-aarch64-static",),
    ),
    "windows": Target(
        {"wine64": "wine64"},
        ROOT / "tools" / "wheels" / "zig.cmake",
        ("wine64",),
        {
            "BDGF_SYSTEM": "Windows", "BDGF_PROCESSOR": "AMD64", "BDGF_TARGET": "x86_64-windows-gnu", "BDGF_SUFFIX": ".pyd",
            "WINEPREFIX": str(ROOT / "build" / "wine"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree=;mshtml=",
        },  # fmt: skip
    ),
}


def zig() -> str | None:
    """The compiler inside the package ziglang, if that is installed."""
    found = importlib.util.find_spec("ziglang")
    return str(Path(found.origin).parent / "zig") if found and found.origin else None


def missing(target: str) -> str | None:
    """A sentence about the tools that are not here; None if all are."""
    packages = {"cmake": "cmake", "ninja": "ninja-build", **TARGETS[target].packages}
    absent = {tool: package for tool, package in packages.items() if shutil.which(tool, path=SEARCHED) is None}
    said = [f"not found: {', '.join(absent)}; on Debian: apt-get install {' '.join(absent.values())}"] if absent else []
    if target == "windows" and zig() is None:
        said.append("the Python package ziglang is missing: pip install ziglang")
    return "; ".join(said) or None


def install(target: str = "aarch64") -> None:
    """Debian's packages for a target, if some are missing and can be had."""
    if missing(target) and shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        packages = ["cmake", "ninja-build", *TARGETS[target].packages.values()]
        for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", *command], stdout=subprocess.DEVNULL, env=environment)


def check(name: str) -> tuple[int, str]:
    """Exit status and output of the check for a target."""
    target, build = TARGETS[name], ROOT / "build" / f"check-{name}"
    environment = {**os.environ, "PATH": SEARCHED, "BDGF_ZIG": zig() or "", **target.environment}
    toolchain = [f"-DCMAKE_TOOLCHAIN_FILE={target.toolchain}"] if target.toolchain else []
    program = build / ("native_check.exe" if name == "windows" else "native_check")
    commands: list[list[str | Path]] = [
        ["cmake", "-S", HERE, "-B", build, "-G", "Ninja", "-DBDGF_OPENMP=OFF", *toolchain],
        ["cmake", "--build", build],
        [*target.emulator, program, HERE / "noise_bits.txt"],
    ]
    text = ""
    for command in commands:
        tool = shutil.which(command[0], path=SEARCHED) or command[0]
        done = subprocess.run([str(c) for c in (tool, *command[1:])], capture_output=True, text=True, env=environment)
        text = done.stdout + done.stderr
        if done.returncode:
            return done.returncode, text
    return 0, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="?", choices=tuple(TARGETS), default="here")
    parser.add_argument("--install", action="store_true", help="fetch what is missing first, where that is possible")
    args = parser.parse_args()
    if args.install:
        install(args.target)
    if lacking := missing(args.target):
        raise SystemExit(f"the native check for {args.target} was not run: {lacking}")
    status, text = check(args.target)
    print(text[-6000:].strip())
    raise SystemExit(status)


if __name__ == "__main__":
    main()
