"""Errors meant for the person at the keyboard: the command line prints their message without a traceback."""

import errno

# What is wrong with a path that a person named, rather than with the program.
_PATH_ERRORS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
     errno.ELOOP, errno.ENOSPC, errno.EDQUOT}
)  # fmt: skip


class UserError(Exception):
    """Something the user can mend; the message names the file or argument and the way out."""


class SceneError(UserError):
    """A scene file or one of the rasters it names is wrong."""


class SplitError(UserError):
    """The requested split into training, validation and test pixels cannot be made."""


class StateError(UserError):
    """A stored state (checkpoint) does not fit the scene it is used with."""


class OutputError(UserError):
    """A result could not be written."""


class DataWarning(UserWarning):
    """Something about the data was decided for the user: excluded pixels, dropped bands, a split that leaks."""


def missing_package(name: str | None) -> str:
    """What to say when a package that the application needs is not installed."""
    return f"the package {name} is missing: the application needs its extra, pip install 'bdgf-fast[app]'"


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
