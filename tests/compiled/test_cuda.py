"""The compile proof of the CUDA kernels: architectures, no stack, no spills, registers and shared memory in their budget."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from bdgf_fast import _native

sys.path.insert(0, str(Path(__file__).parent))
import binary  # noqa: E402

BUDGET = json.loads(binary.BUDGET.read_text())


@pytest.fixture(scope="module")
def built():
    info = _native.build_info()
    if info["cuda"] is None:
        pytest.skip(f"the extension was built without CUDA: {info['cuda_missing_because']}")
    if info["cuda_architectures"] != "80-real 90-real 120-real 120-virtual":
        pytest.skip(f"the budgets are those of the default architectures, this build has {info['cuda_architectures']}")
    if binary.cuobjdump() is None:
        pytest.skip("no cuobjdump: it comes with nvcc or with triton")
    if shutil.which("c++filt") is None:
        pytest.skip("no c++filt to read the kernels' names")
    return binary.read(info["extension"])


def test_every_architecture_is_there(built):
    _, architectures, ptx = built
    assert architectures == set(binary.ARCHITECTURES) and ptx


def test_every_kernel_has_a_row_and_every_row_a_kernel(built):
    kernels, _, _ = built
    assert len({(k.name, k.architecture) for k in kernels}) == len(kernels)
    for architecture in binary.ARCHITECTURES:
        assert {k.name for k in kernels if k.architecture == architecture} == set(BUDGET["kernels"])


def test_nothing_lives_on_the_stack(built):
    kernels, _, _ = built
    assert all(k.instructions > 0 for k in kernels)
    bad = [f"{k.name} {k.architecture}: STACK {k.stack}, {k.local} local accesses" for k in kernels if k.stack or k.local]
    assert not [b for b in bad if b.split(" sm_")[0] not in BUDGET["exceptions"]], bad
    spilling = {k.name for k in kernels if k.stack or k.local}
    assert set(BUDGET["exceptions"]) <= spilling, "an exception that is none any more"


def test_registers_and_shared_memory_are_within_their_budget(built):
    kernels, _, _ = built
    for name, row in binary.most(kernels).items():
        for what, value in row.items():
            assert value <= BUDGET["kernels"][name][what], f"{name}: {value} {what}, the budget is {BUDGET['kernels'][name][what]}"
