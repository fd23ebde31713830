"""The configuration of a command: defaults, a TOML file and single values, and which seed they ask for."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import UserError


def read_config(path: Path) -> dict[str, Any]:
    """The values of a configuration file, as nested dictionaries; files with feature maps are relative to it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors put a mark in front
    except OSError as error:
        raise UserError(f"--config {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"--config {path} is not valid TOML: {str(error).rstrip('.')}") from None
    try:
        maps = Config().updated({"features": {"path": values["features"]["path"]}}).features.path
    except (KeyError, TypeError):  # none named
        return values
    except ValueError as error:
        raise UserError(f"--config {path}: {error}") from None
    return {**values, "features": {**values["features"], "path": [str(path.absolute().parent / map_) for map_ in maps]}}


def configured(base: Config, values: dict[str, Any], overrides: Sequence[str]) -> Config:
    """``base`` < the values of a --config file < those of --set. Raises UserError."""
    try:
        base = base.updated(values)
    except ValueError as error:
        raise UserError(f"--config: {error}") from error
    try:
        return base.override(*overrides)
    except ValueError as error:
        raise UserError(f"--set: {error}") from error


def settings(base: Config, args: argparse.Namespace) -> Config:
    """The configuration of a command with --config, --set, --features and --seed; its ``seed`` is the run's."""
    values = read_config(args.config) if args.config else {}
    config = configured(base, values, args.set)
    if getattr(args, "features", None):
        config.features.path = [str(path) for path in args.features]
    config.features.path = [str(Path(path).absolute()) for path in config.features.path]
    said = any(text.partition("=")[0].strip() == "seed" for text in args.set)
    if getattr(args, "seeds", None):
        if said or "seed" in values or args.seed is not None:
            raise UserError("--seeds names the seeds; leave out --seed, and seed in --set and --config")
        return config
    if said and args.seed not in (None, config.seed):
        raise UserError(f"--set seed={config.seed} and --seed {args.seed} differ; give one of them")
    if args.seed is not None:
        config.seed = args.seed
    return config
