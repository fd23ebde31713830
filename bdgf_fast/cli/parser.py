"""The arguments of every command."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import __version__


def _common(command: argparse.ArgumentParser) -> None:
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    command.add_argument("--quiet", action="store_true", help="no progress bars, warnings only")
    command.add_argument("--device", default="auto", help="auto (a GPU where torch sees one), cpu, cuda or cuda:N")
    command.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: torch's)")
    command.add_argument(
        "--backend",
        choices=("reference", "cpu", "triton", "cuda"),
        help="take this backend for every operation (default: the fastest that fits, see `info`)",
    )


def _configurable(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one value of the configuration, e.g. pretrain.steps=500 (repeatable)",
    )
    _config(command)
    command.add_argument(
        "--seed", type=int, help="seed of the split, the weights and all noise (default: the configuration's seed, which is 0)"
    )


def _config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", type=Path, metavar="FILE.toml", help="configuration file, with a table per section; --set comes after it"
    )


def _features(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--features", type=Path, nargs="+", metavar="FILE", help="maps of another model on the scene's grid (.npy, .mat, GeoTIFF) "
        "guide in place of the diffusion features"
    )


def _tensorboard(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tensorboard", action="store_true", help="also write logs for TensorBoard, to DIR/tensorboard")


def _several(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seeds", type=int, nargs="+", metavar="N", help="several runs, with mean and standard deviation")


def _directory(command: argparse.ArgumentParser, default: str | None = None) -> None:
    path = None if default is None else Path(default)
    command.add_argument("--out", type=Path, required=path is None, default=path, help="the run's directory")
    group = command.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="go on where a stopped run in --out ended")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run in --out")


def _predict_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--scene", help="another scene with the same modalities (default: the run's own)")
    command.add_argument("--out", type=Path, help="directory for the map (default: the run's own)")
    _features(command)
    command.add_argument("--memory", metavar="SIZE", help="resident memory each process stays within, e.g. 2GiB")
    command.add_argument(
        "--stride", type=int, default=1, metavar="S", help="patch networks: classify every S-th pixel and interpolate"
    )
    command.add_argument(
        "--precision", choices=("float32", "bfloat16"),
        help="arithmetic of the network; bfloat16 is faster where the processor or GPU multiplies it in hardware "
        "(default: the run's predict.precision)",
    )


def parser() -> argparse.ArgumentParser:
    """The parser of all commands (used by the tests and the documentation as well)."""
    root = argparse.ArgumentParser(
        prog="bdgf-fast",
        description="Balanced diffusion-guided fusion: land cover from several sensors at once.",
        epilog="SCENE is a scene file (TOML), NAME:FOLDER for a known data set (`data list` names them), or `synthetic` for the "
        "built-in scene. Several processes: torchrun --nproc-per-node N -m bdgf_fast COMMAND ...",
    )
    root.add_argument("--version", action="version", version=f"bdgf_fast {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="the whole method on a synthetic scene, with baselines, in minutes")
    _directory(demo, default="runs/demo")
    _configurable(demo)
    _several(demo)
    _tensorboard(demo)
    _common(demo)

    run = commands.add_parser("run", help="all stages on a scene: pretrain, train, predict, evaluate, report")
    run.add_argument("scene", metavar="SCENE")
    _directory(run)
    _configurable(run)
    _several(run)
    run.add_argument(
        "--baselines",
        choices=("none", "forest", "cnn", "all"),
        default="forest",
        help="shown beside the result: random forests; cnn: also a residual CNN; all: also channel exchange, a dual-branch "
        "denoiser and the method on each modality alone (default: forest)",
    )
    _features(run)
    _tensorboard(run)
    _common(run)

    pretrain = commands.add_parser("pretrain", help="stage 1: the multimodal diffusion model")
    pretrain.add_argument("scene", metavar="SCENE")
    _directory(pretrain)
    _configurable(pretrain)
    _features(pretrain)
    _tensorboard(pretrain)
    _common(pretrain)

    study = commands.add_parser(
        "study", help="what each part of the method is worth: a table of ablations, controls and baselines",
        description="Cells (settings) x seeds, with pre-training shared where it is the same. Resumable: the same command goes "
        "on, finished cells are kept. Scores only test pixels and chooses nothing by them.",
    )
    study.add_argument("scene", metavar="SCENE")
    study.add_argument("--out", type=Path, required=True, help="the study's directory")
    study.add_argument(
        "--preset", choices=("quick", "full"), default="quick",
        help="quick: fewer steps and a random part of the test pixels, at most about 100 s a cell on two cores; full: the "
        "configuration as it is (default: quick)",
    )
    study.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="(default: 0 1 2)")
    study.add_argument(
        "--cells", nargs="+", metavar="NAME", help="cells or groups of them, `all` for every one, `list` to see them (default: all "
        "in the quick preset, the main ones in the full one)"
    )
    study.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the default (repeatable)")
    _config(study)
    _features(study)
    _common(study)

    for name, text in (
        ("train", "stage 3: the group network on diffusion features"),
        ("evaluate", "accuracy on the test side, with a report"),
        ("predict", "the map and the class probabilities of the whole scene"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("directory", type=Path, metavar="DIR", help="a run's directory")
        if name == "predict":
            _predict_options(command)
        if name == "train":
            command.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
            _tensorboard(command)
        _common(command)

    report = commands.add_parser("report", help="one page that compares several evaluated runs")
    report.add_argument("directories", type=Path, nargs="+", metavar="DIR", help="the runs' directories, two or more")
    report.add_argument("--page", type=Path, default=Path("comparison.html"), metavar="FILE", help="(default: comparison.html)")
    _common(report)

    data = commands.add_parser("data", help="look at data before training on it: check, list, schema")
    looks = data.add_subparsers(dest="look", required=True, metavar="COMMAND")
    check = looks.add_parser("check", help="what is there, what is missing, what looks wrong (exit status 1)")
    check.add_argument("scene", metavar="DIR|SCENE", help="a folder, a scene file or NAME:FOLDER")
    check.add_argument("--run", type=Path, metavar="RUN", help="a run's directory: do the values look like its own?")
    check.add_argument("--strict", action="store_true", help="exit status 1 for findings marked `look` as well")
    _common(check)
    _common(looks.add_parser("schema", help="the JSON schema of a scene file, for editors"))
    names = looks.add_parser("list", help="the data sets known by name, or the files and facts of one")
    names.add_argument("name", nargs="?", metavar="NAME")
    _common(names)

    config = commands.add_parser(
        "config", help="the configuration as a commented TOML file, to start one of your own from",
        description="Prints every value with its description: the defaults, changed by --config and --set. What differs from the "
        "defaults is enough in a file for --config.",
    )
    config.add_argument("--defaults", action="store_true", help="the built-in defaults, whatever else is given")
    config.add_argument("--schema", action="store_true", help="the JSON schema of such a file instead, for editors")
    config.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change a value (repeatable)")
    _config(config)
    _common(config)

    bench = commands.add_parser(
        "bench", help="how fast the operations are on this machine, beside plain PyTorch",
        description="Compares every result with its definition in float64, then times ours and the baseline in turns. Keep the "
        "machine quiet.",
    )
    bench.add_argument("names", nargs="*", metavar="OPERATION", help="these operations (default: all)")
    bench.add_argument("--seconds", type=float, default=1.0, metavar="S", help="spent on each case, about (default: 1)")
    bench.add_argument("--json", action="store_true", help="machine-readable")
    _common(bench)

    completion = commands.add_parser("completion", help='completion for a shell: eval "$(bdgf-fast completion bash)"')
    completion.add_argument("shell", choices=("bash", "zsh"))
    _common(completion)

    info = commands.add_parser("info", help="versions, what was built, and which backend each operation takes")
    info.add_argument("--json", action="store_true", help="machine-readable")
    _common(info)
    return root
