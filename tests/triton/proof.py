"""Compiles what the launchers launch, without a GPU, and reads registers, stack and shared memory from the cubins.

A file compiled/<op>.py holds CALLS: functions of a dtype that call the public operation on CPU tensors of the shapes to
prove. The launches are recorded instead of made, so the block sizes, types and constants are the launchers' own.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
OPERATIONS = sorted(path.stem for path in (HERE / "compiled").glob("*.py"))
CAPABILITIES = (80, 90, 120)
SHARED = {80: 166_912, 90: 232_448, 120: 101_376}  # bytes a block may have
SECONDS = 20.0


@dataclass(frozen=True)
class Compiled:
    """One kernel of one launch, compiled."""

    kernel: str
    constants: str
    registers: int
    stack: int
    local: int  # local loads and stores in the SASS; they need a stack frame, so without one it is not read
    shared: int
    seconds: float
    instructions: int | None  # where the SASS was read


def cases(op: str):
    """The module compiled/<op>.py."""
    spec = importlib.util.spec_from_file_location(f"compiled_{op}", HERE / "compiled" / f"{op}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(directory: str) -> None:
    """Once in every worker: a compile cache of its own, empty, and Triton allowed on CPU tensors (nothing is launched)."""
    os.environ["TRITON_CACHE_DIR"] = tempfile.mkdtemp(dir=directory)
    os.environ.pop("TRITON_INTERPRET", None)
    import torch

    from bdgf_fast import backends

    torch.set_num_threads(1)
    backends._triton_interpreter = True


def launches(op: str, dtype_name: str, capability: int) -> list:
    """What the calls of compiled/<op>.py launch, each specialisation once."""
    import torch
    from bdgf_fast.triton_kernels import _launch

    from bdgf_fast import backends

    found = {}
    with backends.use_backend("triton"), _launch.recording(capability) as recorded:
        for call in cases(op).CALLS:
            call(getattr(torch, dtype_name))
    for launch in recorded:
        key = (launch.kernel.fn.__name__, str(specialise(launch)), str(launch.options))
        found.setdefault(key, launch)
    return list(found.values())


def specialise(launch) -> tuple[dict, dict, dict]:
    """(signature, constants, attributes), as Triton specialises on the arguments of a launch."""
    from torch import Tensor
    from triton.runtime.jit import mangle_type

    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(launch.kernel.params):
        value = launch.arguments.get(parameter.name, parameter.default if parameter.has_default else None)
        kind = "constexpr" if parameter.is_constexpr or value is None else mangle_type(value)
        if kind != "constexpr" and not isinstance(value, (Tensor, bool, float)) and not parameter.do_not_specialize:
            kind = "constexpr" if value == 1 else kind
        signature[parameter.name] = kind
        if kind == "constexpr":
            constants[parameter.name] = value
        elif not isinstance(value, (bool, float)) and not parameter.do_not_specialize:
            number = value.data_ptr() if isinstance(value, Tensor) else value
            attributes |= {(i,): [["tt.divisibility", 16]]} if number % 16 == 0 else {}
    return signature, constants, attributes


def compile_launch(launch, capability: int, disassemble: bool = False) -> Compiled:
    """Compile for a capability and read the cubin; its SASS, a third of the time, only with a stack frame or on demand."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constants, attributes = specialise(launch)
    source = ASTSource(launch.kernel, signature, constants, attributes)
    begin = sum(os.times()[:4])  # processor time, ptxas included: a busy machine is not a slow compiler
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=dict(launch.options))
    seconds = sum(os.times()[:4]) - begin
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        usage = _cuobjdump("-res-usage", file.name)
        stack, frame = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("STACK", "LOCAL"))
        disassemble |= stack + frame > 0
        sass = _cuobjdump("-sass", file.name) if disassemble else ""
    opcodes = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", sass, re.M)
    assert opcodes or not disassemble, "no SASS came out of the cubin"
    shown = {k: v for k, v in constants.items() if v is not None and not isinstance(v, str)}
    return Compiled(
        kernel=launch.kernel.fn.__name__,
        constants=", ".join(f"{k}={v}" for k, v in shown.items()) + f", num_warps={launch.options['num_warps']}",
        registers=int(re.search(r"REG:(\d+)", usage)[1]),
        stack=stack,
        local=sum(name.startswith(("LDL", "STL")) for name in opcodes),
        shared=built.metadata.shared,
        seconds=seconds,
        instructions=len(opcodes) if disassemble else None,
    )


def _cuobjdump(what: str, path: str) -> str:
    from triton import knobs

    tool = knobs.nvidia.cuobjdump.path
    environment = {**os.environ, "PATH": f"{Path(tool).parent}:{os.environ['PATH']}"}  # it calls nvdisasm
    return subprocess.run([tool, what, path], capture_output=True, text=True, check=True, env=environment).stdout


def prove(op: str, dtype_name: str, capability: int, disassemble: bool = False) -> list[Compiled]:
    """Everything compiled/<op>.py launches in a dtype, compiled for a capability."""
    return [compile_launch(launch, capability, disassemble) for launch in launches(op, dtype_name, capability)]


def main() -> None:
    """python tests/triton/proof.py OP [dtype ...]: the table of one operation, for whoever tunes it."""
    import sys

    op, *dtypes = sys.argv[1:]
    with tempfile.TemporaryDirectory() as directory:
        start(directory)
        for dtype in dtypes or ["float32"]:
            for capability in CAPABILITIES:
                for c in prove(op, dtype, capability, disassemble=True):
                    print(f"{dtype} {capability} {c.kernel}: {c.registers} registers, stack {c.stack}, local {c.local}, shared "
                          f"{c.shared}, {c.instructions} instructions, {c.seconds:.1f} s ({c.constants})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
