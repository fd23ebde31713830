"""What nvcc made of csrc/cuda, read from the built extension: registers, stack, shared memory and local accesses of every
kernel for every architecture. `python tests/compiled/binary.py` writes the budget file anew."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

BUDGET = Path(__file__).parent / "cuda_budget.json"
ARCHITECTURES = ("sm_80", "sm_90", "sm_120")
INSTRUCTION = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s*(.*?)\s*;")
RESERVED = {"sm_80": 0, "sm_90": 1024, "sm_120": 1024}  # bytes of shared memory that the system takes for itself


@dataclass
class Kernel:
    """One kernel on one architecture."""

    name: str
    architecture: str
    registers: int
    stack: int
    shared: int
    local: int = 0  # local loads and stores in the SASS
    instructions: int = 0
    code: list[tuple[int, str]] = field(default_factory=list)  # (address, instruction), if it was asked for


def cuobjdump() -> str | None:
    """nvcc's own, or the one that triton brings."""
    found = shutil.which("cuobjdump")
    if found is None and (spec := importlib.util.find_spec("triton")) is not None:
        path = Path(spec.origin).parent / "backends/nvidia/bin/cuobjdump"
        found = str(path) if path.exists() else None
    return found


# c++filt writes an enumerator as a number: those of ScanLayout in csrc/cuda/selective_scan_dense.cuh.
LAYOUTS = ("kTables", "kDenseRow", "kDensePack")


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _short(mangled: list[str]) -> dict[str, str]:
    """_ZN4bdgf6device...: philox_normal_kernel<float>."""
    text = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    names = {}
    for m, line in zip(mangled, text.splitlines(), strict=True):
        name = re.sub(r"^void |bdgf::device::|\(anonymous namespace\)::|bdgf::", "", line)
        name = re.sub(r"\(bool\)([01])", r"\1", name[: _arguments(name)])
        names[m] = re.sub(r"\(ScanLayout\)([012])", lambda match: LAYOUTS[int(match[1])], name)
    return names


def _arguments(name: str) -> int:
    """Where the argument list opens: the first parenthesis outside of < >."""
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return i
    return len(name)


def read(extension: str, code: str = "", functions: list[str] | None = None) -> tuple[list[Kernel], set[str], bool]:
    """Every kernel, the architectures that have SASS, and whether there is PTX too. Of the architecture `code` the instructions
    are kept; `functions` are the (mangled) names that are wanted of a large file."""
    tool = cuobjdump()
    architecture, found = code, {}  # a file for one architecture does not name it
    some = [f"--function={','.join(functions)}"] if functions else []
    for line in _run(tool, "-res-usage", *some, extension).splitlines():
        if match := re.match(r"arch = (sm_\d+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function (\S+):", line):
            function = match[1]
        elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
            kernel = Kernel(function, architecture, *map(int, match.groups()))
            kernel.shared -= RESERVED.get(architecture, 0) if kernel.shared else 0
            found[architecture, function] = kernel
    for line in _run(tool, "-sass", *some, extension).splitlines():
        if match := INSTRUCTION.match(line):
            if kernel is not None:
                kernel.instructions += 1
                kernel.local += "LDL" in match[2] or "STL" in match[2]
                if architecture == code:
                    kernel.code.append((int(match[1], 16), match[2]))
        elif match := re.match(r"\s*(?:code for|arch =) (sm_\d+)", line):
            architecture = match[1]
        elif match := re.match(r"\s*Function : (\S+)", line):
            kernel = found.get((architecture, match[1]))
    names = _short(sorted({k.name for k in found.values()}))
    for kernel in found.values():
        kernel.name = names[kernel.name]
    ptx = "PTX" in _run(tool, "-lptx", extension)
    return list(found.values()), {k.architecture for k in found.values()}, ptx


def most(kernels: list[Kernel]) -> dict[str, dict[str, int]]:
    """Per kernel the most over the architectures; registers as they are handed out, in eights."""
    rows: dict[str, dict[str, int]] = defaultdict(lambda: {"registers": 0, "shared": 0})
    for k in kernels:
        row = rows[k.name]
        row["registers"] = max(row["registers"], (k.registers + 7) // 8 * 8)
        row["shared"] = max(row["shared"], k.shared)
    return {name: rows[name] for name in sorted(rows)}


def write_budget(rows: dict[str, dict[str, int]] | None = None, instructions: dict[str, float] | None = None) -> None:
    """The budget file with these in place of what it had: registers and shared memory; instructions an element or exp."""
    old = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    parts = {"kernels": old.get("kernels", {}) if rows is None else rows}
    parts["exceptions"] = old.get("exceptions", {})
    parts["instructions"] = old.get("instructions", {}) if instructions is None else instructions
    text = {k: ",\n".join(f"    {json.dumps(name)}: {json.dumps(v)}" for name, v in part.items()) for k, part in parts.items()}
    BUDGET.write_text("{\n" + ",\n".join(f'  "{k}": {{\n{t}\n  }}' if t else f'  "{k}": {{}}' for k, t in text.items()) + "\n}\n")


if __name__ == "__main__":
    from bdgf_fast import _native

    write_budget(rows=most(read(_native.build_info()["extension"])[0]))
