"""Records the launches that the CUDA kernels would get for the benchmark's shapes, without a GPU: bench/gpu/launches.json.

    python bench/gpu/launches.py

The host code of csrc/cuda is compiled by a plain C++ compiler (with the stand-ins of tests/emulated for CUDA's headers) into a
module that records a launch in place of making it. What is written per launch: the kernel, its grid, block and dynamic shared
memory, and the bytes of its parameters, which predict.py executes the compiled kernel with.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import re
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Case = tuple[Callable, list[torch.Tensor], dict[str, int]]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILE = HERE / "launches.json"
sys.path.insert(0, str(ROOT / "tests/emulated"))
import emulated_build  # noqa: E402

FLAGS = [f for f in emulated_build.FLAGS if not f.startswith("-fsanitize")]
KERNEL_FLAGS = ("-O0", "-UBDGF_EMULATED", f"-I{HERE}", "-include", "cstring", "-include", str(HERE / "launches.h"))
SCANS = [(256, 128, 49, 16), (256, 128, 121, 16), (256, 128, 256, 16),
         (1024, 128, 49, 16), (1, 128, 200_000, 16), (200_000, 32, 4, 16)]  # fmt: skip


def sources_digest() -> str:
    """Of what decides launches and kernels: csrc/cuda and the headers it includes, without comments and spaces."""
    left, seen = sorted(ROOT.glob("csrc/cuda/*")), {}
    while left:
        path = left.pop()
        seen[path] = path.read_text(encoding="utf-8")
        found = (ROOT / "csrc/include" / name for name in re.findall(r'#include "(bdgf/[^"]+)"', seen[path]))
        left += [p for p in found if p.exists() and p not in seen]
    text = "".join(re.sub(r"//[^\n]*|\s+", "", seen[p]) for p in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build():
    """The module that records."""
    sources = [s for s in emulated_build.SOURCES if s.name not in ("module.cpp", "planted.cu")] + [HERE / "launches.cpp"]
    flags = [*FLAGS, f"-I{HERE}", "-include", "cstring"]
    sys.path.insert(0, str(emulated_build.build(None, "bdgf_launches", sources, flags, KERNEL_FLAGS)))
    return importlib.import_module("bdgf_launches")


def scan_case(batch: int, dim: int, length: int, states: int, dtype: torch.dtype) -> dict[str, Case]:
    """One shape of selective_scan, as cases() has it."""
    import torch

    from bdgf_fast import ops

    u, delta = (torch.empty(batch, dim, length, dtype=dtype) for _ in range(2))
    B, C = (torch.empty(batch, states, length, dtype=dtype) for _ in range(2))
    inputs = [u, delta, torch.empty(dim, states), B, C, torch.empty(dim)]
    moved = sum(x.nbytes for x in inputs) + u.nbytes
    sizes = {"exps": batch * dim * length * states, "forward": moved, "backward": 2 * moved}
    name = f"selective_scan {(batch, dim, length, states)} {str(dtype)[6:]}"
    return {name: (lambda *x: ops.selective_scan(*x, delta_softplus=True), inputs, sizes)}


def cases() -> dict[str, Case]:
    """Name -> (call, its tensors, its elements or exps and the bytes that must be moved forward and backward)."""
    import torch

    from bdgf_fast import ops
    from bdgf_fast.diffusion import Schedule

    def empty(*shape: int, dtype=torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)  # never written: a large one costs nothing

    found: dict = {}
    for dtype in (torch.float32, torch.bfloat16):
        for shape in SCANS if dtype is torch.float32 else SCANS[:3]:
            found |= scan_case(*shape, dtype)
    matrices = [empty(128, 16), empty(128, 16)]  # constant B and C
    inputs = [empty(256, 128, 49), empty(256, 128, 49), empty(128, 16), *matrices, empty(128)]
    sizes = {"exps": 256 * 128 * 49 * 16, "forward": 3 * inputs[0].nbytes, "backward": 6 * inputs[0].nbytes}
    found["selective_scan, constant B and C (256, 128, 49, 16) float32"] = (
        lambda *x: ops.selective_scan(*x, delta_softplus=True), inputs, sizes)  # fmt: skip
    B, C = empty(256, 4, 16, 256), empty(256, 4, 16, 256)
    side = [empty(256, 128, 16, 16), empty(256, 4, 128, 256), empty(4, 128, 16), B, C, empty(128)]
    moved = sum(x.nbytes for x in side) + side[0].nbytes
    sizes = {"exps": 256 * 128 * 256 * 4 * 16, "forward": moved, "backward": 2 * moved}
    found["selective_scan_2d (256, 128, 16, 16) float32"] = (ops.selective_scan_2d, side, sizes)
    for batch, channels, pixels in ((1024, 128, 7), (512, 128, 16), (128, 256, 32)):
        x, guide, part = empty(batch, channels, pixels, pixels), empty(batch, channels, pixels, pixels), channels // 4
        weights = [empty(4, 8, 2 * part), empty(4, 8), empty(4, part, 8), empty(4, part)]
        sizes = {"elements": x.numel(), "forward": 3 * x.nbytes, "backward": 4 * x.nbytes}
        name = f"group_channel_gate {tuple(x.shape)} float32"
        found[name] = (lambda *v: ops.group_channel_gate(*v, groups=4), [x, guide, *weights], sizes)
    schedule, t = Schedule.linear(), torch.zeros(1024, dtype=torch.int64)
    for dtype in (torch.float32, torch.bfloat16):
        x, pred = empty(1024, 64, 32, 32, dtype=dtype), empty(1024, 65, 32, 32, dtype=dtype)

        def normal(shape=tuple(x.shape), dtype=dtype):
            return ops.philox_normal(shape, 3, dtype=dtype)

        short, sizes = str(dtype)[6:], {"elements": x.numel(), "forward": x.nbytes}
        found[f"philox_normal (1024, 64, 32, 32) {short}"] = (normal, [], sizes)
        sizes = {"elements": x.numel(), "forward": 2 * x.nbytes, "backward": 2 * x.nbytes}
        found[f"q_sample (1024, 64, 32, 32) {short}"] = (lambda v: ops.q_sample(v, t, schedule, 3), [x], sizes)
        sizes = {"elements": pred.numel(), "forward": pred.nbytes, "backward": 2 * pred.nbytes}
        found[f"denoising_loss (1024, 65, 32, 32) {short}"] = (
            lambda v: ops.denoising_loss(v, t, schedule, 3, channel_groups=(64, 1)), [pred], sizes)  # fmt: skip
        sizes = {"elements": x.numel(), "forward": 3 * x.nbytes, "backward": 5 * x.nbytes}
        found[f"diffusion_step (1024, 64, 32, 32) {short}"] = (
            lambda p, v: ops.ddpm_step(p, 7, v, schedule, prediction_type="epsilon", clip_sample=True, seed=3),
            [torch.empty_like(x), x], sizes)  # fmt: skip
    return found


def record() -> list[dict]:
    """Every case forward and backward: {"case", "direction", what it works on, "launches": [...]}."""
    import torch

    from bdgf_fast import _native, backends

    module, rows = build(), []
    _native.load = lambda: module
    backends._ORDER["cpu"] = ("cuda",)
    backends._missing["cuda"] = None
    for name, (call, inputs, sizes) in cases().items():
        unit = next(k for k in sizes if k in ("elements", "exps"))
        facts = {"case": name, "direction": "forward", unit: sizes[unit], "bytes": sizes["forward"]}
        leaves = [x.requires_grad_() for x in inputs]
        with torch.no_grad():
            call(*leaves)
        rows.append({**facts, "launches": taken(module)})
        if "backward" not in sizes:
            continue
        out = call(*leaves)
        module.take()
        torch.autograd.grad(out, leaves, out.detach())
        rows.append({**facts, "direction": "backward", "bytes": sizes["backward"], "launches": taken(module)})
    return rows


def packed(parameters: bytes) -> str:
    return base64.b64encode(zlib.compress(parameters, 9)).decode()


def unpacked(text: str) -> bytes:
    """The bytes of a launch's parameters."""
    return zlib.decompress(base64.b64decode(text))


def taken(module) -> list[dict]:
    """The launches since the last call, equal ones as one with their number."""
    found: list[dict] = []
    for kernel, grid, block, shared, parameters in module.take():
        name = re.sub(r"bdgf::device::|bdgf::", "", re.search(r"Kernel\)?\(A \.\.\.\) = ([^;\]]*)", kernel)[1])
        row = {"kernel": name, "grid": list(grid), "block": block, "dynamic_shared": shared}
        same = next((f for f in found if all(f[k] == v for k, v in row.items())), None)
        if same is None:
            found.append({**row, "times": 1, "parameters": packed(parameters)})
        else:
            same["times"] += 1
    return found


def main() -> None:
    rows = record()
    FILE.write_text(json.dumps({"sources": sources_digest(), "rows": rows}, indent=1) + "\n")
    for row in rows:
        print(row["case"], row["direction"], *(f"{x['times']} x {x['kernel']}{x['grid']}" for x in row["launches"]))


if __name__ == "__main__":
    main()
