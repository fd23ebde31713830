"""The configuration of a call: defaults, what a file, a mapping or single values change in them, and which seed they ask for."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import Config
from ..data.scene_tables import describes_scene
from ..errors import UserError, toml_fault

ConfigLike = Config | Mapping[str, Any] | str | os.PathLike[str] | None
"""A whole configuration; or what differs from the defaults: nested or dotted keys, or a TOML file with a table per section."""


def read_config(path: str | os.PathLike[str], said: str = "config") -> dict[str, Any]:
    """The values of a configuration file, as nested dictionaries; files with feature maps are relative to it."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors put a mark in front
    except OSError as error:
        raise UserError(f"{said}: the file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{said}: {path} is not a text file; name a TOML file of settings, as `bdgf-fast config` prints one"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{said}: the file {path} is not valid TOML: {toml_fault(error)}") from None
    if describes_scene(values):
        raise UserError(f"{said}: {path} describes a scene; name it as SCENE, and here a TOML file of settings, as "
                        "`bdgf-fast config` prints one")  # fmt: skip
    try:
        maps = Config().updated({"features": {"path": values["features"]["path"]}}).features.path
    except (KeyError, TypeError):  # none named
        return values
    except ValueError as error:
        raise UserError(f"{said}: {path}: {error}") from None
    return {**values, "features": {**values["features"], "path": [str(path.absolute().parent / map_) for map_ in maps]}}


def values_of(config: ConfigLike, said: str = "config") -> dict[str, Any]:
    """What ``config`` says, as nested dictionaries. Raises UserError."""
    if config is None:
        return {}
    if isinstance(config, Config):
        return config.to_dict()
    if isinstance(config, (str, os.PathLike)):
        return read_config(config, said)
    if not isinstance(config, Mapping):
        raise UserError(f"{said} is {config!r}; it takes a Config, a mapping of keys to values, or a TOML file")
    values: dict[str, Any] = {}
    for key, value in config.items():
        section, dot, name = str(key).partition(".")
        if dot:
            values.setdefault(section, {})[name] = value
        elif isinstance(value, Mapping):
            values.setdefault(section, {}).update(value)
        else:
            values[section] = value
    return values


def configured(
    base: Config, config: ConfigLike = None, overrides: Sequence[str] = (), features: Sequence[str | os.PathLike[str]] = (),
    *, said: str = "config",
) -> Config:  # fmt: skip
    """``base`` < ``config`` < ``section.key=value`` strings < ``features``, files with another model's maps. A whole ``Config``
    takes the place of ``base``. Raises UserError, which calls ``config`` what is ``said``."""
    try:
        base = base.updated(values_of(config, said))
    except ValueError as error:
        raise UserError(f"{said}: {error}") from error
    try:
        base = base.override(*overrides)
    except ValueError as error:
        raise UserError(f"--set: {error}") from error
    if features:
        base.features.path = [str(path) for path in features]
    base.features.path = [str(Path(path).absolute()) for path in base.features.path]
    return base


def filled_in(stored: Any) -> Any:
    """A stored configuration with the defaults of the settings that its release did not know; as it is where that fails."""
    try:
        return Config.from_dict(stored).to_dict()
    except (TypeError, ValueError):
        return stored


def with_seed(config: Config, seed: int | None) -> Config:
    """A copy whose ``seed`` is this one, where one is given. Raises UserError for one that is out of range."""
    try:
        return config if seed is None else config.updated({"seed": seed})
    except ValueError as error:
        raise UserError(str(error)) from error
