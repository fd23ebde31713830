"""Triton kernels under two versions of Triton: the current one, and the one that machines with a GPU often have.

Their compilers choose different layouts for the same kernel, so what is fast under one can be slow under the other. The older one
is fetched from the package registry into .cache; what was found is kept there, under the hash of all that it depends on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
OLDER = "3.6.0"
BUDGET = json.loads((Path(__file__).parent / "executed_budget.json").read_text())  # warp instructions for 32 exps or elements
OPS = ("selective_scan", "causal_conv1d", "cross_attention")
SOURCES = ("triton_kernels/*.py", *(f"bdgf_fast/ops/{op}.py" for op in OPS), "bench/gpu/*.py", "tests/compiled/binary.py",
           "tests/triton/executed.py", "tests/triton/proof.py")  # fmt: skip


def older_triton() -> Path:
    """The folder with Triton OLDER."""
    folder = CACHE / f"triton-{OLDER}"
    if folder.exists():
        return folder
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as beside:
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile",
                   "--only-binary", ":all:", "--retries", "1", "--target", f"{beside}/site", f"triton=={OLDER}"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"Triton {OLDER} cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
        if not folder.exists():
            os.replace(f"{beside}/site", folder)
    return folder


def executed(site: Path | None, version: str) -> dict:
    """What executed.py prints with a Triton from `site`, or with the installed one."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in SOURCES for p in ROOT.glob(pattern)):
        digest.update(path.read_bytes())
    kept = CACHE / f"executed-{version}-{digest.hexdigest()[:16]}.json"
    if not kept.exists():
        paths = [str(x) for x in (site, os.environ.get("PYTHONPATH")) if x]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
        script = Path(__file__).parent / "executed.py"
        done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr[-4000:]
        CACHE.mkdir(exist_ok=True)
        beside = kept.with_suffix(f".{os.getpid()}")
        beside.write_text(done.stdout)
        os.replace(beside, kept)
    return json.loads(kept.read_text())


def hold(found: dict, version: str) -> None:
    assert found["triton"] == version and not found["local memory"]
    assert found["instructions"].keys() == BUDGET[version].keys()
    over = [f"{name}: {n}, the budget is {BUDGET[version][name]}" for name, n in found["instructions"].items()
            if n > 1.05 * BUDGET[version][name]]  # fmt: skip
    assert not over, f"Triton {version}: {'; '.join(over)}"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs triton (Linux only)")
def test_the_older_triton_keeps_within_its_budget():
    hold(executed(older_triton(), OLDER), OLDER)


@pytest.mark.slow
def test_the_current_triton_keeps_within_its_budget():
    if importlib.util.find_spec("triton") is None:
        pytest.skip("needs triton (Linux only)")
    import triton

    if triton.__version__ not in BUDGET:
        pytest.skip(f"no instructions are budgeted for Triton {triton.__version__}")
    hold(executed(None, triton.__version__), triton.__version__)
