"""squareplus's Triton kernels: values and gradient, several programs."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "squareplus"


@pytest.mark.parametrize("shape", [(1,), (3, 5), (2, 1025)])
def test_shapes(shape, as_dtype, check_gradients):
    x = as_dtype(3 * torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    check_gradients(ops.squareplus, reference.squareplus, {"x": x})
