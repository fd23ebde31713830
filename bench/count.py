"""Instructions an element of every CPU kernel at the AVX2 level, counted by callgrind: `make bench-count`.

    python bench/count.py              counts, compares with bench/count_budget.json, fails at 5 % above it
    python bench/count.py --write      counts and writes the budget

Times on shared machines scatter by tens of percent, instruction counts do not: they are the same on every run of one binary
under any load. Only instructions inside the extension are counted, on one thread, so that neither Python nor torch matters. The
budget belongs to a compiler, which it names. Valgrind has no AVX-512, hence AVX2.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

BUDGET = Path(__file__).with_name("count_budget.json")
ALLOWED = 1.05

# Valgrind's requests are instructions that a program must contain.
SWITCH = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; }
void stop(const char* name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""


def obstacle() -> str | None:
    """Why nothing can be counted here, in a sentence."""
    if shutil.which("valgrind") is None:
        return "bench-count needs valgrind, which is not installed (apt-get install valgrind)"
    if shutil.which("cc") is None:
        return "bench-count needs a C compiler named cc for the few lines that switch callgrind on and off"
    return None


# ---------------------------------------------------------------------------------------------- what is counted
def scan(batch, dim, length, states, gate=False):
    import torch

    from bdgf_fast import ops

    u, delta, z = (torch.randn(batch, dim, length) for _ in range(3))
    A, D, bias = -torch.exp(torch.rand(dim, states)), torch.randn(dim), torch.randn(dim) - 2
    B, C = torch.randn(batch, states, length), torch.randn(batch, states, length)
    if gate:
        inputs = [u, delta, A, B, C, D, z, bias]
    else:
        inputs = [u, delta, A, B, C, D]
    return inputs, lambda *x: ops.selective_scan(*x, delta_softplus=True), batch * dim * length * states


def scan_2d(batch, dim, side, states):
    import torch

    from bdgf_fast import ops

    length = side * side
    inputs = [torch.randn(batch, dim, side, side), torch.randn(batch, 4, dim, length), -torch.exp(torch.rand(4, dim, states))]
    inputs += [torch.randn(batch, 4, states, length), torch.randn(batch, 4, states, length), torch.randn(4, dim)]
    return inputs, ops.selective_scan_2d, 4 * batch * dim * length * states


def cases() -> Iterator[tuple[str, list, Callable, int]]:
    """(name, inputs, call, elements): elements are what the name says in brackets."""
    import torch

    from bdgf_fast import ops
    from bdgf_fast.diffusion import Schedule

    randn = torch.randn
    yield "selective_scan (2, 64, 49, 16) [state steps]", *scan(2, 64, 49, 16)
    yield "selective_scan (1, 64, 256, 16) gated [state steps]", *scan(1, 64, 256, 16, gate=True)
    yield "selective_scan (1, 32, 1024, 16) [state steps]", *scan(1, 32, 1024, 16)
    yield "selective_scan (128, 32, 4, 16) [state steps]", *scan(128, 32, 4, 16)
    yield "selective_scan_2d (1, 32, 16, 16), 4 directions [state steps]", *scan_2d(1, 32, 16, 16)
    conv = [randn(4, 64, 121), randn(64, 4), randn(64)]
    yield "causal_conv1d (4, 64, 121), width 4 [outputs]", conv, lambda *x: ops.causal_conv1d(*x, activation="silu"), 4 * 64 * 121
    heads = [randn(2, 4, 49, 16) for _ in range(3)]
    yield "cross_attention (2, 4, 49, 16) [multiply-adds of QK']", heads, ops.cross_attention, 2 * 4 * 49 * 49 * 16
    windows = [randn(2, 2, 256, 32) for _ in range(3)]
    yield "cross_attention (2, 2, 256, 32) [multiply-adds of QK']", windows, ops.cross_attention, 2 * 2 * 256 * 256 * 32
    channels = [randn(2, 64, 121), randn(2, 64, 121), randn(2, 64, 121), torch.ones(4)]
    yield (
        "group_channel_attention (2, 64, 121), 4 groups [multiply-adds of QK']",
        channels,
        lambda *x: ops.group_channel_attention(*x, groups=4),
        2 * 4 * 16 * 16 * 121,
    )
    gate = [randn(4, 64, 11, 11), randn(4, 32, 11, 11), randn(4, 8, 24), randn(4, 8), randn(4, 16, 8), randn(4, 16)]
    yield (
        "group_channel_gate (4, 64, 11, 11) [elements of x]",
        gate,
        lambda *x: ops.group_channel_gate(*x, groups=4),
        4 * 64 * 121,
    )
    schedule, shape = Schedule.linear(), (8, 32, 11, 11)
    elements, t = 8 * 32 * 121, torch.arange(8)
    place = {"origin": torch.arange(16).view(8, 2), "extent": (512, 512)}
    yield "philox_normal (8, 32, 11, 11) [normals]", [], lambda: ops.philox_normal(shape, 1), elements
    yield "philox_normal (8, 32, 11, 11) by scene [normals]", [], lambda: ops.philox_normal(shape, 1, **place), elements
    yield "q_sample (8, 32, 11, 11) [elements]", [randn(shape)], lambda x: ops.q_sample(x, t, schedule, 1), elements
    yield (
        "denoising_loss (8, 32, 11, 11) [elements]",
        [randn(shape)],
        lambda x: ops.denoising_loss(x, t, schedule, 1, channel_groups=(24, 8)),
        elements,
    )
    yield (
        "ddpm_step (8, 32, 11, 11) [elements]",
        [randn(shape), randn(shape)],
        lambda x, y: ops.ddpm_step(x, t, y, schedule, prediction_type="epsilon", seed=1),
        elements,
    )


# ---------------------------------------------------------------------------------------------- under callgrind
def run_cases(switch_library: str) -> None:
    """In the process that callgrind watches: a dump for every forward and every backward, named after it."""
    import torch

    switch = ctypes.CDLL(switch_library)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    from bdgf_fast import use_backend

    elements = {}
    with use_backend("cpu"):
        for name, inputs, call, count in cases():
            leaves = [x.requires_grad_(bool(x.is_floating_point())) for x in inputs]
            call(*leaves)  # what happens once in a process
            switch.start()
            out = call(*leaves)
            switch.stop(f"{name} forward".encode())
            elements[f"{name} forward"] = count
            if not leaves:
                continue
            weight = torch.randn(out.shape)
            switch.start()
            torch.autograd.grad(out, leaves, weight)
            switch.stop(f"{name} backward".encode())
            elements[f"{name} backward"] = count
    Path(os.environ["BDGF_COUNT_ELEMENTS"]).write_text(json.dumps(elements))


def instructions(dump: Path) -> tuple[str, int]:
    """(what the dump was triggered by, instructions inside the extension)."""
    name, inside, skip, total = "", False, False, 0
    for line in dump.read_text().splitlines():
        if line.startswith("desc: Trigger: Client Request: "):
            name = line.removeprefix("desc: Trigger: Client Request: ")
        elif line.startswith("ob="):
            inside = "/_C." in line
        elif line.startswith("calls="):
            skip = True  # the next line is what the called function cost
        elif line[:1].isdigit():
            if skip:
                skip = False
            elif inside:
                total += int(line.split()[1])
    return name, total


def count() -> dict[str, float]:
    """Instructions an element of every case."""
    with tempfile.TemporaryDirectory() as folder:
        source, library, elements = Path(folder, "switch.c"), Path(folder, "switch.so"), Path(folder, "elements.json")
        source.write_text(SWITCH)
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--compress-strings=no", "--compress-pos=no"]
        command += [f"--callgrind-out-file={folder}/dump", sys.executable, __file__, "--run", str(library)]
        settings = {"BDGF_CPU_ISA": "avx2", "BDGF_COUNT_ELEMENTS": str(elements), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"callgrind ended with code {done.returncode}:\n{done.stderr[-2000:]}")
        found = dict(instructions(path) for path in Path(folder).glob("dump.*"))
        return {name: round(found[name] / n, 3) for name, n in json.loads(elements.read_text()).items()}


def compiler() -> str:
    from bdgf_fast import _native

    return _native.load().build_info()["compiler"]


def too_many(found: dict[str, float], budget: dict[str, float]) -> list[str]:
    """A line for each kernel above its budget, or without one."""
    lines = []
    for name, value in found.items():
        if name not in budget:
            lines.append(f"{name}: {value:.2f} instructions an element, and no budget: run `make bench-count COUNT_ARGS=--write`")
        elif value > ALLOWED * budget[name]:
            lines.append(f"{name}: {value:.2f} instructions an element; the budget is {budget[name]:.2f}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Count instructions an element of the CPU kernels.")
    parser.add_argument("--write", action="store_true", help="write the budget in place of comparing with it")
    parser.add_argument("--run", metavar="LIBRARY", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_cases(arguments.run)
        return 0
    problem = obstacle()
    if problem:
        print(problem, file=sys.stderr)
        return 1
    found = count()
    budget = {} if arguments.write or not BUDGET.exists() else json.loads(BUDGET.read_text())["instructions"]
    for name, value in found.items():
        print(f"{value:9.2f}  {'' if name not in budget else f'{value / budget[name] - 1:+6.1%}':7}  {name}")
    if arguments.write:
        BUDGET.write_text(json.dumps({"compiler": compiler(), "level": "avx2", "instructions": found}, indent=1) + "\n")
        return 0
    problems = too_many(found, budget)
    print("\n".join(problems), file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
