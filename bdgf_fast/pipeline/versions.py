"""What a report and `bdgf-fast info` say about the software that ran."""

from __future__ import annotations

import platform
import re
from importlib import metadata

import torch

from .. import __version__, _native, backends

PACKAGES = (
    "torch",
    "numpy",
    "einops",
    "triton",
    "rasterio",
    "scipy",
    "scikit-learn",
    "safetensors",
    "matplotlib",
    "pydantic",
    "rich",
)


ABSENT = "not installed"


def versions() -> dict[str, str]:
    """Versions of this package, Python and what it runs on, and how the extension was built; no path, as reports are shared."""
    found = {"bdgf_fast": __version__, "Python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ABSENT
    built = extension()
    if _native.build_info()["extension"] is not None:
        del built["file"]
    return found | {f"extension: {name}": value for name, value in built.items()}


def extension() -> dict[str, str]:
    """How the compiled extension was built, in words."""
    built = _native.build_info()
    if built["extension"] is None:
        return {"file": f"none, so the operations run on plain PyTorch: {built['reason']}"}
    if built["cuda"] is None:
        cuda = f"none: {built['cuda_missing_because']}"
    else:  # "80-real 120-virtual": compute capabilities 8.0 and 12.0
        numbers = sorted({int(digits) for digits in re.findall(r"\d+", built["cuda_architectures"])})
        cuda = f"CUDA {built['cuda']}, for compute capability {', '.join(f'{n // 10}.{n % 10}' for n in numbers)}"
    return {"file": built["extension"], "compiler": built["compiler"], "threads": built["threads"], "CUDA kernels": cuda,
            "CPU kernels": f"{', '.join(built['cpu_isas'])}; this processor runs {built['cpu_isa']}"}  # fmt: skip


def info_text() -> str:
    """What `bdgf-fast info` prints: versions, the extension, and a table of the operations."""
    found = versions()
    missing = [name for name in PACKAGES if found[name] == ABSENT]
    sections = {
        "Versions": {name: value for name, value in found.items() if not name.startswith("extension: ") and value != ABSENT},
        "Compiled extension": extension(),
    }
    if missing:
        sections["Versions"]["not installed"] = ", ".join(missing)
    width = max(len(name) for facts in sections.values() for name in facts)
    lines = []
    for title, facts in sections.items():
        lines += [title, *(f"  {name:<{width}}  {value}" for name, value in facts.items()), ""]
    table = backends.explain() if torch.cuda.is_available() else backends.table_text(backends.table())
    lines.append("Operations, and the backend that runs each (reference is plain PyTorch)")
    return "\n".join([*lines, *(f"  {line}" for line in table.splitlines())])
