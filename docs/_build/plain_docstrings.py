"""Docstrings are plain text with `code`: outside of code, what Markdown would take for markup is escaped."""

from __future__ import annotations

import re
from typing import Any

import griffe

_CODE = re.compile(r"(``?.+?``?)", re.DOTALL)


def escaped(text: str) -> str:
    parts = _CODE.split(text)
    parts[::2] = [re.sub(r"([*<])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


class PlainDocstrings(griffe.Extension):
    """Escape every docstring once, when its object is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = escaped(obj.docstring.value)
