"""What a wheel needs, and whether it loads: the checks of `make wheels`.

    python tools/wheels/check.py dist/wheels/*.whl [--load INTERPRETER ...]

For each wheel: its tag against what the extension asks of the system, the libraries it links (no OpenMP library, no torch), the
symbols it leaves to the process that loads it, sizes, and a load by every interpreter given that fits.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from binaries import mach_o, pe

LINUX_LIBRARIES = r"(libc|libm|libpthread|libdl|librt)\.so\.\d+|ld-linux-(x86-64|aarch64)\.so\.\d"
WINDOWS_LIBRARIES = r"(?i)KERNEL32\.dll|api-ms-win-crt-[a-z]+-l1-1-0\.dll"
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


# Which of the names an interpreter's C API lacks, which is the same on every system.
LACKS = "import ctypes, sys; print(*(n for n in sys.argv[1:] if not hasattr(ctypes.pythonapi, n)))"
ABOUT = "import platform, sys; print(f'{sys.platform}-{platform.machine()}-cp{sys.version_info.major}{sys.version_info.minor}')"


def interpreters(commands: list[str]) -> dict[str, list[str]]:
    """The interpreters by what they run, such as linux-aarch64-cp311."""
    found = {}
    for command in commands:
        status, text = run(*shlex.split(command), "-c", ABOUT)
        if status:
            raise SystemExit(f"{command} does not run: {text.strip()[-300:]}")
        found[text.split()[-1]] = shlex.split(command)
    return found


def linux(wheel: Path, extension: Path, platform: str) -> tuple[list[str], list[str]]:
    """Lines and problems of a wheel for Linux."""
    text = " ".join(run(tool("auditwheel"), "show", wheel)[1].split())
    verdict = re.search(r'consistent with the following platform tag: "([^"]+)"', text)
    fits = re.findall(r"_2_(\d+)_", verdict[1] if verdict else "")
    allowed = int(re.findall(r"_2_(\d+)_", platform)[0])
    problems = []
    if not fits or int(fits[0]) > allowed:
        problems.append(f"auditwheel does not find it fit for {platform}: {text[-400:]}")
    needed = max(int(x) for x in re.findall(r"GLIBC_2\.(\d+)", run("readelf", "-VW", extension)[1]))
    libraries = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", extension)[1])
    problems += [f"it links {x}" for x in libraries if not re.fullmatch(LINUX_LIBRARIES, x)]
    return [f"auditwheel: consistent with {verdict[1] if verdict else 'nothing'}; newest symbol: GLIBC_2.{needed}",
            f"libraries: {', '.join(libraries)}"], problems  # fmt: skip


def macos(extension: Path, platform: str) -> tuple[list[str], list[str]]:
    """Lines and problems of a wheel for macOS."""
    found, problems = mach_o(extension.read_bytes()), []
    foreign = [name for name in found.undefined if not name.startswith(("_Py", "__Py"))]
    if found.macos != ".".join(platform.split("_")[1:3]):
        problems.append(f"the extension is for macOS {found.macos}")
    if platform.endswith("arm64") and not found.signed:
        problems.append("the extension is not signed")
    problems += [f"it links {x}" for x in found.libraries if not re.fullmatch(MACOS_LIBRARIES, x)]
    problems += [f"no library has {name}" for name in foreign]
    problems += [] if "_PyInit__C" in found.exported else ["it does not show PyInit__C to Python"]
    pythons = len(found.undefined) - len(foreign)
    return [f"built for macOS {found.macos}, {'signed ad hoc' if found.signed else 'not signed'}",
            f"libraries: {', '.join(found.libraries)}",
            f"left to the process: {pythons} symbols of Python, {len(foreign)} others"], problems  # fmt: skip


def windows(extension: Path, python: str) -> tuple[list[str], list[str]]:
    """Lines and problems of a wheel for Windows on x86-64."""
    found, problems = pe(extension.read_bytes()), []
    library = f"python{python.removeprefix('cp')}.dll"
    if found.machine != 0x8664:
        problems.append(f"the extension is for another processor (PE machine {found.machine:#x})")
    problems += [f"it links {x}" for x in found.imports if x != library and not re.fullmatch(WINDOWS_LIBRARIES, x)]
    pythons = found.imports.get(library, ())
    foreign = [name for name in pythons if not name.startswith(("Py", "_Py"))]
    problems += [f"{library} has no {name}" for name in foreign] if pythons else [f"it takes nothing from {library}"]
    problems += [] if "PyInit__C" in found.exported else ["it does not show PyInit__C to Python"]
    return [f"libraries: {', '.join(sorted(found.imports))}", f"of Python: {len(pythons)} symbols"], problems


def unknown(extension: Path, python: str, loaders: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """Lines and problems of the symbols that a wheel for another system asks of Python, by an interpreter of that version."""
    interpreter = next((command for runs, command in loaders.items() if runs.endswith(f"-{python}")), None)
    if interpreter is None:
        return [f"symbols of Python: not compared, no interpreter for {python} at hand"], []
    data = extension.read_bytes()
    asked = {name for library, taken in pe(data).imports.items() if library.startswith("python") for name in taken}
    asked |= {name[1:] for name in mach_o(data).undefined if name.startswith(("_Py", "__Py"))}
    status, text = run(*interpreter, "-c", LACKS, *sorted(asked))
    absent = [text.strip()[-300:]] if status else text.split()
    problems = [f"Python has no {x}" for x in absent]
    return [f"symbols of Python: {len(asked)}, of which an interpreter here lacks {len(absent)}"], problems


def load(extension: Path, interpreter: list[str]) -> tuple[int, str]:
    """Exit status and output of loading the extension by itself."""
    return run(*interpreter, "-c", LOAD, extension)


def report(wheel: Path, loaders: dict[str, list[str]]) -> list[str]:
    """Print what was found; return a sentence for each problem."""
    _, _, python, _, platform = wheel.stem.split("-")
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        extension = Path(archive.extract(next(n for n in names if "/_C." in n), scratch))
        if platform.startswith("manylinux"):
            lines, problems = linux(wheel, extension, platform)
        else:
            lines, problems = windows(extension, python) if platform.startswith("win") else macos(extension, platform)
        if not platform.startswith("manylinux"):
            found = unknown(extension, python, loaders)
            lines, problems = lines + found[0], problems + found[1]
        problems += [f"it holds {n}" for n in names if "/_C." not in n and n.endswith((".so", ".dylib", ".dll", ".pyd"))]
        system = re.sub(r"manylinux_\d+_\d+_", "linux-", re.sub(r"macosx_\d+_\d+_", "darwin-", platform))
        if interpreter := loaders.get(f"{system}-{python}"):
            status, text = load(extension, interpreter)
            lines.append(f"loaded: {'no' if status else 'Python ' + text.strip()}")
            problems += [f"it does not load: {text.strip()[-400:]}"] if status else []
        else:
            lines.append("loaded: no, none of the interpreters at hand runs it")
        lines.append(f"size: {wheel.stat().st_size / 1e6:.2f} MB, extension {extension.stat().st_size / 1e6:.2f} MB")
    print(wheel.name, *(f"  {line}" for line in lines), *(f"  WRONG: {p}" for p in problems), sep="\n", flush=True)
    return [f"{wheel.name}: {p}" for p in problems]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", nargs="+", type=Path)
    parser.add_argument("--load", action="append", default=[], help="an interpreter to load wheels with, besides this one")
    args = parser.parse_args()
    loaders = interpreters([sys.executable, *args.load])
    problems = [p for wheel in args.wheels for p in report(wheel, loaders)]
    raise SystemExit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
