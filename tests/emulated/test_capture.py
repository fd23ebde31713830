"""A first call inside the capture of a CUDA graph: neither Python nor a kernel's host code asks for what is forbidden there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Of CUDA's runtime; a capture forbids to allocate, to wait, to query events and to copy from pageable memory.
ALLOWED = {"cudaGetDevice", "cudaSetDevice", "cudaGetLastError", "cudaGetErrorName", "cudaGetErrorString", "cudaFuncSetAttribute"}


def test_the_host_code_calls_only_what_a_capture_allows():
    files = [*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/cuda/*"), *ROOT.glob("csrc/include/bdgf/*")]
    called = {name for path in files for name in re.findall(r"\b(cuda[A-Z]\w*|cu[A-Z]\w*)\(", path.read_text())}
    assert {"cudaGetLastError", "cudaFuncSetAttribute"} <= called <= ALLOWED


@pytest.mark.xdist_group("emulated")
def test_the_first_calls_of_cuda_kernels(child):
    done = child(str(HERE / "first_call.py"), "cuda")
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert {"scan", "scan_2d", "gate", "noising", "loss", "step"} == set(done.stdout.split())


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton (Linux only)")
def test_the_first_calls_of_triton_kernels():
    done = subprocess.run([sys.executable, str(HERE / "first_call.py"), "triton"], env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert len(done.stdout.split()) == 10


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton (Linux only)")
@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Triton Error [CUDA]: operation not permitted when stream is capturing", "call the operation once, with the same shapes"),
        ("Triton Error [CUDA]: out of memory", "out of memory"),
    ],
)
def test_a_kernel_that_triton_cannot_load_while_capturing(said, sentence):
    import torch
    from bdgf_fast.triton_kernels import _launch

    def some_kernel():
        raise RuntimeError(said)

    class Kernel:
        fn = some_kernel
        arg_names = ("x",)

        def __getitem__(self, grid):
            return lambda *_, **__: some_kernel()

    with pytest.raises(RuntimeError, match=sentence):
        _launch.launch(Kernel(), 1, torch.zeros(1), num_warps=1)
