"""Files written against the published packages only, run unmodified: they train, and the loss falls."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = ["spectral_sequence.py", "spatial_patch_sequence.py", "four_direction_2d.py"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_example_trains(script, run_python):
    done = run_python("-m", "bdgf_fast.compat", EXAMPLES / script)
    losses = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith("step")]
    accuracy = float(done.stdout.split()[-1])
    assert len(losses) >= 4 and losses[-1] < 0.5 * losses[0], done.stdout
    assert accuracy > 0.8, done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_example_knows_nothing_of_us(script):
    tree = ast.parse((EXAMPLES / script).read_text())
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in modules}
    assert "bdgf_fast" not in roots
    assert roots & {"mamba_ssm", "causal_conv1d", "selective_scan_cuda_oflex"}
