"""Every Triton kernel, dtype and capability compiles within its budgets, proven from the cubins without a GPU."""

from __future__ import annotations

import importlib.util
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from bdgf_fast import backends

sys.path.insert(0, str(Path(__file__).parent))
import proof  # noqa: E402

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton (Linux only)")
DTYPES = ("float32", "float16", "bfloat16")
CASES = [(dtype, capability) for capability in proof.CAPABILITIES for dtype in DTYPES]
# float32 and one dtype of 16 bits for sm_90, the other one for sm_80, and float32 for sm_120, where shared memory is smallest.
# BDGF_COMPILE_ALL=1 compiles all nine combinations.
CHOSEN = [("float32", 90), ("bfloat16", 90), ("float16", 80), ("float32", 120)]


@pytest.fixture(scope="session")  # each worker of pytest-xdist has a share of the cases, and a pool
def compiled(tmp_path_factory, request):
    """(op, dtype, capability) -> what was compiled; all selected cases at once, over two processes."""
    wanted = [tuple(item.callspec.params[k] for k in ("op", "dtype", "capability"))
              for item in request.session.items if item.function is test_budgets]  # fmt: skip
    directory = str(tmp_path_factory.mktemp("triton"))
    pool = ProcessPoolExecutor(2, get_context("spawn"), proof.start, (directory,))
    with pool:
        if "PYTEST_XDIST_WORKER" in os.environ:
            yield lambda *case: pool.submit(proof.prove, *case).result()
        else:
            futures = {case: pool.submit(proof.prove, *case) for case in wanted}
            yield lambda *case: futures[case].result()


@pytest.mark.parametrize(("dtype", "capability"), CASES if os.environ.get("BDGF_COMPILE_ALL") == "1" else CHOSEN)
@pytest.mark.parametrize("op", proof.OPERATIONS)
def test_budgets(compiled, op, dtype, capability):
    """No stack, no local memory, shared memory that a block can have, registers and seconds within the budget.

    compiled/<op>.py commits REGISTERS, {kernel: most}, and EXCEPTIONS, {(kernel, a constant as in "N=256"): reason}, which
    may use local memory.
    """
    cases = proof.cases(op)
    found = compiled(op, dtype, capability)
    assert {c.kernel for c in found} == set(cases.REGISTERS), "kernels without a budget, or budgets without a kernel"
    exceptions = getattr(cases, "EXCEPTIONS", {})
    for c in found:
        assert c.registers <= cases.REGISTERS[c.kernel], c
        assert c.shared <= proof.SHARED[capability], c
        assert c.seconds <= proof.SECONDS, c
        if not any(c.kernel == kernel and f"{constant}," in c.constants for kernel, constant in exceptions):
            assert c.stack == 0 and c.local == 0, c


def test_every_operation_is_proven():
    with_kernels = {op for op in backends.operations() if "triton" in backends._registry.get(op, {})}
    assert with_kernels == set(proof.OPERATIONS) == {p.stem for p in (proof.HERE / "interpreted").glob("*.py")} - {"conftest"}


def test_local_memory_is_seen(tmp_path):
    """The reading of the cubin itself: a kernel that must spill shows stack and LDL/STL."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import proof; proof.start(sys.argv[2]); import spilling\n"
        "from bdgf_fast.triton_kernels._launch import Launch\n"
        "c = proof.compile_launch(spilling.LAUNCH, 90); print(c); assert c.stack > 0 and c.local > 0"
    )
    import subprocess

    run = subprocess.run([sys.executable, "-c", code, str(proof.HERE), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
