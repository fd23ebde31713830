"""What a report and `bdgf-fast info` say about the software that ran."""

from __future__ import annotations

import platform
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
    """Versions of this package, Python and what it runs on, and how the extension was built."""
    found = {"bdgf_fast": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ABSENT
    found.update({f"extension: {name}": value for name, value in extension().items()})
    return found


def extension() -> dict[str, str]:
    """How the compiled extension was built, in words."""
    built = _native.build_info()
    if built["extension"] is None:
        return {"file": f"none, so the operations run on plain PyTorch: {built['reason']}"}
    cuda = f"none: {built['cuda_missing_because']}" if built["cuda"] is None else f"{built['cuda']}, {built['cuda_architectures']}"
    levels = ", ".join(built["cpu_isas"])
    return {"file": built["extension"], "compiler": built["compiler"], "CPU kernels": f"{built['cpu_isa']} is used, of {levels}",
            "threads": built["threads"], "CUDA kernels": cuda}  # fmt: skip


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
