"""Of a Python for another system: its headers, made of those at hand, and the import library that Windows links."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

PYCONFIG = Path(__file__).with_name("pyconfig.h")
DECLARED = re.compile(r"\bPyAPI_(FUNC|DATA)\s*\((?:[^()]|\([^()]*\))*\)\s*(?:[\w*]+\s+|\*)*?(_?P[yY]\w+)\s*[;(\[]")


def for_other_systems(include: Path, folder: Path) -> Path:
    """A folder with links to the headers of `include`, and with our pyconfig.h, which suits every 64-bit system."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for header in include.iterdir():
        (folder / header.name).symlink_to(PYCONFIG if header.name == PYCONFIG.name else header.resolve())
    return folder


def declared(include: Path) -> dict[str, str]:
    """The names that the public headers promise of the library, each with "FUNC" or "DATA"."""
    files = [*include.glob("*.h"), *include.glob("cpython/*.h")]
    return {name: kind for path in sorted(files) for kind, name in DECLARED.findall(path.read_text())}


def import_library(include: Path, version: str, zig: Path, folder: Path) -> Path:
    """The import library of python3xx.dll, from the names that the headers declare: a Python for Windows is not needed."""
    names = declared(include)
    definition = folder / f"python{version}.def"
    lines = [f"  {name}{' DATA' if kind == 'DATA' else ''}" for name, kind in sorted(names.items())]
    definition.write_text("\n".join([f"LIBRARY python{version}.dll", "EXPORTS", *lines, ""]))
    library = folder / f"libpython{version}.dll.a"
    subprocess.run([zig, "dlltool", "-m", "i386:x86-64", "-d", definition, "-l", library], check=True)
    # CMake takes the file for an import library only beside the library; else it links what this machine's Python needs, too.
    (folder / f"python{version}.dll").touch()
    return library
