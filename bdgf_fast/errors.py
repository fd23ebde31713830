"""Errors meant for the person at the keyboard: the command line prints their message without a traceback."""


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
