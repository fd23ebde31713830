"""Every Triton kernel on the CPU under TRITON_INTERPRET=1, against the float64 reference.

The variable binds where kernels are decorated, so the tests themselves (interpreted/<op>.py) run in processes of their
own, two at a time. One of them by hand: TRITON_INTERPRET=1 pytest tests/triton/interpreted/<op>.py
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "interpreted"
OPERATIONS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "conftest")
CASES = "5"
"""Of each test, spread over its cases; without --sample by hand all are run."""
pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton (Linux only)")


def _run(op: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    options = ["-q", "-p", "no:cacheprovider", "--sample", CASES, "--durations=5"]
    command = [sys.executable, "-m", "pytest", *options, str(FOLDER / f"{op}.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def runs(request):
    """op -> its finished run; all selected ones at once, two at a time."""
    wanted = [item.callspec.params["op"] for item in request.session.items if item.function is test_against_the_reference]
    with ThreadPoolExecutor(2) as pool:
        if "PYTEST_XDIST_WORKER" in os.environ:
            yield _run
        else:
            futures = {op: pool.submit(_run, op) for op in wanted}
            yield lambda op: futures[op].result()


@pytest.mark.parametrize("op", OPERATIONS)
def test_against_the_reference(runs, op):
    run = runs(op)
    print(run.stdout)
    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr[-5_000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout.splitlines()[-1]
