"""The compiled extension ``bdgf_fast._C``: loaded on first use, with an error that names the fix."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any


@functools.cache
def load() -> ModuleType:
    """Return the extension module.

    Raises:
        ImportError: it is not there (the source tree was imported without a build) or does not load here.
    """
    import torch  # noqa: F401  first: the other order can put two OpenMP runtimes into one process

    try:
        return importlib.import_module("bdgf_fast._C")
    except ModuleNotFoundError as error:
        if error.name != "bdgf_fast._C":
            raise
        import bdgf_fast

        raise ImportError(
            f"bdgf_fast was imported from {bdgf_fast.__path__[0]}, which holds no compiled extension: if bdgf_fast is "
            "installed, leave this folder; else run `pip install .` (or `make dev`) in it, and run pytest against what is installed"
        ) from error


def stream_of(x: Any) -> int | None:
    """What a kernel of the extension takes as `cuda_stream`: None where it finds the current stream itself (torch >= 2.10)."""
    import torch

    if x.device.type != "cuda" or hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
        return None
    return torch.cuda.current_stream(x.device).cuda_stream


def available() -> bool:
    """Whether :func:`load` succeeds."""
    try:
        load()
    except ImportError:
        return False
    return True


def build_info() -> dict[str, Any]:
    """Compiler, CUDA version and targets (or why there are none), OpenMP, and instruction set levels of this build.

    Without the extension: ``{"extension": None, "reason": ...}``.
    """
    try:
        native = load()
    except ImportError as error:
        return {"extension": None, "reason": str(error)}
    return {"extension": native.__file__, **native.build_info()}
