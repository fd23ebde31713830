"""Errors meant for the person at the keyboard: the command line prints their message without a traceback."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Callable, Iterable, Mapping, Sequence

# What is wrong with a path that a person named, rather than with the program.
_PATH_ERRORS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
     errno.ELOOP, errno.ENOSPC, errno.EDQUOT}
)  # fmt: skip


class UserError(Exception):
    """Something the user can mend; the message names the file or argument and the way out."""


class SceneError(UserError):
    """A scene file or one of the rasters it names is wrong."""


class NoSceneFile(SceneError):
    """What was named as a scene file is a file of another kind."""


class MissingFile(SceneError):
    """``file``, which a scene names, does not exist."""

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file


class SeveralArrays(SceneError):
    """``file`` holds several arrays, and nothing says which to take: ``held`` in words, with the shape of each that is known."""

    def __init__(self, file: object, held: str, shapes: Mapping[str, Sequence[int] | None]) -> None:
        super().__init__(f"{file} holds {held or 'nothing'}; save the array to take in a file of its own.")
        self.file, self.held, self.shapes = file, held or "nothing", dict(shapes)

    def likeliest(self, name: str, flat: bool) -> str:
        """The array that a table called ``name`` is likely to mean, ``flat`` for a map of labels; "..." where there is none."""
        fitting = [array for array, shape in self.shapes.items() if shape is None or (len(shape) == 2) == flat]
        names = fitting or list(self.shapes) or ["..."]
        return difflib.get_close_matches(name, names, 1, 0)[0]


class SceneErrors(SceneError):
    """Several things are wrong with a scene at once: ``errors``."""

    def __init__(self, errors: Sequence[SceneError]) -> None:
        super().__init__(" ".join(map(str, errors)))
        self.errors = list(errors)


class SplitError(UserError):
    """The requested split into training, validation and test pixels cannot be made."""


class StateError(UserError):
    """A stored state (checkpoint) does not fit the scene it is used with."""


class OutputError(UserError):
    """A result could not be written."""


class DataWarning(UserWarning):
    """Something about the data was decided for the user: excluded pixels, dropped bands, a split that leaks."""


def closest(name: str, names: Iterable[str], shown: Callable[[str], str] = repr) -> str:
    """`` (did you mean 'x'?)`` where there is a name like this one; ``shown`` is how to write it."""
    near = difflib.get_close_matches(name, list(names), 1)
    return f" (did you mean {shown(near[0])}?)" if near else ""


def toml_fault(error: Exception) -> str:
    """What a TOML parser says, with the usual cause where its words do not tell it."""
    said = str(error).rstrip(".")
    if "('modality',)" in said:
        return f"{said}; each sensor is a [[modality]] table (double brackets)"
    return f"{said}; text needs quotes" if said.startswith("Invalid value") else said


def missing_package(name: str | None) -> str:
    """What to say when a package that the application needs is not installed; all that are missing are named at once."""
    first = package_of(name or "")
    others = [other for other in _application_packages() if other != first]
    return f"the package {first} is missing, which the application needs: pip install {' '.join([first, *others])}"


def package_of(module: str) -> str:
    """What pip calls the package of a module."""
    name = module.partition(".")[0]
    return {"sklearn": "scikit-learn"}.get(name, name)


def _application_packages() -> list[str]:
    """Packages of the extra ``app`` that are not installed."""
    import re
    from importlib import metadata

    try:
        lines = metadata.requires("bdgf-fast") or []
    except metadata.PackageNotFoundError:  # the sources, without an installation
        return []
    names = [re.split(r"[^\w.-]", line)[0] for line in lines if re.search(r"extra == .app.", line)]
    installed = {str(found.metadata["Name"]).lower() for found in metadata.distributions()}
    return [name for name in names if name.lower() not in installed]


def spoken(error: Exception) -> str | None:
    """The sentence for an error that a person can mend; None for a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk is full ({error.filename or 'while writing'}); free some space"
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return f"the memory is full ({error}); a smaller predict.block, batch or --memory takes less"
    return None
