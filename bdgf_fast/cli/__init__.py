"""The command line: `bdgf-fast` and `python -m bdgf_fast`.

A person's mistake (a missing file, a grid that does not match, a class without pixels) is one sentence on stderr and exit
status 2; Ctrl-C is 130; a reader that stops reading (`| head -1`) is 141, as for any program; anything else is a fault of
ours, status 1, with the traceback under `--debug`. `predict --scenes` exits with 1 when some of the scenes could not be mapped,
and `data check` prints its findings on stdout and exits with 1 when something is missing or looks wrong.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

from ..common.random_streams import SEEDS
from ..compat.script import run_script
from ..errors import UserError, missing_package, spoken
from .parser import parser

__all__ = ["main", "parser"]

SPELT = {"±": "+-", "×": "x", "–": "-", "…": "..."}
"""ASCII for what we print ourselves; other characters, as in the names of classes, are escaped."""
EXIT_INTERNAL, EXIT_USER, EXIT_INTERRUPTED, EXIT_NO_READER = 1, 2, 130, 141


def _check_common(args: argparse.Namespace) -> None:
    """Arguments of several commands, before anything is read or written."""
    for name, seeds in (("--seed", [getattr(args, "seed", None) or 0]), ("--seeds", getattr(args, "seeds", None) or [])):
        for seed in seeds:
            if not 0 <= seed < SEEDS:
                raise UserError(f"{name} is {seed}; a seed is a whole number from 0 to {SEEDS - 1}")
    out = getattr(args, "out", None)
    if out is None:
        return
    place = out.absolute()
    if place.exists() and not place.is_dir():
        raise UserError(f"--out {out} is a file; name a directory")
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    if not there.is_dir():
        raise UserError(f"--out {out} lies below {there}, which is a file; name a directory")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out} cannot be written: {there} may not be written to; name another directory")


def _dispatch(args: argparse.Namespace) -> int:
    import torch

    from .. import backends
    from ..common.memory import keep_freed_memory
    from .commands import execute

    _check_common(args)
    keep_freed_memory()
    if args.threads is not None:
        if args.threads < 1:
            raise UserError(f"--threads is {args.threads}; it takes 1 or more")
        torch.set_num_threads(args.threads)
    forced = backends.use_backend(args.backend) if args.backend else contextlib.nullcontext()
    with forced:
        try:
            return execute(args)
        except ModuleNotFoundError as error:
            raise UserError(missing_package(error.name)) from error


def _spelt_out(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for the first characters that an encoding lacks."""
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] in SPELT:
        return SPELT[error.object[error.start]], error.start + 1
    return codecs.backslashreplace_errors(error)


class Once(logging.Filter):
    """Lets each text through once: a scene that several stages open would warn in each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        new = text not in self.said
        self.said.add(text)
        return new


@contextlib.contextmanager
def _speaking() -> Iterator[None]:
    """Text that the terminal's encoding lacks is spelt out or escaped, and warnings are sentences without source lines, each
    said once."""
    codecs.register_error("bdgf_fast", _spelt_out)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="bdgf_fast")
    for name in ("rasterio", "matplotlib"):  # GDAL's errors besides raising them, and that a cache of fonts was made
        logging.getLogger(name).setLevel(logging.WARNING)
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}"
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addFilter(once := Once())
    try:
        yield
    finally:
        logging.getLogger("py.warnings").removeFilter(once)
        logging.captureWarnings(False)
        warnings.formatwarning = before


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 1 internal error, 2 a person's mistake, 130 interrupted, 141 no reader)."""
    given = sys.argv[1:] if argv is None else argv
    if not given:
        parser().print_help(sys.stderr)
        return EXIT_USER
    args = parser().parse_args(given)
    if args.command == "compat":  # the script speaks, fails and ends as under plain python
        run_script(args)
        return 0
    logging.basicConfig(level=logging.WARNING if args.quiet else logging.INFO, format="%(message)s", stream=sys.stderr)
    with _speaking():
        try:
            status = _dispatch(args)
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            if args.debug:
                raise
            resume = " with --resume" if hasattr(args, "resume") else ""
            hint = f"; the same command{resume} continues" if getattr(args, "out", None) else ""
            print(f"\ninterrupted{hint}", file=sys.stderr)
            return EXIT_INTERRUPTED
        except BrokenPipeError:
            # Python flushes once more on its way out, into what nobody reads.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_NO_READER
        except Exception as error:
            if args.debug:
                raise
            text, status = _sentence(error)
            print(text, file=sys.stderr)
            return status


def _sentence(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit status."""
    said = spoken(error)
    if said is not None:
        return f"error: {said}", EXIT_USER
    return f"internal error: {type(error).__name__}: {error}\nrun again with --debug for the traceback", EXIT_INTERNAL


if __name__ == "__main__":
    sys.exit(main())
