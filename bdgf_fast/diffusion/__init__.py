"""Diffusion: schedules, pre-training and features."""

from .schedule import Schedule

__all__ = ["Schedule"]
