"""What a report and `bdgf-fast info` say about the software that ran."""

from __future__ import annotations

import platform
from importlib import metadata

from .. import __version__, _native

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


def versions() -> dict[str, str]:
    """Versions of this package, Python and what it runs on, and how the extension was built."""
    found = {"bdgf_fast": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    if _native.available():
        found.update({f"extension {key}": str(value) for key, value in _native.build_info().items()})
    else:
        found["extension"] = "not built: pip install . (operations run on the reference)"
    return found
