"""Child processes for what changes a whole interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def run_python(tmp_path):
    """run_python(*arguments, ok=True): the finished child; its failure fails the test with what it said."""

    def run(*arguments: str | Path, ok: bool = True) -> subprocess.CompletedProcess:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert (done.returncode == 0) == ok, f"{command} returned {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
