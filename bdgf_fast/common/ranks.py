"""Several processes under torchrun: the group, sums over it, and who writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

WAIT = timedelta(minutes=30)  # for the slowest rank: rank 0 fits baselines alone while the others wait
PATIENCE = timedelta(days=30)  # for ranks that work through shares of their own, one of which may take far longer
_alone = False


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """Join the process group that torchrun's environment describes; alone, do nothing. Tensors on the CPU go by gloo in every
    group, those on GPUs by NCCL."""
    if int(os.environ.get("WORLD_SIZE", 1)) < 2 or not dist.is_available() or dist.is_initialized():
        yield
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=WAIT)
    try:
        yield
        dist.barrier()  # nobody leaves while another still waits for its data
    finally:
        dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """Within, each rank works by itself, as if there were no other: ``ranks`` is (0, 1) and nothing waits. At the end all wait for
    one another, however long that takes. Every rank must enter it."""
    global _alone
    if ranks()[1] == 1:
        yield
        return
    everyone = dist.new_group(backend="gloo", timeout=PATIENCE)
    _alone = True
    try:
        yield
    finally:
        _alone = False
    dist.barrier(group=everyone)
    dist.destroy_process_group(everyone)


def ranks() -> tuple[int, int]:
    """(rank, world size); (0, 1) outside torch.distributed and within ``alone``."""
    if _alone:
        return 0, 1
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def leads() -> bool:
    """Whether this process is the one that writes."""
    return ranks()[0] == 0


def barrier() -> None:
    """Wait for every rank: files that rank 0 wrote before it may be read after it."""
    if ranks()[1] > 1:
        dist.barrier()


def reduce_sum(x: Tensor) -> Tensor:
    """Sum over the ranks, in place, without a gradient."""
    if ranks()[1] > 1:
        dist.all_reduce(x)
    return x


def reduce_mean(x: Tensor) -> Tensor:
    """Mean over the ranks, in place, without a gradient."""
    return reduce_sum(x) / ranks()[1]


def on_any_rank(*flags: bool) -> list[bool]:
    """Each flag: whether it is set on one rank at least. Every rank must call it."""
    return [count > 0 for count in reduce_sum(torch.tensor(flags, dtype=torch.int64)).tolist()]


class _Sum(torch.autograd.Function):
    """The loss of every rank depends on the sum, so the gradient of a term is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return reduce_sum(x.clone())

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return reduce_sum(grad.clone())


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum over the ranks, with its gradient. Every rank must call it, and run its backward, equally often."""
    return x if ranks()[1] == 1 else _Sum.apply(x)


def collect(value: Any) -> list[Any] | None:
    """One picklable value a rank, in rank order, on rank 0; None elsewhere."""
    rank, world = ranks()
    if world == 1:
        return [value]
    found: list[Any] | None = [None] * world if rank == 0 else None
    dist.gather_object(value, found)
    return found
