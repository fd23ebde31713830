"""A configuration as a commented TOML file."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from ..config import Config, schema

WIDTH = 100


def toml_text(config: Config) -> str:
    """The whole configuration as TOML, every value below its description; ``--config`` reads it back as it is."""
    described = schema()
    sections: dict[str, Any] = {}
    lines = ["# Configuration of bdgf-fast; a file for --config holds what differs from the defaults.", ""]
    for name, value in config.to_dict().items():
        if isinstance(value, dict):
            sections[name] = value
        else:
            lines += [*_comment(described["properties"][name].get("description")), f"{name} = {_value(value)}"]
    for name, values in sections.items():
        definition = described["$defs"][described["properties"][name]["$ref"].rpartition("/")[2]]
        lines += ["", *_comment(definition.get("description")), f"[{name}]"]
        for key, value in values.items():
            lines += [*_comment(definition["properties"][key].get("description")), f"{key} = {_value(value)}"]
    return "\n".join(lines) + "\n"


def _comment(text: str | None) -> list[str]:
    plain = " ".join((text or "").replace("``", "").split())
    return textwrap.wrap(plain, WIDTH, initial_indent="# ", subsequent_indent="# ")


def _value(value: Any) -> str:
    """JSON's form of numbers, texts, truth values and lists of them is TOML's too, but for a float without a point."""
    return f"{value!r}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
