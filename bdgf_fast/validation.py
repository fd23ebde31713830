"""What pydantic finds wrong with a table, in one sentence."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, get_args, get_type_hints

from pydantic import ConfigDict, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from .errors import closest

FORBID = ConfigDict(extra="forbid", use_attribute_docstrings=True)
"""Tables without unknown keys, described by the strings below their fields."""
TAKES = {"int_type": "a whole number", "float_type": "a number", "bool_type": "true or false", "string_type": "text",
         "list_type": "a list"}  # fmt: skip


def as_list(value: Any) -> Any:
    """A list of one where a single value stands for it."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def as_priors(value: Any) -> Any:
    """"train", "scene" or class shares with sum 1."""
    if value in ("train", "scene"):
        return value
    shares = list(value.values()) if isinstance(value, dict) else []
    if not shares or not all(isinstance(x, (int, float)) and not isinstance(x, bool) and 0 <= x <= 1 for x in shares):
        raise PydanticCustomError("priors", 'it takes "train", "scene" or a share from 0 to 1 for each class, such as '
                                            "{example}; got {got}",
                                  {"example": _table_like(value), "got": str(value)})  # fmt: skip
    if abs(sum(shares) - 1) > 1e-3:
        said = {"total": f"{sum(shares):.4g}"}
        raise PydanticCustomError("priors", "the shares of the classes sum to {total}; they must sum to 1", said)
    return value


def _table_like(value: Any) -> str:
    """Shares as they are written where this value comes from: a text that begins with a brace is JSON on the command line."""
    typed = isinstance(value, str) and value.startswith("{")
    return '{"water": 0.1, "trees": 0.9}' if typed else "{water = 0.1, trees = 0.9}"


def sentence(error: ValidationError, root: type) -> str:
    """The first thing that is wrong with a table that should be the dataclass ``root``."""
    fault = error.errors(include_url=False)[0]
    path = [part for part in fault["loc"] if isinstance(part, str)]
    name, kind, value = ".".join(path), fault["type"], fault["input"]
    if kind == "unexpected_keyword_argument":
        names = [field.name for field in dataclasses.fields(_owner(root, path[:-1]))]
        noun = "key" if len(path) > 1 else "section or key"
        hint = closest(path[-1], names) or _elsewhere(path[-1], root)
        return f"unknown {noun} {name!r}{hint}; there are: {', '.join(names)}"
    if kind == "dataclass_type":
        keys = ", ".join(field.name for field in dataclasses.fields(_owner(root, path)))
        return f"{name!r} is a section, not a value; its keys are: {keys}"
    if kind in TAKES:
        return f"{name} takes {TAKES[kind]}, got {value!r} ({type(value).__name__})"
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'|(\d+)", fault["ctx"]["expected"])
        return f"{name} is {value!r}; it takes one of: {', '.join(word or number for word, number in options)}"
    if kind == "too_short":
        return f"{name} is {value}; it takes at least one value"
    if kind in ("greater_than_equal", "less_than_equal"):
        low, high = _bounds(root, path)
        if low is not None and high is not None:
            return f"{name} is {value}; it must lie between {low} and {high}"
        return f"{name} is {value}; it must be at most {high}" if low is None else f"{name} is {value}; it must be at least {low}"
    return f"{name}: {fault['msg']}"


def _elsewhere(key: str, root: type) -> str:
    """The same hint where a key of this name, or one like it, is in a section of ``root``: 'train.epochs' for 'epochs'."""
    sections = {field.name: _owner(root, [field.name]) for field in dataclasses.fields(root)}
    keys: dict[str, list[str]] = {}
    for name, section in sections.items():
        for field in dataclasses.fields(section) if dataclasses.is_dataclass(section) else ():
            keys.setdefault(field.name, []).append(repr(f"{name}.{field.name}"))
    return closest(key, keys, lambda near: " or ".join(keys[near]))


def _owner(root: Any, path: list[str]) -> Any:
    """The dataclass at a path of fields below ``root``."""
    for name in path:
        root = get_type_hints(root)[name]
    return root


def _bounds(root: type, path: list[str]) -> tuple[Any, Any]:
    """Lowest and highest value of a field, or of what its list holds; None for no bound."""
    hint = get_type_hints(_owner(root, path[:-1]), include_extras=True)[path[-1]]
    found: dict[str, Any] = {}
    parts = [hint]
    while parts:
        part = parts.pop()
        for rule in part.metadata if isinstance(part, FieldInfo) else ():
            found |= {bound: getattr(rule, bound) for bound in ("ge", "le") if hasattr(rule, bound)}
        parts += get_args(part)
    return found.get("ge"), found.get("le")
