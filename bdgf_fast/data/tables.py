"""Reading a parsed scene file: values of the right kind, known keys alone, and messages that name table and key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bdgf_fast.errors import SceneError

_KINDS = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def get(table: dict[str, Any], key: str, kind: type, where: str, default: Any) -> Any:
    """``table[key]`` as ``kind``, ``default`` without the key."""
    if key not in table:
        return default
    value = table[key]
    fits = type(value) in (int, float) if kind is float else type(value) is kind
    if not fits:
        raise SceneError(f"{where}: {key} is {value!r}; it must be {_KINDS[kind]}.")
    try:
        return kind(value)
    except OverflowError:
        raise SceneError(f"{where}: {key} lies beyond the range of numbers.") from None


def check_keys(table: dict[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse keys that mean nothing."""
    for key in table:
        if key not in known:
            raise SceneError(f"{where}: unknown key {key!r}; known are {', '.join(known)}.")


def subtable(table: dict[str, Any], key: str, said: str) -> dict[str, Any] | None:
    """The table [key], None without it."""
    value = table.get(key)
    if value is not None and not isinstance(value, dict):
        raise SceneError(f"{said}: {key} must be a table, [{key}].")
    return value


def by_code(table: dict[str, Any], key: str, where: str) -> dict[int, Any] | None:
    """A table whose keys are label codes."""
    value = table.get(key)
    if value is None:
        return None
    if not isinstance(value, dict) or not value:
        raise SceneError(f'{where}: {key} is a table such as {{ 1 = "...", 2 = "..." }}.')
    result = {}
    for code, entry in value.items():
        try:
            number = int(code)
        except ValueError:
            raise SceneError(
                f"{where}: {key} has the key {code!r}; keys are the whole numbers in the label map."
            ) from None
        if abs(number) >= 2**63:
            raise SceneError(f"{where}: {key} has the key {code[:30]}, beyond any code in a label map.")
        result[number] = entry
    return result


def entry_name(said: str, i: int, entry: dict[str, Any]) -> str:
    """How messages name the i-th [[modality]] table."""
    return f"{said}, [[modality]] {entry.get('name', i)!r}"
