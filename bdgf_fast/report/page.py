"""The HTML pages' templates. The pages hold their pictures, so that one file can be sent by mail."""

from __future__ import annotations

import base64
from pathlib import Path

import jinja2

FOLDER = Path(__file__).parent / "templates"
STYLE = "\n" + (FOLDER / "style.css").read_text(encoding="utf-8")
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
)
PAGE, STUDY, STUDY_PAGE, COMPARISON = (
    _ENVIRONMENT.get_template(f"{name}.html.j2") for name in ("run", "study", "study_page", "comparison")
)


def embedded(path: Path) -> str | None:
    """A PNG file as a data URI; None where there is none."""
    if not path.exists():
        return None
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
