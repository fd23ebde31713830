"""What the sources can say: every text of bdgf_fast, with an ellipsis for each part that is only known when it is said."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "bdgf_fast"
ELLIPSIS = "…"
REFUSALS = {"UserError", "SceneError", "NoSceneFile", "SplitError", "StateError", "OutputError"}


def text(node: ast.expr) -> str | None:
    """The fixed parts of a string expression; None where there are none."""
    if isinstance(node, ast.Constant):
        return re.sub(r"\{[^{}]*\}", ELLIPSIS, node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else ELLIPSIS for part in node.values]
        return "".join(str(part) for part in parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [text(side) or ELLIPSIS for side in (node.left, node.right)]
        return None if set(parts) == {ELLIPSIS} else "".join(parts)
    return None


def tidy(sentence: str) -> str:
    """Runs of variable parts as one, without the space and full stop at the ends."""
    return re.sub(rf"{ELLIPSIS}(\s*{ELLIPSIS})*", ELLIPSIS, " ".join(sentence.split())).rstrip(".").strip()


def says_something(quote: str) -> bool:
    """Whether a quotation has fixed words by which a sentence can be recognised."""
    return len(re.findall(r"[A-Za-z]{2,}", quote)) >= 2


def all_texts() -> set[str]:
    """Every text in the package's sources, docstrings included."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said = text(node) if isinstance(node, ast.expr) else None
            if said:
                found.add(tidy(said))
    return found


def refusals() -> dict[str, str]:
    """Sentences that are raised as an error of the user's own making, with the file that raises each."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in REFUSALS and node.args):
                continue
            said = text(node.args[0])
            if said and tidy(said).strip(f"{ELLIPSIS}:;, "):
                found[tidy(said)] = path.name
    return found
