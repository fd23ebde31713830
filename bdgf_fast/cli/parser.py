"""The arguments of every command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..compat.script import add_arguments as add_compat_arguments
from .refusals import Parser

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Parser]


# --- arguments of several commands ---


def named(text: str) -> Path:
    """The file or directory that an option names: an empty name, as of an unset variable of the shell, would be the working
    directory."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty; name a file or directory, or `.` for the working directory")
    return Path(text)


def _common(command: Parser) -> None:
    group = command.add_argument_group("common options")
    group.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    group.add_argument("--quiet", action="store_true", help="print warnings only, and no progress bars")
    group.add_argument("--device", default="auto", help="auto (a GPU if torch sees one), cpu, cuda or cuda:N (default: auto)")
    group.add_argument("--threads", type=int, metavar="N", help="number of CPU threads (default: as many as torch uses)")
    group.add_argument(
        "--backend",
        choices=("reference", "cpu", "triton", "cuda"),
        help="use these kernels for every operation; reference is plain PyTorch (default: the fastest that can take the call, "
        "see `bdgf-fast info`)",
    )


SEED = "seed of the split, the weights and all noise (default: the configuration's seed, which is 0)"


def _configurable(command: Parser, seed: str = SEED) -> None:
    _set(command)
    _config_file(command)
    command.add_argument("--seed", type=int, metavar="N", help=seed)


def _config_file(command: Parser) -> None:
    command.add_argument(
        "--config", type=named, metavar="FILE.toml",
        help="configuration file with one table per section (`bdgf-fast config` prints one); values of --set override it",
    )


def _set(command: Parser, text: str = "") -> None:
    command.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help=text or "change one value of the configuration, such as pretrain.steps=500 (repeatable)",
    )


def _features(command: argparse._ActionsContainer) -> None:
    command.add_argument(
        "--features", type=named, nargs="+", metavar="FILE",
        help="feature maps of another model on the grid of the scene (.npy, .mat, GeoTIFF), "
        "which guide the network in place of the diffusion features",
    )


def _tensorboard(command: Parser) -> None:
    command.add_argument(
        "--tensorboard", action="store_true", help="also write logs for TensorBoard, to tensorboard/ in the run's directory"
    )


def _several(command: Parser) -> None:
    command.add_argument(
        "--seeds", type=int, nargs="+", metavar="N",
        help="make one run for each seed, and print the mean and standard deviation of their accuracies",
    )


def _directory(command: Parser, default: str | None = None, text: str = "directory of the run") -> None:
    path = None if default is None else Path(default)
    text += "" if default is None else f" (default: {default})"
    command.add_argument("--out", type=named, required=path is None, default=path, metavar="DIR", help=text)
    group = command.add_mutually_exclusive_group()
    group.add_argument("--resume", action="store_true", help="continue an interrupted run in the directory --out")
    group.add_argument("--overwrite", action="store_true", help="replace an earlier run in the directory --out")


def _predict_options(command: Parser) -> None:
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--scene", help="another scene with the same modalities, which needs --out (default: the scene of the run)"
    )
    which.add_argument(
        "--scenes", type=named, metavar="LIST.txt",
        help="a text file that names one scene per line, with paths relative to the file: each is mapped into a folder of --out, "
        "with an index and mosaics; finished maps are kept, and a scene that fails does not stop the others (exit status 1 at "
        "the end)",
    )
    command.add_argument(
        "--out", type=named, metavar="DIR",
        help="directory of the map (default: the directory of the run), or of all maps of --scenes",
    )
    _features(command)
    command.add_argument("--memory", metavar="SIZE", help="limit of the memory that each process may use, such as 2GiB")
    command.add_argument(
        "--stride", type=int, default=1, metavar="S",
        help="for networks that classify patches (model.mode=patch): classify every S-th row and column, and interpolate",
    )
    command.add_argument(
        "--precision", choices=("float32", "bfloat16"),
        help="arithmetic of the network; bfloat16 is faster if the processor or GPU multiplies it in hardware "
        "(default: predict.precision of the run)",
    )
    command.add_argument(
        "--priors", metavar="SHARES",
        help="class shares on which the map is based: train (those of the training labels), scene (estimated from the scene "
        "without labels) or shares by name, such as '{\"water\": 0.1, \"trees\": 0.9}' (default: predict.priors of the run)",
    )
    command.add_argument(
        "--refine", type=int, metavar="ROUNDS",
        help="rounds in which class probabilities are averaged over similar pixels nearby; 0 for none "
        "(default: predict.refine of the run)",
    )


def _scene(command: Parser) -> None:
    command.add_argument(
        "scene", metavar="SCENE",
        help="a scene file (TOML), NAME:FOLDER for a known data set, or `synthetic` for the built-in scene",
    )


def _of_run(command: Parser) -> None:
    command.add_argument("directory", type=named, metavar="DIR", help="directory of a run")


def _command(commands: Commands, name: str, text: str, more: str = "") -> Parser:
    """A command whose own --help begins with what the list of commands says of it."""
    return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".rstrip())


def _baselines(command: Parser, default: str) -> None:
    command.add_argument(
        "--baselines",
        choices=("none", "forest", "cnn", "all"),
        default=default,
        help="baselines to compare with. forest: random forests; cnn: also a residual CNN; all: also channel "
        f"exchange, a dual-branch denoiser, and the method on each modality alone (default: {default})",
    )


# --- commands ---


def _demo(commands: Commands) -> None:
    command = _command(commands, "demo", "run the whole method and some baselines on a synthetic scene, in a few minutes")
    _directory(command, default="runs/demo")
    _configurable(command)
    _several(command)
    _baselines(command, "cnn")
    _tensorboard(command)
    _common(command)


def _run(commands: Commands) -> None:
    command = _command(
        commands, "run", "run all stages on a scene, from pre-training to the map and the report",
        "It does what pretrain, train, predict and evaluate do one after the other.",
    )
    _scene(command)
    _directory(command)
    _configurable(command)
    _several(command)
    _baselines(command, "forest")
    guides = command.add_mutually_exclusive_group()
    _features(guides)
    guides.add_argument(
        "--denoiser", type=named, metavar="DIR",
        help="directory of a diffusion model that `pretrain` made of one scene or several; the run then pre-trains none",
    )
    _tensorboard(command)
    _common(command)


def _pretrain(commands: Commands) -> None:
    command = _command(commands, "pretrain", "first stage of a run: pre-train a diffusion model on all modalities, without labels")
    command.add_argument(
        "scene", metavar="SCENE", nargs="+",
        help="one scene, as for `run`, whose next stage is `train` in the same directory; or several scenes with the same "
        "modalities, whose diffusion model `run --denoiser` takes",
    )
    _directory(command)
    _configurable(command)
    _features(command)
    _tensorboard(command)
    _common(command)


def _train(commands: Commands) -> None:
    command = _command(commands, "train", "second stage: train the classifier on labels, guided by features of the diffusion model")
    _of_run(command)
    command.add_argument("--resume", action="store_true", help="continue from the last checkpoint (default: start again)")
    _tensorboard(command)
    _common(command)


def _evaluate(commands: Commands) -> None:
    command = _command(commands, "evaluate", "measure the accuracy of a trained run on its test pixels, and write the report")
    _of_run(command)
    _common(command)


def _predict(commands: Commands) -> None:
    command = _command(commands, "predict", "write the map and the class probabilities of a whole scene, with a trained run")
    _of_run(command)
    _predict_options(command)
    _common(command)


def _distil(commands: Commands) -> None:
    command = _command(
        commands, "distil", "train a small, fast network on the predictions of a trained run, without further labels",
        "The small network is a run of its own in --out, on the same scene and split; `predict` takes it like any other run.",
    )
    command.add_argument("directory", type=named, metavar="DIR", help="directory of the trained run, the teacher")
    _directory(command, text="directory of the small network")
    command.add_argument(
        "--modalities", nargs="+", default=[], metavar="NAME", help="modalities that the small network is to use (default: all)"
    )
    _configurable(command, "seed of the weights and all noise (default: the seed of the teacher, whose split is used in any case)")
    _tensorboard(command)
    _common(command)


def _transfer(commands: Commands) -> None:
    command = _command(
        commands, "transfer", "train on some labelled scenes, map other scenes, and measure the accuracy on each of them",
        "All scenes need the same modalities, bands and class codes. Forests trained on the same labels are scored for comparison.",
    )
    command.add_argument("--train", nargs="+", required=True, metavar="SCENE", help="labelled scenes to train on, together")
    command.add_argument(
        "--test", nargs="+", required=True, metavar="SCENE", help="scenes to map, and to score where they have labels"
    )
    _directory(command)
    command.add_argument(
        "--labels", type=int, default=100, metavar="N",
        help="largest number of training pixels of each class in each training scene (default: 100)",
    )
    command.add_argument(
        "--align", choices=("none", "scene", "both"),
        help="scene: shift and scale the bands of every scene to common means and deviations, without labels; both: with and "
        "without, in one table (default: data.align of the configuration, which is none)",
    )
    command.add_argument(
        "--baselines", choices=("none", "forest"), default="forest", help="forests on the same labels, or none (default: forest)"
    )
    command.add_argument("--denoiser", type=named, metavar="DIR", help="directory of a diffusion model that is pre-trained already")
    _configurable(command)
    _common(command)


def _report(commands: Commands) -> None:
    command = _command(commands, "report", "write one HTML page that compares several evaluated runs")
    command.add_argument("directories", type=named, nargs="+", metavar="DIR", help="directories of two or more runs")
    page = Path("comparison.html")
    command.add_argument("--page", type=named, default=page, metavar="FILE", help=f"file to write (default: {page})")
    _common(command)


def _study(commands: Commands) -> None:
    command = _command(
        commands, "study", "measure what each part of the method contributes: ablations, controls and baselines",
        "It runs every cell (the method with one setting changed) with every seed; cells with the same pre-training share it. The "
        "same command continues an interrupted study, and finished cells are kept. Only test pixels are scored, and nothing is "
        "selected by them.",
    )
    _scene(command)
    command.add_argument("--out", type=named, required=True, metavar="DIR", help="directory of the study")
    command.add_argument(
        "--preset", choices=("quick", "full"), default="quick",
        help="quick: fewer steps and a random sample of the test pixels, at most about 100 s per cell on two cores; full: the "
        "configuration as it is (default: quick)",
    )
    command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="seeds to run (default: 0 1 2)")
    command.add_argument(
        "--cells", nargs="+", metavar="NAME",
        help="names of cells or groups of them; `all` runs every cell, and `list` prints the names and runs none (default: all "
        "in the quick preset, the main ones in the full preset)",
    )
    command.add_argument(
        "--labels", type=int, nargs="+", metavar="N",
        help="run the study once for each of these numbers of training pixels per class, and plot accuracy against them",
    )
    _set(command, "change one value of the default cell's configuration, such as train.epochs=20 (repeatable)")
    _config_file(command)
    _features(command)
    _common(command)


def _data(commands: Commands) -> None:
    text = "examine data before training on them: check, list, schema"
    looks = _command(commands, "data", text).add_subparsers(dest="look", required=True, metavar="COMMAND")

    check = _command(
        looks, "check", "report what is there, what is missing and what looks wrong",
        "The exit status is 1 if something is missing or wrong.",
    )
    check.add_argument(
        "scene", metavar="SCENE",
        help="a scene file (TOML), NAME:FOLDER for a known data set, or a folder that holds scene.toml or the files of a known set",
    )
    check.add_argument(
        "--run", type=named, metavar="DIR", help="directory of a run: also compare the values with those of its training region"
    )
    check.add_argument("--strict", action="store_true", help="exit status 1 also for findings marked `look`")
    _common(check)

    _common(_command(looks, "schema", "print the JSON schema of scene files (editors complete and check with it)"))

    names = _command(looks, "list", "list the data sets that are known by name, or the files and classes of one")
    names.add_argument("name", nargs="?", metavar="NAME", help="a known data set (default: list them all)")
    _common(names)


def _config(commands: Commands) -> None:
    command = _command(
        commands, "config", "print the configuration as a commented TOML file, as a start for your own",
        "It prints every value with its description: the defaults, as changed by --config and --set. A file for --config "
        "only needs the values that differ from the defaults.",
    )
    command.add_argument("--defaults", action="store_true", help="print the built-in defaults, whatever else is given")
    command.add_argument(
        "--schema", action="store_true", help="print the JSON schema of such files instead (editors complete and check with it)"
    )
    _set(command)
    _config_file(command)
    _common(command)


def _bench(commands: Commands) -> None:
    command = _command(
        commands, "bench", "time the operations on this machine and compare them with plain PyTorch",
        "Every result is first compared with its definition in float64; then our kernel and the baseline are timed in turn. Run "
        "nothing else on the machine meanwhile.",
    )
    command.add_argument("names", nargs="*", metavar="OPERATION", help="operations to time, such as selective_scan (default: all)")
    command.add_argument("--seconds", type=float, default=1.0, metavar="S", help="approximate time for each case (default: 1)")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _common(command)


def _info(commands: Commands) -> None:
    command = _command(commands, "info", "show versions, what was built, and which backend runs each operation")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")
    _common(command)


def _compat(commands: Commands) -> None:
    add_compat_arguments(
        _command(
            commands, "compat", "run a script written for mamba_ssm, causal_conv1d or VMamba, unchanged, without these packages",
            "Where these packages are not installed, the script's imports lead to stand-ins on the operations of bdgf_fast.",
        )
    )


def _completion(commands: Commands) -> None:
    command = _command(
        commands, "completion", "print a script that completes commands and options in your shell",
        'Put eval "$(bdgf-fast completion bash)" into ~/.bashrc, or the same with zsh into ~/.zshrc.',
    )
    command.add_argument("shell", choices=("bash", "zsh"), help="your shell")
    _common(command)


def parser() -> Parser:
    """The parser of all commands (used by the tests and the documentation as well)."""
    root = Parser(
        prog="bdgf-fast",
        description="Land-cover maps from several sensors at once, by balanced diffusion-guided fusion (BDGF).",
        epilog="SCENE is a scene file (TOML), NAME:FOLDER for a known data set (`bdgf-fast data list` prints the names), or "
        "`synthetic` for the built-in scene. `bdgf-fast COMMAND --help` explains a command. To use several processes: "
        "torchrun --nproc-per-node N -m bdgf_fast COMMAND ...",
    )
    root.add_argument("--version", action="version", version=f"bdgf_fast {__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_demo, _run, _pretrain, _train, _evaluate, _predict, _transfer, _distil, _report, _study, _data, _config, _bench,
                _info, _compat, _completion):  # fmt: skip
        add(commands)
    return root
