"""bdgf_fast.nn."""
