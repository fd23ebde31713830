"""Run by test_kernels.py: images large enough for their directions to be cut into segments, and more than 16 states."""

import pytest
import torch

from bdgf_fast import ops, reference


@pytest.mark.parametrize(
    ("directions", "state", "shared", "order"),
    [(1, 4, False, "pixel"), (2, 18, True, "scan"), (4, 4, False, "pixel"), (4, 4, True, "pixel"), (4, 4, False, "scan")],
)
def test_segments(check_gradients, directions, state, shared, order):
    g = torch.Generator().manual_seed(0)
    batch, dim, height, width = 2, 3, 19, 31

    def randn(*shape):
        return torch.randn(shape, generator=g)

    pixels = height * width
    given = {"x": randn(batch, dim, height, width), "delta": randn(batch, 1 if shared else directions, dim, pixels)}
    given["A"] = -torch.arange(1.0, state + 1) * torch.exp(0.1 * randn(directions, dim, state))
    given |= {"B": randn(batch, directions, state, pixels), "C": randn(batch, directions, state, pixels)}
    given |= {"D": randn(directions, dim), "delta_bias": randn(dim) - 3.0}
    options = {"directions": directions, "order": order}
    check_gradients(
        lambda **t: ops.selective_scan_2d(**t, **options), lambda **t: reference.selective_scan_2d(**t, **options), given
    )
