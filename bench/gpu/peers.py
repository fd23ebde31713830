"""The peers on a GPU: selective_scan of mamba_ssm and causal_conv1d, built from their source packages.

`make peers` fetches the source packages into .peers/ (ignored by git) on a machine with a package registry; the GPU machine
needs none. Here only the two extensions are compiled, for the one architecture at hand, into .peers/built/, which can be
copied back and reused (their own setup builds for nine architectures). Run as a program it builds both and compares each
with its definition in bdgf_fast.reference.
"""

from __future__ import annotations

import importlib
import os
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path

import torch

PEERS = Path(__file__).parents[2] / ".peers"
# module -> (source package, folder of its sources)
EXTENSIONS = {
    "selective_scan_cuda": ("mamba_ssm", "csrc/selective_scan"),
    "causal_conv1d_cuda": ("causal_conv1d", "csrc"),
}
NVCC_FLAGS = [
    "-O3", "-std=c++17", "--use_fast_math", "--expt-relaxed-constexpr", "--expt-extended-lambda", "-lineinfo",
    "-U__CUDA_NO_HALF_OPERATORS__", "-U__CUDA_NO_HALF_CONVERSIONS__", "-U__CUDA_NO_BFLOAT16_OPERATORS__",
    "-U__CUDA_NO_BFLOAT16_CONVERSIONS__", "-U__CUDA_NO_BFLOAT162_OPERATORS__", "-U__CUDA_NO_BFLOAT162_CONVERSIONS__",
]  # fmt: skip


def source(package: str) -> Path:
    """The unpacked source package."""
    archives = sorted(PEERS.glob(f"{package}-*.tar.gz"))
    if not archives:
        raise FileNotFoundError(f"no source package of {package} in {PEERS}: run `make peers` on a machine with a registry")
    folder = PEERS / "source" / archives[-1].name.removesuffix(".tar.gz")
    if not folder.exists():
        with tarfile.open(archives[-1]) as archive:
            archive.extractall(PEERS / "source", filter="data")
    return folder


def build(module: str):
    """Compile one extension for the GPU at hand, or load what was built for it before."""
    from torch.utils import cpp_extension

    package, under = EXTENSIONS[module]
    major, minor = torch.cuda.get_device_capability()
    os.environ["TORCH_CUDA_ARCH_LIST"] = f"{major}.{minor}"
    folder = PEERS / "built" / f"{module}-torch{torch.__version__}-sm_{major}{minor}"
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / f"{module}.so"
    if ready.exists():
        sys.path.insert(0, str(folder))
        return importlib.import_module(module)
    sources = source(package) / under
    loaded = cpp_extension.load(
        module, [str(p) for p in sorted((*sources.glob("*.cpp"), *sources.glob("*.cu")))], extra_cflags=["-O3", "-std=c++17"],
        extra_cuda_cflags=NVCC_FLAGS, extra_include_paths=[str(sources)], build_directory=str(folder), verbose=True,
    )  # fmt: skip
    for leftover in (p for p in folder.iterdir() if p != ready):  # objects: many times the size of the module
        leftover.unlink()
    return loaded


def _without_init(package: str) -> None:
    """Make a package importable by its submodules alone: its __init__ would import models and their dependencies."""
    if package not in sys.modules:
        module = types.ModuleType(package)
        module.__path__ = [str(source(package) / package)]
        sys.modules[package] = module


def load() -> dict[str, Callable]:
    """{"mamba_ssm": selective_scan_fn, "causal_conv1d": causal_conv1d_fn}, as the packages' own users call them."""
    for module in EXTENSIONS:
        sys.modules[module] = build(module)
    for package, _ in EXTENSIONS.values():
        _without_init(package)
    scan = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    conv = importlib.import_module("causal_conv1d.causal_conv1d_interface").causal_conv1d_fn
    return {"mamba_ssm": scan, "causal_conv1d": conv}


def main() -> None:
    from bdgf_fast import reference

    peers = load()
    g = torch.Generator().manual_seed(0)
    u, delta, x = (torch.randn(2, 32, 65, generator=g) for _ in range(3))
    A, B, C = -torch.rand(32, 16, generator=g), torch.randn(2, 16, 65, generator=g), torch.randn(2, 16, 65, generator=g)
    weight, bias = torch.randn(32, 4, generator=g), torch.randn(32, generator=g)
    for name, arguments, exact in (
        ("mamba_ssm", (u, delta, A, B, C), lambda *t: reference.selective_scan(*t, delta_softplus=True)),
        ("causal_conv1d", (x, weight, bias), lambda *t: reference.causal_conv1d(*t)),
    ):
        options = {"delta_softplus": True} if name == "mamba_ssm" else {}
        got = peers[name](*(t.cuda() for t in arguments), **options).cpu().double()
        want = exact(*(t.double() for t in arguments))
        error = ((got - want).abs().max() / want.abs().max()).item()
        print(f"{name}: largest error {error:.1e} of the largest value, on {torch.cuda.get_device_name()}")
        if not error < 1e-4:
            raise SystemExit(f"{name} disagrees with bdgf_fast.reference")


if __name__ == "__main__":
    main()
