"""Run a script, unmodified, with stand-ins for the packages that it imports and that are missing: `bdgf-fast compat`."""

from __future__ import annotations

import argparse
import logging
import os
import runpy
import sys
from types import TracebackType

from .stand_in import install, lacking


def add_arguments(command: argparse.ArgumentParser) -> None:
    """The command's arguments; whatever follows the script is the script's own."""
    command.add_argument("--force", action="store_true", help="use the stand-ins in place of installed packages, too")
    command.add_argument("-m", dest="module", action="store_true", help="SCRIPT is the name of a module, as with python -m")
    command.add_argument("script", metavar="SCRIPT", help="the Python file to run")
    rest = command.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS", help="the script's own arguments, as they are")
    rest.required = False  # before Python 3.12 argparse would name it among what is missing
    command.set_defaults(parser=command)


def run_script(options: argparse.Namespace) -> None:
    """Run the script as `python SCRIPT ARGS` or `python -m SCRIPT ARGS` does; what it raises passes through."""
    if not options.module and not os.path.exists(options.script):
        options.parser.error(f"SCRIPT {options.script} does not exist; name a Python file")

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    log = logging.getLogger("bdgf_fast.compat")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False

    sys.argv = [options.script, *options.args]
    if not sys.flags.safe_path:  # first on the path, as python has it: the script's folder, or the working directory
        sys.path[0] = os.getcwd() if options.module else os.path.dirname(os.path.abspath(options.script))
    install(force=options.force, host_devices=True)
    try:
        if options.module:
            runpy.run_module(options.script, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(options.script, run_name="__main__")
    except BaseException as error:
        if isinstance(error, (ImportError, AttributeError)) and (note := lacking(error)):
            error.add_note(note)
        _show_from_script(error)
        raise


def _show_from_script(error: BaseException) -> None:
    """Have the interpreter show the traceback of ``error``, which ends the program, from the script's first line on: what called
    the script is not the reader's. A hook that the script has set is kept."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    while own is not None and own.tb_frame.f_globals.get("__name__") == "runpy":
        own = own.tb_next
    hook = sys.excepthook

    def shown(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        if value is error:  # Python's own hook shows what the exception carries, another one may show its argument
            hook(kind, value.with_traceback(own), own)
        else:
            hook(kind, value, traceback)

    sys.excepthook = shown
