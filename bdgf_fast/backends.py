"""Which implementation of an operation runs: `cuda`, `triton` or `cpu` kernels, a `torch` library call, or `reference`.

The first backend in the order of the device that has a kernel for the operation and can take the call is chosen.
`use_backend("reference")` or the environment variable BDGF_BACKEND forces one; `explain()` says what would run and why.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import threading
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

NAMES = ("cuda", "triton", "cpu", "torch", "reference")
# A tensor without values (meta) needs a shape alone, which every kernel's operator knows.
_ORDER = {"cpu": ("cpu", "torch"), "cuda": ("cuda", "triton", "torch"), "meta": ("cpu", "cuda", "triton", "torch")}

# supports(facts) -> None, or the reason why this backend cannot take the call.
Supports = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class Implementation:
    """The launchers of one operation on one backend."""

    forward: Callable[..., None]
    backward: Callable[..., None] | None
    supports: Supports | None
    prefers: Supports | None


@dataclass(frozen=True)
class Choice:
    """A row of dispatch.toml: which kernel comes first on a GPU."""

    operation: str
    architecture: str
    shapes: dict[str, list[float]]
    first: str
    evidence: str

    def fits(self, architecture: str, facts: Mapping[str, Any]) -> bool:
        """Whether the row speaks of this call; a fact that is not given fits no bounds."""
        if self.architecture not in ("any", architecture):
            return False
        return all(name in facts and low <= facts[name] <= high for name, (low, high) in self.shapes.items())

    def text(self) -> str:
        """One line for `explain`."""
        bounds = ", ".join(f"{low} <= {name} <= {high}" for name, (low, high) in self.shapes.items()) or "all shapes"
        return f"{self.operation}: {self.first} first on {self.architecture}, {bounds} ({self.evidence})"


def _read_choices() -> tuple[Choice, ...]:
    rows = tomllib.loads((Path(__file__).parent / "dispatch.toml").read_text())["choice"]
    return tuple(Choice(**row) for row in rows)


choices = _read_choices()


def _architecture() -> str:
    """Of the current GPU, as "sm_90"."""
    if not torch.cuda.is_available():  # tensors of a device that is only imagined
        return "none"
    major, minor = torch.cuda.get_device_capability()
    return f"sm_{major}{minor}"


_architecture._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch.compiler.assume_constant_result, which would import the whole compiler


class _Forced(threading.local):
    """The forced backend of this thread: an attribute of the object, which torch.compile follows and guards. One of the class
    would hide from its guards that an object has got its own since."""

    def __init__(self) -> None:
        self.name: str | None = None


_forced = _Forced()
_registry: dict[str, dict[str, Implementation]] = {}
_plain: dict[str, dict[str, Callable[..., Any]]] = {}
_missing: dict[str, str | None] = {}  # backend -> why none of its kernels can run here, None when they can


def _known(name: str, source: str) -> str:
    if name not in NAMES:
        raise ValueError(f"{source} is {name!r}; it takes one of {', '.join(NAMES)}")
    return name


_environment = os.environ.get("BDGF_BACKEND") or None
if _environment is not None:
    _known(_environment, "the environment variable BDGF_BACKEND")


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force a backend inside the `with` block, in this thread; None goes back to the automatic choice.

    If the forced backend has a kernel for an operation but cannot take a call, an error says why; an operation that
    has no kernel on that backend runs its reference.
    """
    before = _forced.name
    _forced.name = "" if name is None else _known(name, "use_backend's argument")
    try:
        yield
    finally:
        _forced.name = before


def forced() -> str | None:
    """The backend forced by `use_backend` or BDGF_BACKEND, or None."""
    name = _forced.name
    return (name or None) if name is not None else _environment


def register(
    op: str,
    backend: str,
    *,
    forward: Callable[..., None],
    backward: Callable[..., None] | None = None,
    supports: Supports | None = None,
    prefers: Supports | None = None,
) -> None:
    """Add the kernels of one operation on one backend.

    Args:
        op: stem of the operation, as in `bdgf_fast/ops`.
        backend: `cuda`, `triton` or `cpu`.
        forward: launcher, called as forward(outputs, *arguments of bdgf::<op>_fwd); it fills the outputs.
        backward: likewise for bdgf::<op>_bwd; the outputs are None where no gradient is needed.
        supports: takes the facts of a call (`dtype`, `needs_grad`, and the operation's own; `explain` passes fewer) and
            returns None, or why the kernel cannot take it.
        prefers: likewise, but why another backend is the better choice; it is not asked when a backend is forced.
    """
    _known(backend, "backend")
    _registry.setdefault(op, {})[backend] = Implementation(forward, backward, supports, prefers)


def register_plain(op: str, backend: str, function: Callable[..., Any], supports: Supports | None = None) -> None:
    """Add a function of torch operations (`reference`, or `torch` for a library's own) that autograd sees through."""
    _plain.setdefault(op, {})[backend] = function
    if backend != "reference":
        _registry.setdefault(op, {})[backend] = Implementation(function, function, supports, None)


def lazy(module: str, name: str) -> Callable[..., None]:
    """A launcher that imports its module at the first call."""
    found: list[Callable[..., None]] = []

    def launch(*arguments: Any) -> None:
        if not found:
            found.append(getattr(importlib.import_module(module), name))
        found[0](*arguments)

    return launch


def implementation(op: str, backend: str) -> Implementation:
    """The launchers that `choose` settled on."""
    return _registry[op][backend]


def plain(op: str, backend: str) -> Callable[..., Any] | None:
    """The function to call directly, when the backend is one that autograd sees through."""
    return _plain[op].get(backend)


def choose(op: str, device_type: str, dtype: torch.dtype, **facts: Any) -> tuple[str, str]:
    """The backend for one call and the reason for it.

    Raises:
        ValueError: the forced backend has a kernel for `op` but cannot take the call, and why.
    """
    facts["dtype"] = dtype
    facts["device_type"] = device_type
    kernels = _registry.get(op, {})
    name = forced()
    if name is not None:
        if name == "reference":
            return name, "forced"
        if name not in kernels:
            return "reference", f"{name} is forced, but {op} has no {name} kernel"
        obstacle = _obstacle(kernels[name], name, facts)
        if obstacle is not None:
            raise ValueError(f"{op} cannot run on the forced backend {name}: {obstacle}")
        return name, "forced"
    if _exports_to_onnx():
        return "reference", "ONNX has torch's operators only"
    skipped, reason = "", "the first kernel that takes the call"
    order = _ORDER.get(device_type, ("torch",))
    if device_type == "cuda" and "cuda" in kernels and "triton" in kernels:
        for row in choices:
            if row.operation == op and row.fits(_architecture(), facts):
                order = (row.first, *(name for name in order if name != row.first))
                reason = f"first for {row.architecture} in dispatch.toml, {row.evidence}"
                break
    for name in order:
        if name not in kernels:
            continue
        obstacle = _obstacle(kernels[name], name, facts)
        prefers = kernels[name].prefers
        if obstacle is None and prefers is not None:
            obstacle = prefers(facts)
        if obstacle is None:
            return name, skipped + reason
        skipped += f"not {name}: {obstacle}; "
    return "reference", skipped + "no kernel is left" if skipped else f"{op} has no kernel for {device_type} tensors"


def _exports_to_onnx() -> bool:
    return (torch.compiler.is_compiling() or torch.jit.is_tracing()) and torch.onnx.is_in_onnx_export()


def _obstacle(kernel: Implementation, backend: str, facts: Mapping[str, Any]) -> str | None:
    missing = _missing.get(backend)
    if missing is not None:
        return missing
    device_type = facts["device_type"]
    if backend not in _ORDER.get(device_type, ("torch",)) and not (backend == "triton" and _triton_interpreter):
        return f"the tensors are on {device_type}"
    if facts.get("needs_grad", False) and kernel.backward is None:
        return "it has no backward, and an input needs a gradient"
    return None if kernel.supports is None else kernel.supports(facts)


_triton_interpreter = os.environ.get("TRITON_INTERPRET") == "1"


def probe() -> None:
    """Find out, once and outside of any traced code, which backends can run at all."""
    try:
        from . import _native

        built_with = _native.load().build_info()
        _missing["cpu"] = None
        if built_with["cuda"] is None:
            _missing["cuda"] = f"the extension was built without CUDA: {built_with['cuda_missing_because']}"
    except ImportError as error:
        _missing["cpu"] = _missing["cuda"] = reason = " ".join(str(error).split())
        if forced() != "reference":  # a slow run should not have to be debugged
            warnings.warn(f"bdgf_fast runs without its compiled kernels: {reason}", RuntimeWarning, stacklevel=2)
    if importlib.util.find_spec("triton") is None:
        _missing["triton"] = "triton is not installed (pip install triton)"


def operations() -> tuple[str, ...]:
    """Every operation that has a backend to choose."""
    return tuple(sorted(_plain))


def available(op: str, device_type: str = "cpu") -> tuple[str, ...]:
    """The backends that can run `op` on a device, kernels first, `reference` last."""
    kernels = _registry.get(op, {})
    order = _ORDER.get(device_type, ("torch",)) + (("triton",) if _triton_interpreter and device_type == "cpu" else ())
    return (*(name for name in order if name in kernels and _missing.get(name) is None), "reference")


def table(op: str | None = None, *, dtype: torch.dtype = torch.float32, **facts: Any) -> list[dict[str, str]]:
    """What `explain` shows, as rows: operation, device, backend, kernels, why."""
    if op is not None and op not in _plain:
        raise ValueError(f"op is {op!r}; it takes one of {', '.join(operations())}")
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    rows = []
    for name in operations() if op is None else (op,):
        kernels = ", ".join(b for b in NAMES if b in _registry.get(name, {})) or "none"
        for device in devices:
            try:
                backend, why = choose(name, device, dtype, **facts)
            except ValueError as error:
                backend, why = "error", str(error)
            rows.append({"operation": name, "device": device, "backend": backend, "kernels": kernels, "why": why})
    return rows


def explain(op: str | None = None, *, dtype: torch.dtype = torch.float32, **facts: Any) -> str:
    """A table to `print`, with one line per operation and device: the backend that runs, and why; then what decides on a GPU.

    Args:
        op: one operation, all of them when None.
        dtype: of the calls asked about.
        facts: what else is known about them, such as `state=300` or `needs_grad=True`. Limits that depend on other facts are
            not shown.
    """
    gpu = [f"  {row.text()}" for row in choices if op in (None, row.operation)]
    on_gpu = ["CUDA or Triton on a GPU (bdgf_fast/dispatch.toml):", *gpu] if gpu else []
    return "\n".join([table_text(table(op, dtype=dtype, **facts)), *on_gpu])


def table_text(found: list[dict[str, str]]) -> str:
    """Rows of `table` as aligned lines under a heading."""
    rows = [("operation", "device", "runs on", "has kernels for", "why"), *(tuple(row.values()) for row in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4]]) for row in rows)
