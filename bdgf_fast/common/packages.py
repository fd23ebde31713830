"""Packages that only some files need, imported when one of these is opened."""

from __future__ import annotations

from typing import Any

from ..errors import SceneError, package_of


def require(module: str, source: str) -> Any:
    """Import an optional package, or say which file needs it and how to get it."""
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise SceneError(f"{source} needs the package {package_of(module)}: pip install {package_of(module)}.") from None
