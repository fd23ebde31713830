"""squareplus on every backend against the float64 reference."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import ops, reference

OP = "squareplus"


def tensor(*shape, dtype=torch.float32, device="cpu"):
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def compare(check_gradients, x, b=4.0):
    check_gradients(lambda x: ops.squareplus(x, b), lambda x: reference.squareplus(x, b), {"x": x})


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (2, 3, 4, 5), (5_001,), (0, 3)])
def test_shapes(target, check_gradients, shape):
    compare(check_gradients, tensor(*shape, device=target.device), 0.5)


def test_layouts(target, check_gradients):
    compare(check_gradients, tensor(6, 10, device=target.device).T[::2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit(target, check_gradients, dtype):
    compare(check_gradients, tensor(5, 33, dtype=dtype, device=target.device))


def test_determinism(target):
    x = tensor(1000, device=target.device)
    assert torch.equal(ops.squareplus(x), ops.squareplus(x))


def test_opcheck(target):
    if target.backend == "reference":
        pytest.skip("no operator of its own")
    torch.library.opcheck(torch.ops.bdgf.squareplus_fwd.default, (tensor(3, 5, device=target.device), 4.0, target.backend))


def test_compiles():
    x = tensor(3, 5)
    torch.testing.assert_close(torch.compile(ops.squareplus, fullgraph=True, backend="aot_eager")(x), ops.squareplus(x))


@pytest.mark.parametrize(
    ("arguments", "message"), [((1.0,), "x is float"), ((torch.ones(2), 0.0), "b is 0.0; it takes a positive number")]
)
def test_errors(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ops.squareplus(*arguments)
