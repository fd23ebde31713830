"""Balanced diffusion-guided fusion (BDGF) for multimodal land-cover classification, on fused kernels.

`bdgf_fast.ops` holds the single operations as drop-ins, `bdgf_fast.nn` thin modules over them, `bdgf_fast.reference` their
plain PyTorch definitions; `bdgf-fast` on the command line runs the whole method.
"""

from . import _vml, backends, ops, reference
from .backends import explain, use_backend

_vml.settle()

__version__ = "0.1.0"
__all__ = ["backends", "explain", "ops", "reference", "use_backend"]
