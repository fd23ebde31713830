"""Stand-ins for mamba_ssm.modules."""
