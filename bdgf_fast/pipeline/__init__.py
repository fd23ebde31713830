"""A run: its directory, its stages, what it was made from, and the baselines."""
