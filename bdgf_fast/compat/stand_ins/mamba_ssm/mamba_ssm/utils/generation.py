"""Stand-in: `bdgf_fast.compat.blocks`."""

from bdgf_fast.compat.blocks import GenerationMixin, InferenceParams

__all__ = ["GenerationMixin", "InferenceParams"]
