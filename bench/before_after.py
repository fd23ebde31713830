"""Two states of the package against each other, call by call in turn: the time of each case before and after.

    python bench/before_after.py BEFORE AFTER [--seconds 4] [--only scan]

BEFORE and AFTER are folders that hold a built package `bdgf_fast` (the repository with the extension beside its Python files, or a
site-packages). Each is loaded by a process of its own; the two take turns, one call each, while the other waits, so that a busy
moment hits both alike. The minimum of each is shown, on as many threads as torch takes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path


def cases() -> Iterator[tuple[str, Callable[[], tuple]]]:
    """(name, a function that makes (tensors, call)): the shapes that matter, also those of the dense network."""
    import torch
    from count import scan, scan_2d

    from bdgf_fast import ops
    from bdgf_fast.diffusion import Schedule

    def randn(*shapes):
        return [torch.randn(shape) for shape in shapes]

    def channel_attention():
        qkv = randn((256, 64, 121), (256, 64, 121), (256, 64, 121), 8)
        return qkv, lambda *x: ops.group_channel_attention(*x, groups=8)

    def gate():
        maps, weights = ((256, 64, 11, 11), (256, 32, 11, 11)), ((4, 8, 24), (4, 8), (4, 16, 8), (4, 16))
        return randn(*maps, *weights), lambda *x: ops.group_channel_gate(*x, groups=4)

    def conv():
        return randn((64, 128, 121), (128, 4), 128), lambda *x: ops.causal_conv1d(*x, activation="silu")

    schedule, t, noised = Schedule.linear(), torch.arange(256), (256, 64, 11, 11)
    for shape in ((64, 128, 49, 16), (64, 128, 121, 16), (64, 128, 256, 16), (1, 128, 50_000, 16), (50_000, 32, 4, 16)):
        yield f"selective_scan {shape}", lambda shape=shape: scan(*shape)[:2]
    yield "selective_scan_2d (64, 96, 11, 11, 16)", lambda: scan_2d(64, 96, 11, 16)[:2]
    yield "selective_scan_2d (64, 64, 32, 32, 8)", lambda: scan_2d(64, 64, 32, 8)[:2]
    for heads in ((256, 8, 49, 16), (256, 4, 64, 32), (32, 4, 256, 32)):
        yield f"cross_attention {heads}", lambda heads=heads: (randn(heads, heads, heads), ops.cross_attention)
    yield "group_channel_attention (256, 64, 121), 8 groups", channel_attention
    yield "group_channel_gate (256, 64, 11, 11), 4 groups", gate
    yield "causal_conv1d (64, 128, 121), width 4", conv
    yield f"q_sample {noised}", lambda: (randn(noised), lambda x: ops.q_sample(x, t, schedule, 1))
    yield f"denoising_loss {noised}", lambda: (
        randn(noised),
        lambda x: ops.denoising_loss(x, t, schedule, 1, channel_groups=(48, 16)),
    )


def serve() -> None:
    """The process of one state: a line with the number of a case and a direction in, the seconds of a call out."""
    import torch

    from bdgf_fast import use_backend

    torch.manual_seed(0)
    made: dict[int, tuple] = {}
    makers = list(cases())
    with use_backend("cpu"):
        for line in sys.stdin:
            number, backward = json.loads(line)
            if number not in made:
                made.clear()
                tensors, call = makers[number][1]()
                leaves = [x.requires_grad_() for x in tensors]
                made[number] = (leaves, call, torch.randn_like(call(*leaves)))
            leaves, call, weight = made[number]
            with torch.set_grad_enabled(backward):
                start = time.perf_counter()
                out = call(*leaves)
                if backward:
                    torch.autograd.grad(out, leaves, weight)
                print(time.perf_counter() - start, flush=True)


class State:
    """A process with one state of the package."""

    def __init__(self, folder: Path):
        start = (
            "import sys\n"
            # an editable install's finder would answer for the package before the path does
            "sys.meta_path[:] = [f for f in sys.meta_path if 'Redirecting' not in type(f).__name__]\n"
            f"sys.path[:0] = [{str(folder.resolve())!r}, {str(Path(__file__).parent)!r}]\n"
            "import bdgf_fast, before_after\n"
            "print(bdgf_fast.__file__, flush=True)\n"
            "before_after.serve()\n"
        )
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([sys.executable, "-c", start], env=environment, text=True, **pipes)  # type: ignore[call-overload]
        found = self.process.stdout.readline().strip()
        if Path(found).parent.parent.resolve() != folder.resolve():
            raise SystemExit(f"{folder} holds no package bdgf_fast that loads (found: {found or 'none'})")

    def seconds(self, number: int, backward: bool) -> float:
        """Of one call."""
        self.process.stdin.write(json.dumps([number, backward]) + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline() or "nan")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time two states of the package in turn.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each case and direction (default: 4)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name holds TEXT")
    arguments = parser.parse_args()
    states = [State(arguments.before), State(arguments.after)]
    print("| case | before, ms | after, ms | after / before |\n|---|---|---|---|")
    for number, (name, _) in enumerate(cases()):
        if arguments.only not in name:
            continue
        for backward in (False, True):
            for state in states:
                state.seconds(number, backward)
            best = [float("inf"), float("inf")]
            end, turn = time.perf_counter() + arguments.seconds, 0
            while turn < 3 or (turn < 200 and time.perf_counter() < end):
                for i in (0, 1) if turn % 2 == 0 else (1, 0):
                    best[i] = min(best[i], states[i].seconds(number, backward))
                turn += 1
            before, after = best
            direction = "forward and backward" if backward else "forward"
            print(f"| {name} {direction} | {1e3 * before:.2f} | {1e3 * after:.2f} | {after / before:.2f} |", flush=True)
    for state in states:
        state.process.stdin.close()
        state.process.wait()


if __name__ == "__main__":
    main()
