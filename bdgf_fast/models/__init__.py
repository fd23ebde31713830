"""bdgf_fast.models."""
