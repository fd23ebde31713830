"""The launches of the Triton kernels for the benchmark's shapes, and these kernels compiled for sm_90, both without a GPU and in
the form that predict.py reads. `python bench/gpu/triton_launches.py [TEXT]` prints what they execute in the cases whose name holds
the text, under the Triton that Python finds.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launches import Case

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tests/compiled"), str(ROOT / "tests/triton")]
import binary  # noqa: E402
import launches  # noqa: E402
import predict  # noqa: E402
import proof  # noqa: E402

CAPABILITY, PROCESSORS = 90, predict.RATES["multiprocessors"]
CODES = {"i1": "?", "u1": "?", "i32": "i", "u32": "I", "i64": "q", "u64": "Q", "fp32": "f", "fp64": "d"}
# Programs that take every n-th row from their own number on: (rows, n) by the names of the kernel's arguments. They are counted
# with one row and with two, from which the count with any number of rows follows.
PERSISTENT = {
    "selective_scan_fwd": ("rows", "row_programs"), "selective_scan_bwd": ("rows", "row_programs"),
    "causal_conv1d_bwd": ("tiles_b", "sample_programs"),
}  # fmt: skip


def cases() -> dict[str, Case]:
    """Those of launches.py but the longest sequence, and of the operations that have no CUDA kernels."""
    import torch

    from bdgf_fast import ops

    found = {name: case for name, case in launches.cases().items() if "200000, 16)" not in name}  # takes minutes to count
    for batch, dim, length in ((1024, 128, 49), (1024, 128, 256), (200_000, 32, 4)):
        x = torch.empty(batch, dim, length)
        sizes = {"elements": x.numel(), "forward": 2 * x.nbytes, "backward": 3 * x.nbytes}
        inputs = [x, torch.empty(dim, 4), torch.empty(dim)]
        found[f"causal_conv1d {(batch, dim, length)} float32"] = (lambda *v: ops.causal_conv1d(*v, "silu"), inputs, sizes)
    for dtype in (torch.float32, torch.bfloat16):
        for batch, heads, length, depth in ((1024, 8, 49, 16), (1024, 8, 64, 32)):
            qkv = [torch.empty(batch, heads, length, depth, dtype=dtype) for _ in range(3)]
            sizes = {"elements": qkv[0].numel(), "forward": 4 * qkv[0].nbytes, "backward": 7 * qkv[0].nbytes}
            found[f"cross_attention {(batch, heads, length, depth)} {str(dtype)[6:]}"] = (ops.cross_attention, qkv, sizes)
        x = [torch.empty(1024, 64, 49, dtype=dtype) for _ in range(3)]
        sizes = {"elements": x[0].numel(), "forward": 4 * x[0].nbytes, "backward": 7 * x[0].nbytes}
        found[f"group_channel_attention (1024, 64, 49, 8) {str(dtype)[6:]}"] = (
            lambda *v: ops.group_channel_attention(*v, groups=8), [*x, torch.empty(8)], sizes)  # fmt: skip
    return found


def parameters(launch: Any, signature: dict[str, str], **instead: int) -> str:
    """A launch's parameters as launches.json has them: those that are not constants, then two pointers of Triton's own."""
    out = b""
    for parameter in launch.kernel.params:
        kind = signature[parameter.name]
        if kind == "constexpr":
            continue
        code, value = CODES.get(kind, "Q"), instead.get(parameter.name, launch.arguments[parameter.name])
        out += b"\0" * (-len(out) % struct.calcsize(code))
        out += struct.pack(code, 1 << 32 if kind.startswith("*") else value)
    return launches.packed(out + b"\0" * (-len(out) % 8) + b"\0" * 16)


class Kernels:
    """The compiled kernels by name, each specialisation once."""

    def __init__(self) -> None:
        self.compiled: dict[str, binary.Kernel] = {}
        self._names: dict[str, tuple[str, int]] = {}

    def row(self, launch: Any) -> dict:
        """A launch as launches.json has it."""
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        signature, constants, attributes = proof.specialise(launch)
        kind = launch.kernel.fn.__name__
        key = str((kind, signature, constants, attributes, launch.options))
        if key not in self._names:
            source = ASTSource(launch.kernel, signature, constants, attributes)
            built = triton.compile(source, target=GPUTarget("cuda", CAPABILITY, 32), options=dict(launch.options))
            with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
                file.write(built.asm["cubin"])
                file.flush()
                kernel = binary.read(file.name, predict.ARCHITECTURE)[0][0]
            kernel.shared = 0  # all of it is dynamic
            name = f"{kind} {len(self._names)}"
            self.compiled[name] = kernel
            self._names[key] = name, built.metadata.shared
        name, shared = self._names[key]
        row = {"kernel": name, "grid": [launch.grid, 1, 1], "block": 32 * launch.options["num_warps"], "dynamic_shared": shared,
               "times": 1, "parameters": parameters(launch, signature)}  # fmt: skip
        if kind in PERSISTENT:
            rows, programs = (launch.arguments[n] for n in PERSISTENT[kind])
            if rows > programs:
                some = [parameters(launch, signature, **{PERSISTENT[kind][0]: n * programs}) for n in (1, 2)]
                row |= {"with_one_and_two_rows": some, "rows": rows / programs}
        return row


def record(some: dict[str, Case]) -> tuple[list[dict], dict[str, binary.Kernel]]:
    """These cases forward and backward, as launches.json has them, and their kernels."""
    import torch
    from bdgf_fast.triton_kernels import _launch

    from bdgf_fast import backends

    proof.start(tempfile.mkdtemp())
    rows, kernels = [], Kernels()
    for name, (call, inputs, sizes) in some.items():
        unit = next(k for k in sizes if k in ("elements", "exps"))
        leaves = [x.requires_grad_() for x in inputs]
        with backends.use_backend("triton"):
            with _launch.recording(CAPABILITY, PROCESSORS) as found:
                out = call(*leaves)
            made = {"forward": found}
            if "backward" in sizes:
                with _launch.recording(CAPABILITY, PROCESSORS) as found:
                    torch.autograd.grad(out, leaves, out.detach())
                made["backward"] = found
        for direction, launched in made.items():
            rows.append({"case": name, "direction": direction, unit: sizes[unit], "bytes": sizes[direction],
                         "launches": [kernels.row(x) for x in launched]})  # fmt: skip
    return rows, kernels.compiled


def predictions(text: str = "") -> dict:
    """The rows of predict.py for the cases whose name holds the text."""
    import triton

    found = []
    for name, case in cases().items():
        if text not in name:
            continue
        rows, kernels = record({name: case})
        for row in (predict.row_of(row, kernels) for row in rows):
            used = ", ".join(f"{k['kernel']} {k['registers']} registers" for k in row["kernels"])
            time = f", {row['microseconds']} us by {row['bound']}" if "bound" in row else ""
            count = predict.instructions_per_unit(row)
            print(f"Triton {row['case']} {row['direction']}: {count} instructions{time}; {used}", flush=True)
            found.append(row)
    return {"version": triton.__version__, "rows": found}


if __name__ == "__main__":
    predictions(sys.argv[1] if len(sys.argv) > 1 else "")
