"""Directories that a command works in, locked against a second command. The system drops a lock with the process that holds it,
however that ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..common.ranks import leads
from ..errors import UserError

fcntl: Any
try:
    import fcntl
except ImportError:  # not on Windows, which goes without
    fcntl = None

LOCK = ".lock"
_held: dict[Path, tuple[IO[str], bool]] = {}
_made: list[Path] = []  # directories that `create` made, each after those it lies in


def create(directory: Path) -> None:
    """Make a directory, and those it lies in; ``released`` removes what is still empty then, as after a refusal."""
    directory = directory.absolute()
    new = [place for place in (directory, *directory.parents) if not place.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    _made.extend(reversed(new))


def lock(directory: Path, *, shared: bool = False) -> None:
    """Hold ``directory`` for this process until ``released`` or the process ends; of several ranks the first does.

    Args:
        shared: others may read beside this process, none may write.

    Raises UserError where another process holds it. The directory must be there; file systems without locks are gone without.
    """
    key = directory.resolve()
    if fcntl is None or not leads() or (key in _held and (shared or not _held[key][1])):
        return
    if key in _held:
        _held.pop(key)[0].close()
    while (stream := _open(key / LOCK)) is not None:
        try:
            fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = stream.read().strip()
            stream.close()
            by = f" (process {holder})" if holder.isdigit() else ""
            raise UserError(
                f"{directory} is in use by another bdgf-fast command{by}; wait until it ends, or name another directory"
            ) from None
        except OSError:
            stream.close()
            return
        if _is_file(stream, key / LOCK):
            break
        stream.close()  # its holder removed the file between our opening and our locking it
    else:
        return
    if not shared:
        with contextlib.suppress(OSError):
            stream.truncate(0)
            stream.write(f"{os.getpid()}\n")
            stream.flush()
    _held[key] = stream, shared


def _is_file(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(path))
    except OSError:
        return False


def _open(path: Path) -> IO[str] | None:
    """The lock's file, made where it is not there; None in a place that cannot be written and has none."""
    for mode in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        with contextlib.suppress(OSError):
            number = os.open(path, mode, 0o666)
            return os.fdopen(number, "r" if mode == os.O_RDONLY else "r+", encoding="ascii", errors="replace")
    return None


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Let go of every directory locked within, and remove those created within that stayed empty; what was held before stays
    locked."""
    before, made = set(_held), len(_made)
    try:
        yield
    finally:
        for directory in _held.keys() - before:
            stream, _ = _held.pop(directory)
            with contextlib.suppress(OSError):  # another still reads there, or the place cannot be written
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (directory / LOCK).unlink()
            stream.close()
        for directory in reversed(_made[made:]):
            with contextlib.suppress(OSError):  # it holds something
                directory.rmdir()
        del _made[made:]
