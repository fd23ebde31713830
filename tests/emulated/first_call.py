"""The first call of every operation, forward and backward, for test_capture.py: `first_call.py cuda` with the emulated kernels,
`first_call.py triton` with launches that are recorded. It fails where torch is asked for what a CUDA graph cannot capture."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

sys.path[:0] = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("BDGF_EMULATED")])]
from ops.test_library import CASES  # noqa: E402

from bdgf_fast import _native, backends  # noqa: E402

NAMES = {"scan": "selective_scan", "scan_2d": "selective_scan_2d", "conv": "causal_conv1d", "boxes": "box_statistics",
         "gate": "group_channel_gate", "channel_attention": "group_channel_attention", "attention": "cross_attention",
         "noising": "q_sample", "loss": "denoising_loss", "step": "diffusion_step"}  # fmt: skip
# They wait for the device to read a value, or bring a number or a tensor from the host.
FORBIDDEN = ("aten._local_scalar_dense", "aten.is_nonzero", "aten.equal", "aten.nonzero", "aten.unique", "aten.masked_select",
             "aten.lift_fresh", "aten.record_stream")  # fmt: skip


class Capture(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        assert not str(function).startswith(FORBIDDEN), f"{function} cannot be captured"
        return function(*arguments, **(keywords or {}))


def step(case: str, dtype: torch.dtype) -> None:
    tensors, call = CASES[case](torch.float32)
    kept = ("A", "D", "delta_bias", "initial_state", "weight", "bias", "weight1", "bias1", "weight2", "bias2", "temperature",
            "attn_bias", "weights")  # fmt: skip
    leaves = {k: (x if k in kept else x.to(dtype)).requires_grad_() for k, x in tensors.items()}
    with Capture():
        found = call(**leaves)
        outputs = [x for x in (found if isinstance(found, tuple) else (found,)) if x.is_floating_point()]
        torch.autograd.grad(outputs, list(leaves.values()), [torch.empty_like(x) for x in outputs], allow_unused=True)


def main() -> None:
    backend = sys.argv[1]
    for module in [m for name, m in sys.modules.items() if name.startswith("bdgf_fast.ops.")]:
        if hasattr(module, "check_range"):
            module.check_range = lambda *_: None  # on a GPU it looks at no value
    context = nullcontext
    if backend == "cuda":
        import bdgf_emulated

        _native.load = lambda: bdgf_emulated
        backends._ORDER["cpu"] = ("cuda",)
        backends._missing["cuda"] = None
    else:
        backends._triton_interpreter = True
        from bdgf_fast.triton_kernels import _launch

        context = lambda: _launch.recording(90)  # noqa: E731
    made = []
    for case in CASES:
        if backend in backends._registry.get(NAMES[case], {}):
            with backends.use_backend(backend), context():
                for dtype in (torch.float32, torch.bfloat16):
                    step(case, dtype)
            made.append(case)
    print(" ".join(made))


if __name__ == "__main__":
    main()
