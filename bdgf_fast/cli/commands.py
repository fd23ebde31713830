"""What each command does: calls of the package's functions with the parsed arguments, and what a person reads of their results."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:  # `info` needs nothing that the application installs
    from ..config import Config


EXIT_PARTLY = 1
"""Some of many scenes could not be mapped."""


def info(args: argparse.Namespace) -> int:
    from .. import backends
    from ..pipeline.versions import extension, info_text, versions

    if args.json:
        found = versions() | {"extension: file": extension()["file"]}
        print(json.dumps({"versions": found, "backends": backends.table()}, indent=1))
    else:
        print(info_text())
    return 0


def bench(args: argparse.Namespace) -> int:
    from .. import benchmark
    from ..common.devices import device_of

    device = device_of(args.device)
    if args.json:
        rows = benchmark.bench(args.names, device, seconds=args.seconds)
        print(json.dumps([{**vars(row), "ratio": row.ratio} for row in rows], indent=1))
        return 0
    benchmark.bench(args.names, device, seconds=args.seconds, started=lambda: print(benchmark.HEADING),
                    each=lambda row: print(benchmark.text(row), flush=True))  # fmt: skip
    return 0


def completion(args: argparse.Namespace) -> int:
    from ..config import Config
    from .completion import script
    from .parser import parser

    sections = Config().to_dict()
    keys = [f"{name}.{key}" for name, values in sections.items() if isinstance(values, dict) for key in values]
    print(script(parser(), args.shell, ["seed", *keys]), end="")
    return 0


def data(args: argparse.Namespace) -> int:
    from ..data import check, known_sets, scene_tables

    if args.look == "check":
        logging.getLogger("bdgf_fast.data").setLevel(logging.WARNING)  # the report says the same
        report = check.check(args.scene, args.run)
        print(report.text())
        return report.status(args.strict)
    if args.look == "schema":
        print(json.dumps(scene_tables.schema(), indent=1))
    else:
        print(known_sets.describe(args.name))
    return 0


def config(args: argparse.Namespace) -> int:
    from ..config import Config, schema
    from ..pipeline.config_file import toml_text

    if args.schema:
        print(json.dumps(schema(), indent=1))
    else:
        print(toml_text(Config() if args.defaults else settings(Config(), args)), end="")
    return 0


def settings(base: Config, args: argparse.Namespace) -> Config:
    """The configuration of a command: ``base`` < --config < --set < --features; its ``seed`` is the run's."""
    from ..pipeline.settings import configured, values_of, with_seed

    values = values_of(args.config, "--config")
    config = configured(base, values, args.set, args.features if getattr(args, "features", None) else (), said="--config")
    said = any(text.partition("=")[0].strip() == "seed" for text in args.set)
    seed = getattr(args, "seed", None)
    if getattr(args, "seeds", None):
        if said or "seed" in values or seed is not None:
            raise UserError("--seeds names the seeds; leave out --seed, and seed in --set and --config")
        return config
    if said and seed not in (None, config.seed):
        raise UserError(f"--set seed={config.seed} and --seed {seed} differ; give one of them")
    return with_seed(config, seed)


def demo(args: argparse.Namespace) -> int:
    from ..config import Config

    return _runs(args, "synthetic", settings(Config.demo(), args), args.baselines)


def run(args: argparse.Namespace) -> int:
    from ..config import Config

    return _runs(args, args.scene, settings(Config(), args), args.baselines)


def _runs(args: argparse.Namespace, scene: str, config: Config, baselines: Any) -> int:
    """One run, or one below --out for each of --seeds with their mean and deviation."""
    from ..pipeline import commands

    options = {"config": config, "baselines": baselines, "resume": args.resume, "overwrite": args.overwrite, **_surroundings(args),
               "tensorboard": args.tensorboard, "denoiser": getattr(args, "denoiser", None)}  # fmt: skip
    if args.seeds:
        found = commands.run_seeds(scene, args.out, args.seeds, each=lambda result: _say(f"\n{result}"), **options)
        _say(f"\n{found}")
    else:
        _say(f"\n{commands.run(scene, args.out, **options)}")
    return 0


def pretrain(args: argparse.Namespace) -> int:
    from ..config import Config
    from ..pipeline import commands

    stage = commands.pretrain(args.scene, args.out, config=settings(Config(), args), resume=args.resume, overwrite=args.overwrite,
                              tensorboard=args.tensorboard, **_surroundings(args))  # fmt: skip
    following = f"train {args.out}" if len(args.scene) == 1 else f"run SCENE --denoiser {args.out} --out RUN"
    _say(f"pre-trained in {stage.seconds:.0f} s; next: bdgf-fast {following}")
    return 0


def train(args: argparse.Namespace) -> int:
    from ..pipeline import commands

    stage = commands.train(args.directory, resume=args.resume, tensorboard=args.tensorboard, **_surroundings(args))
    _say(f"trained in {stage.seconds:.0f} s; next: bdgf-fast evaluate {args.directory}")
    return 0


def distil(args: argparse.Namespace) -> int:
    from ..network.distil import student_config
    from ..pipeline import commands
    from ..pipeline.run import Run

    base = student_config(Run.settings_of(args.directory))
    found = commands.distil(args.directory, args.out, modalities=args.modalities, config=settings(base, args), resume=args.resume,
                            overwrite=args.overwrite, tensorboard=args.tensorboard, **_surroundings(args))  # fmt: skip
    _say(f"\n{found}")
    return 0


def transfer(args: argparse.Namespace) -> int:
    from ..config import Config
    from ..pipeline.transfer import transfer

    found = transfer(args.train, args.test, args.out, labels=args.labels, align=args.align, baselines=args.baselines,
                     config=settings(Config(), args), denoiser=args.denoiser, resume=args.resume, overwrite=args.overwrite,
                     **_surroundings(args))  # fmt: skip
    _say(str(found))
    return 0


def evaluate(args: argparse.Namespace) -> int:
    from ..pipeline import commands

    _say(f"\n{commands.evaluate(args.directory, **_surroundings(args))}")
    return 0


def predict(args: argparse.Namespace) -> int:
    from ..pipeline import commands

    if args.scenes is not None:
        return _predict_scenes(args)
    found = commands.predict(args.directory, args.scene, args.out, memory=args.memory, stride=args.stride,
                             features=args.features or (), precision=args.precision, priors=args.priors, refine=args.refine,
                             **_surroundings(args))  # fmt: skip
    _say(f"wrote map.tif, probabilities.tif and map.png to {found.path}")
    return 0


def _predict_scenes(args: argparse.Namespace) -> int:
    from ..pipeline import commands

    if args.out is None:
        raise UserError("predict --scenes needs --out, the directory of the maps")
    if args.features:
        raise UserError("--features are the maps of one scene; give them with --scene, or leave out --scenes")
    found = commands.predict_scenes(args.directory, args.scenes, args.out, memory=args.memory, stride=args.stride,
                                    precision=args.precision, priors=args.priors, refine=args.refine,
                                    **_surroundings(args))  # fmt: skip
    _say(str(found))
    return EXIT_PARTLY if found.failed else 0


def study(args: argparse.Namespace) -> int:
    from ..studies import commands
    from ..studies.cells import PRESETS, listing
    from ..studies.study import Study

    config = settings(PRESETS[args.preset].base(), args)
    if args.cells and "list" in args.cells:
        print(listing(Study(args.out, args.scene, preset=args.preset, config=config).cells))
        return 0
    if args.labels:
        from ..studies.label_curve import label_curve

        print(label_curve(args.scene, args.out, args.labels, preset=args.preset, seeds=args.seeds, cells=args.cells, config=config,
                          **_surroundings(args)))  # fmt: skip
        return 0
    found = commands.study(args.scene, args.out, preset=args.preset, seeds=args.seeds, cells=args.cells, config=config,
                           **_surroundings(args))  # fmt: skip
    if found.note:
        print(found.note)
    print(f"{args.out / 'study.html'}, {args.out / 'study.md'}, {args.out / 'study.json'}")
    return 0


def report(args: argparse.Namespace) -> int:
    from ..pipeline import commands

    print(commands.compare(args.directories, args.page))
    return 0


def _surroundings(args: argparse.Namespace) -> dict[str, Any]:
    return {"device": args.device, "quiet": args.quiet}


def _say(text: str) -> None:
    """Print, of several ranks the first."""
    from ..common.ranks import leads

    if leads():
        print(text)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "demo": demo, "run": run, "pretrain": pretrain, "train": train, "evaluate": evaluate, "predict": predict, "study": study,
    "distil": distil, "transfer": transfer,
    "report": report,
    "data": data, "config": config, "bench": bench, "info": info,
    "completion": completion,
}  # fmt: skip
LIGHT = ("data", "config", "bench", "completion", "info")
"""Commands that train nothing: they need no device and no group of processes."""


def execute(args: argparse.Namespace) -> int:
    """Carry out the parsed command; returns the exit status."""
    if args.command in LIGHT:
        return COMMANDS[args.command](args)
    from ..pipeline.session import session

    with session(args.device) as device:  # around the printing too: the first rank prints
        args.device = device
        return COMMANDS[args.command](args)
