"""The emulated module, built once, and children that can load it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import emulated_build as build  # noqa: E402


@pytest.fixture(scope="session")
def child():
    """child(*arguments): run Python with the emulated module's folder in BDGF_EMULATED, under AddressSanitizer."""
    if build.compiler() is None:
        pytest.skip("no C++ compiler to build the emulation with")
    pytest.importorskip("pybind11", reason="the emulation is built with pybind11")
    environment = {
        **os.environ,
        "BDGF_EMULATED": str(build.build()),
        "LD_PRELOAD": " ".join(build.sanitizer_libraries()),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:allocator_may_return_null=1",
        "PYTHONPATH": str(Path(__file__).parent),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *arguments], env=environment, cwd=build.ROOT, capture_output=True, text=True)

    return run
