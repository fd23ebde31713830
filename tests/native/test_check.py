"""The CPU kernels without Python: here, for aarch64 under qemu-user, and the threads under ThreadSanitizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "check"))
import run as native_check  # noqa: E402

CSRC = native_check.ROOT / "csrc"


@pytest.mark.slow
def test_every_level_against_float64():
    """For aarch64 where its tools are installed, else for this machine, whose levels the other tests of this folder know."""
    machine = "here" if native_check.missing("aarch64") else "aarch64"
    if lacking := native_check.missing(machine):
        pytest.skip(lacking)
    status, text = native_check.check(machine)
    assert status == 0, text[-4000:]
    assert "threads from std::thread" in text and " 0 problems" in text
    assert ("neon" if machine == "aarch64" else "scalar") in text


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_pool_under_thread_sanitizer(tmp_path):
    """Each task once, no more threads than asked for, several callers, exceptions, nested regions, a forked child."""
    pool = ("cpu/parallel.cpp", "cpu/threads/pool.cpp", "cpu/threads/pool_alone.cpp")
    sources = [native_check.HERE / "threads.cpp", *(CSRC / f for f in pool)]
    program = tmp_path / "threads"
    subprocess.run(
        ["g++", "-std=gnu++17", "-O1", "-g", "-fsanitize=thread", "-pthread", "-DBDGF_ISA=base", "-DBDGF_THREADS_MAIN",
         f"-I{CSRC}", f"-I{CSRC / 'include'}", *map(str, sources), "-o", str(program)], check=True)  # fmt: skip
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
