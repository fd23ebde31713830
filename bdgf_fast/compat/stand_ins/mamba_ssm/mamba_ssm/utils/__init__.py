"""Stand-ins for mamba_ssm.utils."""
