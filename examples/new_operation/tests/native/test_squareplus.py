"""squareplus on the native CPU kernels: the same on every instruction set level."""

from __future__ import annotations

import pytest
import torch
from levels import LEVELS, check_gradients, level

from bdgf_fast import backends, ops, reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("isa", LEVELS)
def test_every_level(isa, dtype):
    x = torch.randn(9, 70, generator=torch.Generator().manual_seed(0)).to(dtype)
    with level(isa), backends.use_backend("cpu"):
        check_gradients(ops.squareplus, reference.squareplus, [x], dtype)
