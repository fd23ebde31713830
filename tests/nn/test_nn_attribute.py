"""`import bdgf_fast` alone leads to the other packages, without importing them."""

import subprocess
import sys

import pytest

import bdgf_fast

CODE = """
import sys
import bdgf_fast
assert not {"bdgf_fast.nn", "bdgf_fast.data", "bdgf_fast.network"} & set(sys.modules)
found = bdgf_fast.nn.Mamba, bdgf_fast.ops.selective_scan, bdgf_fast.diffusion.Schedule, bdgf_fast.data
print(*(x.__name__ for x in found))
"""


def test_packages_are_attributes():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.stdout.split() == ["Mamba", "selective_scan", "Schedule", "bdgf_fast.data"], done.stderr
    assert {"nn", "data", "diffusion", "compat"} <= set(dir(bdgf_fast))


def test_others_are_not():
    with pytest.raises(AttributeError, match="module 'bdgf_fast' has no attribute 'nothing'"):
        bdgf_fast.nothing  # noqa: B018
