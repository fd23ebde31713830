"""A pytest plugin for a child process under AddressSanitizer: the CUDA kernels, emulated, become the backend `cuda` of CPU
tensors, and only the tests of that backend run. Every launch is repeated in another order of its threads and blocks, its
outputs poisoned before each; they must agree bit for bit. (A batch of many thousands runs once: what it tests is the grid.)"""

from __future__ import annotations

import os
import sys

import pytest
import torch

sys.path.insert(0, os.environ["BDGF_EMULATED"])

import bdgf_emulated  # noqa: E402

import bdgf_fast.ops  # noqa: E402, F401
from bdgf_fast import _native, backends  # noqa: E402

ORDERS = (("ascending", 0), ("random", 1))
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(BITS[x.element_size()])


def in_every_order(launch):
    def run(outputs, *arguments):
        found = []
        real, _native.load = _native.load, lambda: bdgf_emulated
        try:
            samples = max(x.shape[0] if x.dim() else 1 for x in outputs if x is not None)
            for order, seed in ORDERS if samples < 10_000 else ORDERS[:1]:
                for x in outputs:
                    if x is not None:
                        bits(x).fill_(-1)
                bdgf_emulated.set_order(order, seed)
                launch(outputs, *arguments)
                found.append([None if x is None else bits(x).clone() for x in outputs])
        finally:
            _native.load = real
        for (order, _), other in zip(ORDERS[1:], found[1:], strict=False):
            for i, (a, b) in enumerate(zip(found[0], other, strict=True)):
                assert a is None or torch.equal(a, b), f"output {i} differs between ascending and {order} order of the threads"

    return run


backends._ORDER["cpu"] = ("cuda",)
backends._missing["cuda"] = None
for kernels in backends._registry.values():
    if "cuda" in kernels:
        old = kernels["cuda"]
        backward = None if old.backward is None else in_every_order(old.backward)
        kernels["cuda"] = backends.Implementation(in_every_order(old.forward), backward, old.supports, old.prefers)


def pytest_collection_modifyitems(config, items):
    # Where the device decides whether a call raises, the tests ask for the CPU's answer: cases_<op>.py have the GPU's. A
    # block per sample makes a grid of 70,000 slow here; every launch's grid is held against the limits anyway. Repeating
    # a call for the same bits adds nothing, since every launch is repeated in another order.
    other = ("test_a_timestep_out_of_range", "test_more_samples_than_a_launch_grid", "test_bitwise_the_same_on_repeat")
    keep = [i for i in items if "cases" in i.fspath.basename or (_backend(i) == "cuda" and not i.name.startswith(other))]
    config.hook.pytest_deselected(items=[i for i in items if i not in keep])
    items[:] = keep


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("launched: " + "; ".join(bdgf_emulated.launched()))


def _backend(item) -> str | None:
    target = getattr(item, "callspec", None) and item.callspec.params.get("target")
    return target.backend if target else None


@pytest.fixture(scope="session")
def emulated():
    return bdgf_emulated
