"""Stand-ins for packages that are not installed: small real packages under `stand_ins/`, one folder on sys.path for each.

Folders rather than entries in sys.modules, because sys.path reaches the worker processes of a data loader as well,
whichever way they are started.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

FOLDER = Path(__file__).resolve().parent / "stand_ins"
NAMES = (
    "mamba_ssm",
    "causal_conv1d",
    "selective_scan_cuda",
    "causal_conv1d_cuda",
    "selective_scan_cuda_oflex",
    "selective_scan_cuda_core",
    "selective_scan_cuda_nrow",
)

log = logging.getLogger("bdgf_fast.compat")
_set_aside: dict[str, ModuleType] = {}  # real modules that were imported before a forced stand-in
_device: type | None = None  # torch.cuda.device as it was


def install(*, force: bool = False, host_devices: bool = False) -> list[str]:
    """Make `mamba_ssm` and `causal_conv1d`, their kernel modules and those of VMamba (`NAMES`) importable.

    Args:
        force: also replace packages that are really installed. Otherwise these take precedence, and the log says so.
        host_devices: let `torch.cuda.device(x.device)` do nothing for CPU tensors, where it raises.

    Returns:
        the names that now lead to a stand-in. A second call changes only what it newly asks for.
    """
    found = []
    for name in NAMES:
        folder = str(FOLDER / name)
        if force or folder not in sys.path:
            if not force and _really_installed(name):
                log.info("%s is installed and stays; force would replace it", name)
                continue
            if not _stands_in(name):
                _set_aside.update(_take(name))
            sys.path[:] = [entry for entry in sys.path if entry != folder]
            sys.path.insert(0 if force else len(sys.path), folder)
        found.append(name)
    importlib.invalidate_caches()
    if found:
        log.info("stand-ins on bdgf_fast's operations: %s", ", ".join(found))
    if host_devices:
        _pass_host_devices()
    return found


def lacking(error: ImportError | AttributeError) -> str | None:
    """What to add to an error that comes from a stand-in without the name or module that was asked for."""
    name = error.name if isinstance(error, ImportError) else getattr(error.obj, "__name__", None)
    package = str(name).partition(".")[0]
    if package not in NAMES or not _stands_in(package):
        return None
    has = ", which has the blocks of Mamba-1 but neither Mamba-2 nor language models" if package == "mamba_ssm" else ""
    return f"{package} is bdgf_fast's stand-in here{has}; what it lacks needs {package} itself"


def uninstall() -> None:
    """Undo `install`: the stand-ins can no longer be imported, and what they replaced is back.

    Names that other modules took from a stand-in keep working.
    """
    global _device
    for name in NAMES:
        folder = str(FOLDER / name)
        if folder in sys.path:
            sys.path[:] = [entry for entry in sys.path if entry != folder]
            _take(name)
    sys.modules.update(_set_aside)
    _set_aside.clear()
    importlib.invalidate_caches()
    if _device is not None:
        torch.cuda.device = _device  # type: ignore[misc, assignment]  # puts the class back that install() replaced
        _device = None


def _stands_in(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # in sys.modules without a spec: somebody put it there
        return False
    return spec is not None and FOLDER in Path(spec.origin or "").parents


def _really_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None and not _stands_in(name)
    except ValueError:
        return True


def _take(name: str) -> dict[str, ModuleType]:
    """Remove a package and its modules from sys.modules."""
    return {key: sys.modules.pop(key) for key in list(sys.modules) if key == name or key.startswith(f"{name}.")}


def _pass_host_devices() -> None:
    """VMamba's file enters `torch.cuda.device(x.device)`, others `torch.cuda.device(x.device.index)`, on any tensor."""
    global _device
    if _device is not None:
        return
    original: Any = torch.cuda.device

    class device(original):
        def __init__(self, device: Any) -> None:
            self.on_host = _is_host(device)
            if not self.on_host:
                super().__init__(device)

        def __enter__(self) -> None:
            if not self.on_host:
                super().__enter__()

        def __exit__(self, *error: Any) -> Any:
            return False if self.on_host else super().__exit__(*error)

    device.__qualname__ = original.__qualname__
    torch.cuda.device = device  # type: ignore[misc]  # replaced on purpose, until uninstall()
    _device = original
    log.info("torch.cuda.device does nothing for CPU tensors")


def _is_host(device: Any) -> bool:
    if device is None:  # the index of a CPU tensor's device
        return not torch.cuda.is_available()
    return isinstance(device, (str, torch.device)) and torch.device(device).type == "cpu"
