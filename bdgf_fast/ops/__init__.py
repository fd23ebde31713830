"""bdgf_fast.ops."""
