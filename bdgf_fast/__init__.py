"""Balanced diffusion-guided fusion (BDGF) for multimodal land-cover classification, on fused kernels.

`bdgf_fast.ops` holds the single operations as drop-ins, `bdgf_fast.nn` thin modules over them, `bdgf_fast.reference` their
plain PyTorch definitions; `bdgf-fast` on the command line runs the whole method.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from . import _vml, backends, ops, reference
from .backends import explain, use_backend

_vml.settle()

__version__ = "0.1.0"
__all__ = ["backends", "explain", "ops", "reference", "use_backend"]

_PACKAGES = ("compat", "data", "diffusion", "features", "network", "nn", "report")  # some need what `bdgf-fast[app]` installs


def __getattr__(name: str) -> ModuleType:
    """The other packages, imported when they are first asked for."""
    if name not in _PACKAGES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PACKAGES})
