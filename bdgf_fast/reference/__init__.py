"""bdgf_fast.reference."""
