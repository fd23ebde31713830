"""bdgf_fast.training."""
