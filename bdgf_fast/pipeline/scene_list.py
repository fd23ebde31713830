"""Many scenes as a list: a text file that names them, and the folders that their maps go to."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.known_sets import absolute_reference, split_reference
from ..data.scene_file import DEFAULT_NAME, in_folder
from ..errors import SceneError, UserError
from .scenes import SYNTHETIC

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listed:
    """A scene of a list: what it is opened by, and the ``name`` of the folder for its map, which no other scene has."""

    name: str
    reference: str


def read_list(path: str | os.PathLike[str]) -> list[str]:
    """The scenes that a text file names, one per line, relative to the file; empty lines and lines with # are skipped."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # Windows' editors put a mark in front
    except OSError as error:
        raise UserError(f"--scenes {path} cannot be read: {error.strerror}; name a text file with one scene per line") from None
    except UnicodeDecodeError:
        raise UserError(f"--scenes {path} is not text in UTF-8; name a text file with one scene per line") from None
    return [_beside(text, path) for line in lines if (text := line.strip()) and not text.startswith("#")]


def named(references: Sequence[str]) -> list[Listed]:
    """The scenes in their order, each with a folder of its own. A scene that is named twice is taken once.

    The folder is called after the scene's file, without its suffix, or, for a scene.toml, after the folder that holds it; the
    second scene of a name gets "-2", and so on: scenes are best added at the end of a list.
    """
    found: list[Listed] = []
    taken: set[str] = set()
    for reference in dict.fromkeys(map(absolute, references)):
        name = base = _base(reference)
        number = 1
        while name.casefold() in taken:  # file systems may not tell capitals from small letters
            number += 1
            name = f"{base}-{number}"
        taken.add(name.casefold())
        found.append(Listed(name, reference))
    if len(found) < len(references):
        log.warning("the list of scenes names %d of them twice; each is mapped once", len(references) - len(found))
    if not found:
        raise UserError("the list names no scene; write one scene file (.toml) per line")
    return found


def _known(text: str) -> bool:
    """Whether a text is NAME:FOLDER of a known set."""
    try:
        return split_reference(text) is not None
    except SceneError:  # said when the scene is opened
        return False


def _beside(text: str, path: Path) -> str:
    """A line of the list, relative to the list's folder."""
    if text == SYNTHETIC:
        return text
    folder = path.absolute().parent
    name, colon, rest = text.partition(":") if _known(text) else ("", "", text)
    return f"{name}{colon}{folder / Path(rest).expanduser()}"


def absolute(reference: str) -> str:
    """A scene's file or NAME:FOLDER with an absolute path; what cannot be one stays as it is, and is said when it is opened."""
    try:
        return reference if reference == SYNTHETIC else absolute_reference(str(in_folder(Path(reference))))
    except SceneError:
        return reference


def _base(reference: str) -> str:
    if _known(reference):
        return reference.partition(":")[0]
    path = Path(reference)
    return path.parent.name if path.name == DEFAULT_NAME and path.parent.name else path.stem
