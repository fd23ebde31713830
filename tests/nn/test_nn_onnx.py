"""torch.onnx.export of the modules: the reference by itself, and the same numbers in ONNX's own evaluator."""

from __future__ import annotations

import pytest
import torch

from bdgf_fast import nn, ops

pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


class Attention(torch.nn.Module):
    def forward(self, x, bias):
        return ops.cross_attention(x, x, x, attn_bias=bias)


CASES = {
    "Mamba": (lambda: nn.Mamba(8, 2), [(1, 3, 8)]),
    "SS2D": (lambda: nn.SS2D(4, 2), [(1, 2, 3, 4)]),
    "GroupChannelGate": (lambda: nn.GroupChannelGate(8, 4, 2), [(2, 8, 3, 3), (2, 4, 2, 2)]),
    "GroupChannelAttention": (lambda: nn.GroupChannelAttention(8, 4, 2), [(2, 8, 3, 3), (2, 4, 3, 3)]),
    "cross_attention": (Attention, [(1, 2, 3, 4), (1, 1, 3, 3)]),
}


@pytest.mark.parametrize("name", CASES)
def test_exports(name):
    from onnx.reference import ReferenceEvaluator

    torch.manual_seed(0)
    make, shapes = CASES[name]
    module, inputs = make().eval(), [torch.randn(shape) for shape in shapes]
    program = torch.onnx.export(module, tuple(inputs), dynamo=True, verbose=False)
    evaluator = ReferenceEvaluator(program.model_proto)
    (found,) = evaluator.run(None, {k: x.numpy() for k, x in zip(evaluator.input_names, inputs, strict=True)})
    torch.testing.assert_close(torch.from_numpy(found), module(*inputs), rtol=1e-4, atol=1e-5)
