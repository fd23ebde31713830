"""`python -m bdgf_fast.compat script.py ARGS`: run a script, unmodified, with stand-ins for what it imports and is missing."""

from __future__ import annotations

import argparse
import logging
import os
import runpy
import sys

from .stand_in import install


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bdgf_fast.compat",
        description="Run a script with stand-ins for mamba_ssm, causal_conv1d and VMamba's kernels where they are not installed.",
    )
    parser.add_argument("--force", action="store_true", help="stand in for installed packages, too")
    parser.add_argument("-m", dest="module", action="store_true", help="SCRIPT is a module, as with python -m")
    parser.add_argument("script")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="the script's own arguments")
    options = parser.parse_args()
    if not options.module and not os.path.exists(options.script):
        parser.error(f"script is {options.script}; there is no such file")

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    log = logging.getLogger("bdgf_fast.compat")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False

    sys.argv = [options.script, *options.args]
    if not options.module and not sys.flags.safe_path:  # as `python script.py` does, in place of the working directory
        sys.path[0] = os.path.dirname(os.path.abspath(options.script))
    install(force=options.force, host_devices=True)
    if options.module:
        runpy.run_module(options.script, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(options.script, run_name="__main__")


if __name__ == "__main__":
    main()
