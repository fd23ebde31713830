"""Run by test_kernels.py: the bits are the CPU kernels'."""

import pytest
import torch

from bdgf_fast import _native

C = _native.load()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tile", [None, (0, 0), (3, 5), (-2, 6)])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 5, 7), (3, 2, 4, 16), (2, 1, 3, 130)])
def test_same_bits_as_the_cpu(emulated, shape, tile, dtype):
    seed, stream, purpose = torch.tensor(-77), torch.tensor(2**33 + 5), 3
    ids = torch.arange(shape[0]) * 3 + 1
    origin = None if tile is None else torch.tensor([[tile[0] + b, tile[1]] for b in range(shape[0])])
    want, got = torch.full(shape, torch.nan, dtype=dtype), torch.full(shape, torch.nan, dtype=dtype)
    C.philox_normal(want, seed, stream, ids, origin, 40, 200, purpose, 1)
    emulated.philox_normal(got, seed, stream, ids, origin, 40, 200, purpose, 1)
    assert not want.isnan().any()
    assert torch.equal(got, want)


def test_more_rows_than_a_grid_has_blocks_in_y(emulated):
    want, got = torch.empty(70_000, 3), torch.empty(70_000, 3)
    C.philox_normal(want, 5, 0, None, None, 0, 0, 0, 1)
    emulated.philox_normal(got, 5, 0, None, None, 0, 0, 0, 1)
    assert torch.equal(got, want)
