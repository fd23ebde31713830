"""The operations' speed on this machine, beside what one would write in plain PyTorch.

Every case is compared with the float64 definition before it is timed, ours and the baseline take turns, and the fewest
milliseconds of each count. The repository's benchmarks have more shapes, more baselines and limits; these need nothing but the
installed package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import backends, ops
from .diffusion import Schedule
from .errors import UserError, closest

ROUNDS = 40
GATED = 2
"""Rows of the batch that are compared with float64."""


@dataclass
class Case:
    """One operation at one shape."""

    op: str
    shape: tuple[int, ...]
    ours: Callable[..., Tensor]
    inputs: Callable[[torch.Generator], list[Tensor]]
    """Tensors of the call; those with ``shape[0]`` rows are cut for the comparison."""
    baseline: str
    plain: Callable[..., Tensor] | None = None
    """What the baseline computes; None: the operation's definition in plain PyTorch (`bdgf_fast.reference`)."""
    backward: bool = False
    frozen: tuple[int, ...] = field(default_factory=tuple)
    """Positions of inputs without a gradient."""


@dataclass(frozen=True)
class Timing:
    """A row of the table; ``ratio`` is how many times faster ours is."""

    op: str
    passes: str
    shape: tuple[int, ...]
    backend: str
    milliseconds: float
    baseline: str
    baseline_milliseconds: float

    @property
    def ratio(self) -> float:
        return self.baseline_milliseconds / self.milliseconds


def _normal(*shapes: tuple[int, ...]) -> Callable[[torch.Generator], list[Tensor]]:
    return lambda g: [torch.randn(shape, generator=g) for shape in shapes]


def _scan_inputs(batch: int, dim: int, length: int, states: int) -> Callable[[torch.Generator], list[Tensor]]:
    def made(g: torch.Generator) -> list[Tensor]:
        u, delta, B, C, D = _normal((batch, dim, length), (batch, dim, length), *[(batch, states, length)] * 2, (dim,))(g)
        return [u, delta - 2, -torch.exp(2 * torch.rand(dim, states, generator=g)), B, C, D]

    return made


def _scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Any:
    return ops.selective_scan(u, delta, A, B, C, D, delta_softplus=True)


def cases() -> list[Case]:
    """Shapes of spectral and spatial models: many short sequences, small patches, one map."""
    schedule, noisy, groups = Schedule.linear(), (256, 182, 11, 11), (144, 38)
    qkv, gate = (256, 8, 49, 16), (256, 64, 11, 11)
    scan = Case("selective_scan", (64, 128, 121, 16), _scan, _scan_inputs(64, 128, 121, 16), "a loop over time")
    attention = Case("cross_attention", qkv, ops.cross_attention, _normal(qkv, qkv, qkv), "sdpa", F.scaled_dot_product_attention)

    def steps(g: torch.Generator) -> list[Tensor]:
        return [torch.randn(noisy, generator=g), torch.randint(0, 1000, noisy[:1], generator=g)]

    def randn_and_arithmetic(x: Tensor, t: Tensor) -> Tensor:
        a, r = (table.to(x)[t][:, None, None, None]
                for table in (schedule.sqrt_alphas_cumprod, schedule.sqrt_one_minus_alphas_cumprod))  # fmt: skip
        return a * x + r * torch.randn_like(x)

    def by_modality(pred: Tensor, t: Tensor) -> Tensor:
        target = torch.randn_like(pred)
        pairs = zip(pred.split(groups, 1), target.split(groups, 1), strict=True)
        return torch.stack([(p - y).square().flatten(1).mean(1) for p, y in pairs], 1)

    return [
        scan,
        replace(scan, backward=True),
        Case("causal_conv1d", (64, 128, 121), lambda x, w, b: ops.causal_conv1d(x, w, b, "silu"),
             _normal((64, 128, 121), (128, 4), (128,)), "conv1d + silu", backward=True),
        attention,
        replace(attention, backward=True),
        Case("group_channel_attention", (256, 64, 121), lambda *x: ops.group_channel_attention(*x, groups=8),
             _normal(*[(256, 64, 121)] * 3, (8,)), "plain PyTorch", backward=True),
        Case("group_channel_gate", gate, lambda *x: ops.group_channel_gate(*x, groups=4),
             _normal(gate, gate, (4, 8, 32), (4, 8), (4, 16, 8), (4, 16)), "plain PyTorch", backward=True),
        Case("box_statistics", (1, 64, 202, 202), lambda x: ops.box_statistics(x, [5]), _normal((1, 64, 202, 202)), "avg_pool2d"),
        Case("q_sample", noisy, lambda x, t: ops.q_sample(x, t, schedule, 1), steps, "randn + arithmetic", randn_and_arithmetic,
             frozen=(1,)),
        Case("denoising_loss", noisy, lambda p, t: ops.denoising_loss(p, t, schedule, 1, channel_groups=groups), steps,
             "randn + mse", by_modality, backward=True, frozen=(1,)),
    ]  # fmt: skip


def bench(names: Sequence[str] = (), device: torch.device | str = "cpu", *, seconds: float = 1.0,
          started: Callable[[], None] | None = None, each: Callable[[Timing], None] | None = None) -> list[Timing]:  # fmt: skip
    """Time the operations, all or those named, on a device.

    Args:
        seconds: spent on each case, about; at least three turns are taken.
        started: called when the names are known to be right, before anything is timed.
        each: called with every row when it is there.

    Raises UserError for an unknown name, and for a result that differs from the definition: that is never timed. Example::

        from bdgf_fast.benchmark import bench
        for row in bench(["cross_attention"]):
            print(row.op, row.milliseconds, row.ratio)
    """
    if not seconds > 0:
        raise UserError(f"seconds is {seconds:g}; it takes a number above 0")
    known = list(dict.fromkeys(case.op for case in cases()))
    for name in names:
        if name not in known:
            raise UserError(f"there is no benchmark of {name!r}{closest(name, known)}; there are: {', '.join(known)}")
    if started is not None:
        started()
    rows = []
    for case in cases():
        if not names or case.op in names:
            rows.append(_timed(case, torch.device(device), seconds))
            if each is not None:
                each(rows[-1])
    return rows


def _timed(case: Case, device: torch.device, seconds: float) -> Timing:
    tensors = [x.to(device) for x in case.inputs(torch.Generator().manual_seed(0))]
    weight = torch.randn(case.ours(*tensors).shape, generator=torch.Generator().manual_seed(1)).to(device)
    _gate(case, tensors, weight)
    plain = case.plain or _by_definition(case.ours)
    mine, theirs = (_step(case, call, tensors, weight) for call in (case.ours, plain))
    best = _race([mine, theirs], device, seconds)
    backend = next(row["backend"] for row in backends.table(case.op) if row["device"] == device.type)
    passes = "forward and backward" if case.backward else "forward"
    return Timing(case.op, passes, case.shape, backends.forced() or backend, 1e3 * best[0], case.baseline, 1e3 * best[1])


def _by_definition(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(*tensors: Tensor) -> Tensor:
        with backends.use_backend("reference"):
            return call(*tensors)

    return run


def _step(case: Case, call: Callable[..., Tensor], tensors: Sequence[Tensor], weight: Tensor) -> Callable[[], list[Tensor]]:
    """One pass of a case: the result and, with the backward, every gradient."""
    if not case.backward:

        def forward() -> list[Tensor]:
            with torch.no_grad():
                return [call(*tensors)]

        return forward
    leaves = [x if i in case.frozen else x.detach().clone().requires_grad_() for i, x in enumerate(tensors)]
    wanted = [x for x in leaves if x.requires_grad]

    def both() -> list[Tensor]:
        out = call(*leaves)
        return [out.detach(), *torch.autograd.grad(out, wanted, weight)]

    return both


def _gate(case: Case, tensors: Sequence[Tensor], weight: Tensor) -> None:
    """Raise UserError unless a few rows agree with the definition in float64, in value and gradients."""
    rows = case.shape[0]
    batched = [i in case.frozen or (len(x) == rows and x.dim() == tensors[0].dim()) for i, x in enumerate(tensors)]
    few = [x[:GATED] if cut else x for x, cut in zip(tensors, batched, strict=True)]
    exact = [x.double() if x.is_floating_point() else x for x in few]
    found = _step(case, case.ours, few, weight[:GATED])()
    want = _step(case, _by_definition(case.ours), exact, weight[:GATED].double())()
    for got, true in zip(found, want, strict=True):
        if not torch.allclose(got.double(), true, rtol=1e-4, atol=1e-5 * float(true.abs().max())):
            worst = float((got.double() - true).abs().max())
            raise UserError(f"{case.op} differs from its definition by {worst:.2g} on this machine; please report it with what "
                            "`bdgf-fast info` prints")  # fmt: skip


def _race(calls: Sequence[Callable[[], Any]], device: torch.device, seconds: float) -> list[float]:
    """Fewest seconds of each call, in turns, so that a busy moment hits all alike."""

    def once(call: Callable[[], Any]) -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    for call in calls:
        once(call)
    best, end = [float("inf")] * len(calls), time.perf_counter() + seconds
    for turn in range(ROUNDS):
        best = [min(fewest, once(call)) for fewest, call in zip(best, calls, strict=True)]
        if turn >= 2 and time.perf_counter() > end:
            break
    return best


def text(row: Timing) -> str:
    """A row as the command line prints it."""
    shape = " x ".join(map(str, row.shape))
    return (f"{row.op:<24} {row.passes:<21} {shape:<20} {row.milliseconds:9.2f} {row.baseline_milliseconds:12.2f} {row.ratio:7.1f}x"
            f"  {row.backend} against {row.baseline}")  # fmt: skip


HEADING = f"{'operation':<24} {'passes':<21} {'shape':<20} {'ours, ms':>9} {'baseline, ms':>12} {'ratio':>8}"
