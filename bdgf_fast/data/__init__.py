"""bdgf_fast.data."""
