"""Stand-ins for mamba_ssm.models."""
