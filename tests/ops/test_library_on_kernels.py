"""Compile, export, gradcheck and opcheck once more, on the kernels that are here instead of stand-ins."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import backends

from .test_library import (  # noqa: F401
    CASES,
    cases,
    test_autocast_in_a_graph,
    test_compiles_with_inductor,
    test_compiles_without_a_graph_break,
    test_gradcheck,
    test_operators_pass_opcheck,
)

pytestmark = pytest.mark.skipif(
    any("cpu" not in backends.available(op) for op in backends.operations()), reason="needs the compiled extension"
)


@cases
def test_exports(case):
    tensors, call = CASES[case](torch.float32)

    class Module(torch.nn.Module):
        def forward(self, **tensors):
            return call(**tensors)

    program = torch.export.export(Module(), (), tensors)
    assert any("bdgf" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(**tensors), call(**tensors), rtol=0, atol=0)


@cases
def test_float32_results_are_the_references(case, assert_close):
    tensors, call = CASES[case](torch.float32)
    with backends.use_backend("cpu"):
        out = call(**tensors)
    with backends.use_backend("reference"):
        expected = call(**{k: x.double() for k, x in tensors.items()})
    for ours, exact in zip(*((x if isinstance(x, tuple) else (x,)) for x in (out, expected)), strict=True):
        assert_close(ours, exact)
