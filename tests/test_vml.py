"""The element-wise functions that torch gives to MKL are settled when bdgf_fast is imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bdgf_fast import _vml

HEADER = Path(torch.__file__).parent / "include/ATen/cpu/vml.h"


@pytest.mark.skipif(not HEADER.exists(), reason="this torch comes without its headers")
def test_every_function_that_torch_gives_to_mkl_is_named():
    named = re.findall(r"^IMPLEMENT_VML_MKL\((\w+), \w+\)", HEADER.read_text(), re.M)
    assert len(named) > 10 and set(named) == set(_vml.FUNCTIONS)


PROGRAM = """
import torch
called = set()
class Watch(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        if args and isinstance(args[0], torch.Tensor) and args[0].numel() == 1 and args[0].device.type == "cpu":
            called.add((function.__name__, args[0].dtype))
        return function(*args, **(kwargs or {}))
with Watch():
    import bdgf_fast
for dtype in (torch.float32, torch.float64):
    assert {(name, dtype) for name in bdgf_fast._vml.FUNCTIONS} <= called, called
"""


def test_importing_the_package_calls_each_once_on_one_element():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
