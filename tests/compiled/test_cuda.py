"""The compile proof of the CUDA kernels: architectures, no stack, no spills, registers and shared memory in their budget."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from bdgf_fast import _native

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "bench/gpu")]
import binary  # noqa: E402
import launches  # noqa: E402
import predict  # noqa: E402

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
    return binary.read(info["extension"], code=predict.ARCHITECTURE)


@pytest.fixture(scope="module")
def recorded():
    return json.loads(launches.FILE.read_text())


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


def test_launches_are_those_of_the_sources(built, recorded):
    assert recorded["sources"] == launches.sources_digest(), "csrc/cuda has changed: run python bench/gpu/launches.py"


def test_every_launch_keeps_within_the_shared_memory_that_it_may_take(recorded):
    """48 KiB of static and dynamic memory without asking; where a launch asks for more (cuda::allow_shared), what sm_120 has."""
    static = {name: row["shared"] for name, row in BUDGET["kernels"].items()}
    asks = ("gate_fused_backward_kernel", "selective_scan_bwd_kernel")
    for row in recorded["rows"]:
        for launch in row["launches"]:
            most = 99 * 1024 if launch["kernel"].startswith(asks) else 48 * 1024
            taken = static[launch["kernel"]] + launch["dynamic_shared"]
            assert taken <= most, f"{launch['kernel']} for {row['case']}: {taken} bytes of shared memory, it may take {most}"


@pytest.mark.slow
def test_instructions_are_within_their_budget(built, recorded):
    """Warp instructions for 32 elements or exps, executed with recorded launches (bench/gpu/predict.py); 5 % more fails."""
    kernels = {k.name: k for k in built[0] if k.architecture == predict.ARCHITECTURE}
    cases = {f"{row['case']} {row['direction']}": row for row in recorded["rows"]}
    assert set(BUDGET["instructions"]) == set(predict.BUDGETED)
    found = {name: predict.instructions_per_unit(predict.row_of(cases[name], kernels)) for name in predict.BUDGETED}
    over = [
        f"{name}: {found[name]}, the budget is {most}" for name, most in BUDGET["instructions"].items() if found[name] > 1.05 * most
    ]
    assert not over, "; ".join(over)
