"""transformers' Mamba model: its fast path through the stand-ins agrees with its slow one."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_fast_path_is_the_slow_path(run_python):
    pytest.importorskip("transformers")
    done = run_python(Path(__file__).with_name("transformers_program.py"))
    assert "agree on" in done.stdout
