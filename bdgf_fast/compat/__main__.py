"""`python -m bdgf_fast.compat script.py ARGS` is `bdgf-fast compat script.py ARGS`."""

from __future__ import annotations

import argparse

from .script import add_arguments, run_script


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bdgf_fast.compat",
        description="Run a script with stand-ins for mamba_ssm, causal_conv1d and VMamba's kernels where they are not installed.",
    )
    add_arguments(parser)
    run_script(parser.parse_args())


if __name__ == "__main__":
    main()
