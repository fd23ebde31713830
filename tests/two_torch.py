"""Show that one wheel, built without torch, runs under two torch versions. Run by `make two-torch`, not by pytest.

    python tests/two_torch.py dist/bdgf_fast-*.whl 2.13.0 2.6.0

A source distribution in place of the wheel is built first, in isolation (`make test-sdist`).
For each version: a virtual environment, that torch, the wheel, and a probe that compares the native scan (forward and
backward) and the noise with the reference. The older version takes the pointer path, the newer one the DLPack exchange.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PROBE = """
import torch
import bdgf_fast
from bdgf_fast import ops

torch.manual_seed(0)
u, delta = torch.randn(3, 20, 33), torch.rand(3, 20, 33)
A, B, C = -torch.rand(20, 16), torch.randn(3, 16, 33), torch.randn(3, 16, 33)
results = {}
for backend in ("cpu", "reference"):
    with bdgf_fast.use_backend(backend):
        inputs = [x.clone().requires_grad_() for x in (u, delta, A, B, C)]
        out = ops.selective_scan(*inputs, delta_softplus=True)
        gradients = torch.autograd.grad(out.square().sum(), inputs)
        noise = ops.philox_normal((5, 7, 9), 42)
        results[backend] = [out, *gradients, noise]
for got, want in zip(results["cpu"], results["reference"]):
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5 * want.abs().max().item())
path = "the DLPack exchange API" if hasattr(torch.Tensor, "__dlpack_c_exchange_api__") else "data pointers"
print(f"torch {torch.__version__} | tensors cross by {path} | agrees with the reference")
"""


def main() -> int:
    wheel, *versions = sys.argv[1:]
    for version in versions:
        with tempfile.TemporaryDirectory() as folder:
            python = Path(folder) / "bin" / "python"
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            subprocess.run([*install, f"torch=={version}"], check=True)
            subprocess.run([*install, wheel], check=True)
            subprocess.run([str(python), "-c", PROBE], check=True, cwd=folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
