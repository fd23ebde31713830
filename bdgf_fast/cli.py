"""The command line: `bdgf-fast` and `python -m bdgf_fast`.

A person's mistake (a missing file, a grid that does not match, a class without pixels) is one sentence on stderr and exit
status 2; Ctrl-C is 130; a reader that stops reading (`| head -1`) is 141, as for any program; anything else is a fault of
ours, status 1, with the traceback under `--debug`. `data check` prints its findings on stdout and exits with 1 when something
is missing or looks wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import __version__
from .errors import UserError

EXIT_INTERNAL, EXIT_USER, EXIT_INTERRUPTED, EXIT_NO_READER = 1, 2, 130, 141
SEEDS = 2**32
"""Seeds lie below this: scikit-learn takes no larger ones."""
# What is wrong with a path that a person named, rather than with the program.
_PATH_ERRORS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
     errno.ELOOP, errno.ENOSPC, errno.EDQUOT}
)  # fmt: skip


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    command.add_argument("--quiet", action="store_true", help="print warnings only, and no progress bars")
    command.add_argument("--device", default="auto", help="auto (a GPU if torch sees one), cpu, cuda or cuda:N (default: auto)")
    command.add_argument("--threads", type=int, metavar="N", help="number of CPU threads (default: as many as torch uses)")
    command.add_argument(
        "--backend",
        choices=("reference", "cpu", "triton", "cuda"),
        help="use this backend for every operation (default: the fastest that can take the call, see `info`)",
    )


def _configurable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one value of the configuration, such as pretrain.steps=500 (repeatable)",
    )
    _config(command)
    command.add_argument(
        "--seed", type=int, help="seed of the split, the weights and all noise (default: the configuration's seed, which is 0)"
    )


def _config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", type=Path, metavar="FILE.toml",
        help="configuration file with one table per section; values of --set override it",
    )


def _features(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--features", type=Path, nargs="+", metavar="FILE",
        help="feature maps of another model on the grid of the scene (.npy, .mat, GeoTIFF), "
        "which guide the network in place of the diffusion features",
    )


def _tensorboard(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tensorboard", action="store_true", help="also write logs for TensorBoard to DIR/tensorboard")


def _several(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--seeds", type=int, nargs="+", metavar="N", help="one run for each seed, and their mean and standard deviation"
    )


def _directory(command: argparse.ArgumentParser, default: str | None = None) -> None:
    path = None if default is None else Path(default)
    command.add_argument("--out", type=Path, required=path is None, default=path, help="directory of the run")
    group = command.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="continue an interrupted run in --out")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run in --out")


def _predict_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scene", help="another scene with the same modalities (default: the scene of the run)")
    command.add_argument("--out", type=Path, help="directory for the map (default: the directory of the run)")
    _features(command)
    command.add_argument("--memory", metavar="SIZE", help="limit of the resident memory of each process, such as 2GiB")
    command.add_argument(
        "--stride", type=int, default=1, metavar="S",
        help="networks over patches only: classify every S-th row and column, and interpolate",
    )
    command.add_argument(
        "--precision", choices=("float32", "bfloat16"),
        help="arithmetic of the network; bfloat16 is faster if the processor or GPU multiplies it in hardware "
        "(default: predict.precision of the run)",
    )


def parser() -> argparse.ArgumentParser:
    """The parser of all commands (used by the tests and the documentation as well)."""
    root = argparse.ArgumentParser(
        prog="bdgf-fast",
        description="Land-cover maps from several sensors at once, by balanced diffusion-guided fusion (BDGF).",
        epilog="SCENE is a scene file (TOML), NAME:FOLDER for a known data set (`data list` shows the names), or "
        "`synthetic` for the built-in scene. To use several processes: torchrun --nproc-per-node N -m bdgf_fast COMMAND ...",
    )
    root.add_argument("--version", action="version", version=f"bdgf_fast {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run the whole method and its baselines on a synthetic scene, in a few minutes")
    _directory(demo, default="runs/demo")
    _configurable(demo)
    _several(demo)
    _tensorboard(demo)
    _common(demo)

    run = commands.add_parser("run", help="run all stages on a scene: pretrain, train, predict, evaluate, report")
    run.add_argument("scene", metavar="SCENE")
    _directory(run)
    _configurable(run)
    _several(run)
    run.add_argument(
        "--baselines",
        choices=("none", "forest", "cnn", "all"),
        default="forest",
        help="baselines to compare with. forest: random forests; cnn: also a residual CNN; all: also channel "
        "exchange, a dual-branch denoiser, and the method on each modality alone (default: forest)",
    )
    _features(run)
    _tensorboard(run)
    _common(run)

    pretrain = commands.add_parser("pretrain", help="stage 1: pre-train the multimodal diffusion model")
    pretrain.add_argument("scene", metavar="SCENE")
    _directory(pretrain)
    _configurable(pretrain)
    _features(pretrain)
    _tensorboard(pretrain)
    _common(pretrain)

    study = commands.add_parser(
        "study", help="measure what each part of the method contributes: ablations, controls and baselines",
        description="Run every cell (a setting) with every seed; cells with the same pre-training share it. The same command "
        "continues an interrupted study, and finished cells are kept. Only test pixels are scored, and nothing is "
        "selected by them.",
    )
    study.add_argument("scene", metavar="SCENE")
    study.add_argument("--out", type=Path, required=True, help="directory of the study")
    study.add_argument(
        "--preset", choices=("quick", "full"), default="quick",
        help="quick: fewer steps and a random sample of the test pixels, at most about 100 s per cell on two cores; full: the "
        "configuration as it is (default: quick)",
    )
    study.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="seeds to run (default: 0 1 2)")
    study.add_argument(
        "--cells", nargs="+", metavar="NAME",
        help="names of cells or groups; `all` runs every cell and `list` shows them (default: all "
        "in the quick preset, the main ones in the full preset)",
    )
    study.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the default cell (repeatable)"
    )
    _config(study)
    _features(study)
    _common(study)

    for name, text in (
        ("train", "stage 3: train the group network on diffusion features"),
        ("evaluate", "measure the accuracy on the test pixels, and write a report"),
        ("predict", "write the map and the class probabilities of a whole scene"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("directory", type=Path, metavar="DIR", help="directory of a run")
        if name == "predict":
            _predict_options(command)
        if name == "train":
            command.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
            _tensorboard(command)
        _common(command)

    data = commands.add_parser("data", help="examine data before training on it: check, list")
    looks = data.add_subparsers(dest="look", required=True, metavar="COMMAND")
    check = looks.add_parser("check", help="report what is there, what is missing and what looks wrong (then the exit status is 1)")
    check.add_argument("scene", metavar="DIR|SCENE", help="a folder, a scene file or NAME:FOLDER")
    check.add_argument(
        "--run", type=Path, metavar="RUN", help="directory of a run: also compare the values with those of its training region"
    )
    check.add_argument("--strict", action="store_true", help="exit status 1 also for findings marked `look`")
    _common(check)
    names = looks.add_parser("list", help="list the data sets that are known by name, or the files and classes of one")
    names.add_argument("name", nargs="?", metavar="NAME")
    _common(names)

    info = commands.add_parser("info", help="show versions, what was built, and which backend each operation uses")
    info.add_argument("--json", action="store_true", help="print JSON")
    _common(info)
    return root


def _info(as_json: bool) -> int:
    from . import backends
    from .training.versions import versions

    facts = versions()
    if as_json:
        print(json.dumps({"versions": facts, "backends": backends.table()}, indent=1))
        return 0
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
    print()
    print(backends.explain())
    return 0


def _data(args: argparse.Namespace) -> int:
    from .data import check, known_sets

    if args.look == "check":
        logging.getLogger("bdgf_fast.data").setLevel(logging.WARNING)  # the report says the same
        report = check.check(args.scene, args.run)
        print(report.text())
        return report.status(args.strict)
    print(known_sets.describe(args.name))
    return 0


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

    from . import backends

    _check_common(args)
    if args.threads is not None:
        if args.threads < 1:
            raise UserError(f"--threads is {args.threads}; takes 1 or more")
        torch.set_num_threads(args.threads)
    forced = backends.use_backend(args.backend) if args.backend else contextlib.nullcontext()
    with forced:
        if args.command == "info":
            return _info(args.json)
        try:
            if args.command == "data":
                return _data(args)
            from .training import commands
        except ModuleNotFoundError as error:
            raise UserError(
                f"the package {error.name} is missing: the application needs its extra, pip install 'bdgf-fast[app]'"
            ) from error
        return commands.execute(args)


@contextlib.contextmanager
def _speaking() -> Iterator[None]:
    """Text that the terminal's encoding lacks is escaped, and warnings are sentences without source lines."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.getLogger("rasterio").setLevel(logging.WARNING)  # it tells GDAL's errors besides raising them
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}"
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warnings.formatwarning = before


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0 done, 1 internal error, 2 a person's mistake, 130 interrupted, 141 no reader)."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING if args.quiet else logging.INFO, format="%(message)s", stream=sys.stderr)
    with _speaking():
        try:
            status = _dispatch(args)
            sys.stdout.flush()
            return status
        except KeyboardInterrupt:
            if args.debug:
                raise
            resume = "" if args.command == "study" else " with --resume"
            hint = f"; the same command{resume} goes on" if getattr(args, "out", None) else ""
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
    if isinstance(error, UserError):
        return f"error: {error}", EXIT_USER
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"error: the disk is full ({error.filename or 'while writing'}); free some space", EXIT_USER
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename is not None:
        return f"error: {error.filename}: {error.strerror}", EXIT_USER
    if isinstance(error, MemoryError):
        return f"error: the memory is full ({error}); a smaller predict.block, batch or --memory takes less", EXIT_USER
    return f"internal error: {type(error).__name__}: {error}\nrun again with --debug for the traceback", EXIT_INTERNAL


if __name__ == "__main__":
    sys.exit(main())
