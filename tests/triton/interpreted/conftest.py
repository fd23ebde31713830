"""The Triton kernels of the module's OP, forced, under the interpreter."""

from __future__ import annotations

import os

import pytest
import torch

from bdgf_fast import backends

# The interpreter's bfloat16 is silently wrong: such values are rounded, and computed on as float32.
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16 values": torch.bfloat16}


@pytest.fixture(params=DTYPES)
def dtype_name(request):
    return request.param


@pytest.fixture
def as_dtype(dtype_name):
    """as_dtype(x): a float tensor in the dtype under test, bfloat16 through float32."""

    def cast(x: torch.Tensor) -> torch.Tensor:
        x = x.to(DTYPES[dtype_name])
        return x.float() if x.dtype is torch.bfloat16 else x

    return cast


@pytest.fixture(autouse=True)
def triton(request):
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.fail("run this with TRITON_INTERPRET=1 (test_interpreter.py does)")
    assert "triton" in backends.available(request.module.OP, "cpu"), "no Triton kernel is registered"
    with backends.use_backend("triton"):
        yield
