"""What a wheel needs, and whether it loads: the checks of `make wheels`.

    python tools/wheels/check.py dist/wheels/*.whl

For each wheel: its tag against what the extension asks of the system, the libraries it links (no OpenMP library, no torch), sizes,
and, where this Python can run it, a load.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LINUX_LIBRARIES = r"(libc|libm|libpthread|libdl|librt)\.so\.\d+|ld-linux-(x86-64|aarch64)\.so\.\d"
MACOS_LIBRARIES = r"/usr/lib/libSystem\.B\.dylib"
# Loads the extension by itself, without the package and torch, and draws Philox4x32-10's known answer.
LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_C", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
assert module.philox_raw((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
info = module.build_info()
print(sys.version.split()[0], ", ".join(info["cpu_isas"]), "threads from", info["threads"])
"""


def run(*command: str | Path) -> tuple[int, str]:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


def mach_o_libraries(data: bytes) -> tuple[list[str], str, bool]:
    """The dynamic libraries of a Mach-O file, the macOS it is for, and whether it is signed (arm64 loads nothing unsigned)."""
    if data[:4] != b"\xcf\xfa\xed\xfe":
        return [], "?", False
    libraries, version, signed, at = [], "?", False, 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command in (0xC, 0x80000018):  # LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB
            start = at + struct.unpack_from("<I", data, at + 8)[0]
            libraries.append(data[start : data.index(b"\0", start)].decode())
        elif command == 0x32:  # LC_BUILD_VERSION
            packed = struct.unpack_from("<I", data, at + 12)[0]
            version = f"{packed >> 16}.{packed >> 8 & 255}"
        signed = signed or command == 0x1D  # LC_CODE_SIGNATURE
        at += size
    return libraries, version, signed


def load(extension: Path) -> tuple[int, str]:
    """Exit status and output of loading the extension by itself under this Python."""
    return run(sys.executable, "-c", LOAD, extension)


def report(wheel: Path) -> list[str]:
    """Print what was found; return a sentence for each problem."""
    _, _, python, _, platform = wheel.stem.split("-")
    problems, lines = [], []
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        problems += [f"it holds {n}" for n in names if "/_C." not in n and n.endswith((".so", ".dylib"))]
        extension = Path(archive.extract(next(n for n in names if "/_C." in n), scratch))
        if platform.startswith("manylinux"):
            allowed, libraries = LINUX_LIBRARIES, re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", extension)[1])
            text = " ".join(run(tool("auditwheel"), "show", wheel)[1].split())
            verdict = re.search(r'consistent with the following platform tag: "([^"]+)"', text)
            versions = re.findall(r"_2_(\d+)_", verdict[1] if verdict else "")
            lines.append(f"auditwheel: consistent with {verdict[1] if verdict else 'nothing'}")
            if not versions or int(versions[0]) > int(re.findall(r"_2_(\d+)_", platform)[0]):
                problems.append(f"auditwheel does not find it fit for {platform}: {text[-400:]}")
        else:
            allowed = MACOS_LIBRARIES
            libraries, version, signed = mach_o_libraries(extension.read_bytes())
            lines.append(f"built for macOS {version}, {'signed ad hoc' if signed else 'not signed'}")
            if version != ".".join(platform.split("_")[1:3]) or not signed:
                problems.append(f"the extension is for macOS {version} and {'' if signed else 'not '}signed")
        lines.append(f"libraries: {', '.join(libraries)}")
        problems += [f"it links {x}" for x in libraries if not re.fullmatch(allowed, x)]
        runs_here = platform.startswith("manylinux") and platform.endswith(os.uname().machine)
        if runs_here and python == f"cp{sys.version_info.major}{sys.version_info.minor}":
            status, text = load(extension)
            lines.append(f"loaded: Python {text.strip()}")
            problems += [f"it does not load: {text.strip()[-400:]}"] if status else []
        else:
            lines.append("loaded: no, this Python does not run it")
        lines.append(f"size: {wheel.stat().st_size / 1e6:.2f} MB, extension {extension.stat().st_size / 1e6:.2f} MB")
    print(wheel.name, *(f"  {line}" for line in lines), *(f"  WRONG: {p}" for p in problems), sep="\n", flush=True)
    return [f"{wheel.name}: {p}" for p in problems]


if __name__ == "__main__":
    raise SystemExit("\n".join(p for w in sys.argv[1:] for p in report(Path(w))) or 0)
