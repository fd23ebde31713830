"""Build the native check (every CPU kernel, without Python) and run it.

    python tests/native/check/run.py              on this processor
    python tests/native/check/run.py aarch64      by Debian's cross compiler, under qemu-user (`make test-aarch64`)

`--install` first fetches what the latter lacks, where that is Debian and the user is root. Threads come from std::thread, as in
the wheels. Builds are kept in build/check-*.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PACKAGES = {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64-static": "qemu-user-static"}


def missing(target: str) -> str | None:
    """A sentence about the tools that are not here; None if all are."""
    tools = ["cmake", "ninja", *(PACKAGES if target == "aarch64" else ["g++"])]
    absent = [t for t in tools if shutil.which(t) is None]
    packages = " ".join(PACKAGES.get(t, {"ninja": "ninja-build"}.get(t, t)) for t in absent)
    return f"not found: {', '.join(absent)}; on Debian: apt-get install {packages}" if absent else None


def install() -> None:
    """Debian's packages of the cross compiler and the emulator, if they are missing and can be had."""
    if missing("aarch64") and shutil.which("apt-get") and os.geteuid() == 0:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        packages = ["cmake", "ninja-build", *PACKAGES.values()]
        for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
            subprocess.run(["apt-get", *command], stdout=subprocess.DEVNULL, env=environment)


def check(target: str) -> tuple[int, str]:
    """Exit status and output of the check for "here" or "aarch64"."""
    build = ROOT / "build" / f"check-{target}"
    toolchain = [f"-DCMAKE_TOOLCHAIN_FILE={HERE / 'aarch64.cmake'}"] if target == "aarch64" else []
    commands: list[list[str | Path]] = [
        ["cmake", "-S", HERE, "-B", build, "-G", "Ninja", "-DBDGF_OPENMP=OFF", *toolchain],
        ["cmake", "--build", build],
        [*(["qemu-aarch64-static"] if target == "aarch64" else []), build / "native_check", HERE / "noise_bits.txt"],
    ]
    text = ""
    for command in commands:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
        text = done.stdout + done.stderr
        if done.returncode:
            return done.returncode, text
    return 0, text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", nargs="?", choices=("here", "aarch64"), default="here")
    parser.add_argument("--install", action="store_true", help="fetch what is missing first, where that is possible")
    args = parser.parse_args()
    if args.install:
        install()
    if lacking := missing(args.target):
        raise SystemExit(f"the native check for {args.target} was not run: {lacking}")
    status, text = check(args.target)
    print(text[-6000:].strip())
    raise SystemExit(status)


if __name__ == "__main__":
    main()
