"""bdgf_fast.diffusion."""
