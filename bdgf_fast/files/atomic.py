"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import OutputError


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, moved there when the block ends well, removed when it does not.

    Errors of the system or of GDAL become OutputError; a killed process leaves at most a hidden .part file.
    """
    path = Path(path)
    # The suffix stays last: writers choose the format by it.
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        try:
            yield part
            with part.open("rb+") as file:
                os.fsync(file.fileno())  # a full disk may only show here
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
            Path(f"{part}.aux.xml").unlink(missing_ok=True)
    except OSError as error:  # rasterio's errors on writing are OSError too
        reason = error.strerror or str(error) or type(error).__name__
        raise OutputError(
            f"{path} could not be written: {reason}. Check that the folder exists, may be written and has room."
        ) from error
