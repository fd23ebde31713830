"""The arguments of every command."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import __version__


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
    command.add_argument(
        "--priors", metavar="SHARES",
        help="class shares that the map goes by: train (those of the training labels), scene (estimated from the scene without "
        "labels) or shares by name, such as '{\"water\": 0.1, \"trees\": 0.9}' (default: predict.priors of the run)",
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
        "--labels", type=int, nargs="+", metavar="N",
        help="run the study once for each of these numbers of training pixels per class, and draw accuracy over them",
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

    distil = commands.add_parser(
        "distil", help="train a small, fast network on what a trained one says of unlabelled pixels",
        description="The small network is a run of its own in --out, on the same scene and split; `predict` takes it like any "
        "other run.",
    )
    distil.add_argument("directory", type=Path, metavar="DIR", help="directory of the trained run, the teacher")
    _directory(distil)
    distil.add_argument(
        "--modalities", nargs="+", default=[], metavar="NAME", help="modalities that the small network needs (default: all)"
    )
    _configurable(distil)
    _tensorboard(distil)
    _common(distil)

    report = commands.add_parser("report", help="write one page that compares several evaluated runs")
    report.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="directories of two or more runs")
    page = Path("comparison.html")
    report.add_argument("--page", type=Path, default=page, metavar="FILE", help=f"file to write (default: {page})")
    _common(report)

    data = commands.add_parser("data", help="examine data before training on it: check, list, schema")
    looks = data.add_subparsers(dest="look", required=True, metavar="COMMAND")
    check = looks.add_parser("check", help="report what is there, what is missing and what looks wrong (then the exit status is 1)")
    check.add_argument("scene", metavar="DIR|SCENE", help="a folder, a scene file or NAME:FOLDER")
    check.add_argument(
        "--run", type=Path, metavar="RUN", help="directory of a run: also compare the values with those of its training region"
    )
    check.add_argument("--strict", action="store_true", help="exit status 1 also for findings marked `look`")
    _common(check)
    _common(looks.add_parser("schema", help="print the JSON schema of scene files, for editors"))
    names = looks.add_parser("list", help="list the data sets that are known by name, or the files and classes of one")
    names.add_argument("name", nargs="?", metavar="NAME")
    _common(names)

    config = commands.add_parser(
        "config", help="print the configuration as a commented TOML file, as a start for your own",
        description="Print every value with its description: the defaults, as changed by --config and --set. A file for --config "
        "only needs the values that differ from the defaults.",
    )
    config.add_argument("--defaults", action="store_true", help="print the built-in defaults, whatever else is given")
    config.add_argument("--schema", action="store_true", help="print the JSON schema of such files instead, for editors")
    config.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a value (repeatable)")
    _config(config)
    _common(config)

    bench = commands.add_parser(
        "bench", help="time the operations on this machine and compare them with plain PyTorch",
        description="Compare every result with its definition in float64, then time our kernel and the baseline in turn. Keep the "
        "machine quiet.",
    )
    bench.add_argument("names", nargs="*", metavar="OPERATION", help="operations to time (default: all)")
    bench.add_argument("--seconds", type=float, default=1.0, metavar="S", help="approximate time for each case (default: 1)")
    bench.add_argument("--json", action="store_true", help="print JSON")
    _common(bench)

    completion = commands.add_parser(
        "completion", help='print the completion of a shell, for use as eval "$(bdgf-fast completion bash)"'
    )
    completion.add_argument("shell", choices=("bash", "zsh"))
    _common(completion)

    info = commands.add_parser("info", help="show versions, what was built, and which backend each operation uses")
    info.add_argument("--json", action="store_true", help="print JSON")
    _common(info)
    return root
