"""What each command does, over `run.Run`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .baselines import CNN, DUAL, EXCHANGE
from .common.ranks import group, leads
from .config import Config
from .errors import UserError
from .files.json_files import read_json, write_json
from .network.whole_scene import parse_bytes
from .pipeline.beside import forests, networks
from .pipeline.locks import released
from .pipeline.run import Run
from .pipeline.run_directory import STAGES, RunDirectory
from .pipeline.scenes import SYNTHETIC
from .pipeline.settings import read_config, settings
from .report.metrics import METRICS
from .report.run_page import comparison, percent, render

ALONE = (
    "There are no rows for single modalities: the maps of another model, which guide, may have been made from all of them, and "
    "would show each what the others saw."
)


def execute(args: argparse.Namespace) -> int:
    """Carry out the parsed command; returns the exit status. Under torchrun the ranks share its work and the first writes."""
    args.device = _device(args.device)
    with group(args.device), released():
        return {"demo": _demo, "run": _run, "pretrain": _pretrain, "train": _train, "evaluate": _evaluate,
                "predict": _predict, "study": _study}[args.command](args)


def _device(name: str) -> torch.device:
    """``auto`` is this rank's GPU where torch sees one, else the CPU."""
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UserError(f"--device {name} is none torch knows; it takes auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: torch sees no GPU here; --device cpu runs without one")
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if device.index is None else device.index)
        torch.cuda.set_device(device)
    return device


def _demo(args: argparse.Namespace) -> int:
    return _seeds(args, SYNTHETIC, settings(Config.demo(), args), "all")


def _run(args: argparse.Namespace) -> int:
    return _seeds(args, args.scene, settings(Config(), args), args.baselines)


def _seeds(args: argparse.Namespace, scene: str, config: Config, baselines: str) -> int:
    """One run, or one below --out for each of --seeds with their mean and deviation."""
    if not args.seeds:
        _print(_whole(args, args.out, scene, config, baselines), args.out)
        return 0
    if len(set(args.seeds)) != len(args.seeds):
        raise UserError(f"--seeds names a seed twice: {args.seeds}")
    reports = {}
    for seed in args.seeds:
        out = args.out / f"seed-{seed}"
        reports[seed] = _whole(args, out, scene, config.override(f"seed={seed}"), baselines)
        _print(reports[seed], out)
    summary = _summary(reports)
    write_json(args.out / "summary.json", summary)
    if not leads():
        return 0
    print(f"\nmean and standard deviation over seeds {', '.join(map(str, args.seeds))} ({args.out / 'summary.json'})")
    for row in summary["rows"]:
        print(f"  {row['name']:<40} OA {100 * row['overall_accuracy']['mean']:.1f} +- {100 * row['overall_accuracy']['std']:.1f} %")
    return 0


def _whole(args: argparse.Namespace, out: Path, scene: str, config: Config, baselines: str) -> dict[str, Any]:
    """All stages; a stage that a resumed directory has behind it is not run again."""
    run = Run(RunDirectory(out, resume=args.resume, overwrite=args.overwrite), scene, config, config.seed,
              quiet=args.quiet, device=args.device, tensorboard=args.tensorboard)
    _stages(run)
    if run.directory.done("evaluate"):
        return read_json(run.directory / "report.json")
    beside: dict[str, Any] = {}
    if baselines != "none" and leads():
        beside.update(forests(run))
    if baselines in ("cnn", "all"):
        beside.update(networks(run, [CNN]))
    notes = []
    if baselines == "all":
        if run.guide == "maps" and len(run.prepared.groups) > 1:
            notes.append(ALONE)
        else:
            beside.update(_single_modalities(run))
        beside.update(networks(run, [EXCHANGE, DUAL] if run.guide == "denoiser" else [EXCHANGE]))
    return run.evaluate(beside, notes)


def _stages(run: Run) -> None:
    for stage in ("pretrain", "train", "predict"):
        if not run.directory.done(stage):
            getattr(run, stage)()


def _single_modalities(run: Run) -> dict[str, Any]:
    """The same method and configuration on each modality alone, in runs of their own below the run's directory."""
    names = run.prepared.modality_names
    rows = {}
    for name in names if len(names) > 1 else ():
        directory = RunDirectory(run.directory / "single" / name, resume=True)
        single = Run(directory, run.reference, run.config, run.seed, modalities=[name], quiet=run.quiet,
                     device=run.device)
        for stage in ("pretrain", "train"):
            if not directory.done(stage):
                getattr(single, stage)()
        report = read_json(directory / "report.json") if directory.done("evaluate") else single.evaluate()
        rows[f"BDGF, {name} alone"] = {key: report[key] for key in METRICS}
    return rows


def _pretrain(args: argparse.Namespace) -> int:
    config = settings(Config(), args)
    directory = RunDirectory(args.out, resume=args.resume, overwrite=args.overwrite)
    run = Run(directory, args.scene, config, config.seed, quiet=args.quiet, device=args.device, tensorboard=args.tensorboard)
    run.pretrain()
    _say(f"pre-trained in {directory.facts('pretrain')['seconds']:.0f} s; next: bdgf-fast train {args.out}")
    return 0


def _train(args: argparse.Namespace) -> int:
    run = Run.reopen(args.directory, quiet=args.quiet, device=args.device, tensorboard=args.tensorboard)
    if not args.resume:
        run.restart_training()
    run.train()
    _say(f"trained in {run.directory.facts('train')['seconds']:.0f} s; next: bdgf-fast evaluate {args.directory}")
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    run = Run.reopen(args.directory, quiet=args.quiet, device=args.device)
    _print(run.evaluate(forests(run) if leads() else None), args.directory)
    return 0


def _predict(args: argparse.Namespace) -> int:
    if args.scene is not None and args.out is None:
        raise UserError("predict --scene needs --out: the maps of another scene do not belong into the run's own directory")
    if args.stride < 1:
        raise UserError(f"--stride is {args.stride}; it takes 1 or more")
    memory = None if args.memory is None else parse_bytes(args.memory)
    elsewhere = args.out is not None and args.out.resolve() != args.directory.resolve()
    run = Run.reopen(args.directory, quiet=args.quiet, device=args.device, elsewhere=elsewhere, own_scene=args.scene is None)
    run.predict(args.scene, args.out, memory=memory, stride=args.stride, maps=args.features, precision=args.precision)
    _say(f"wrote map.tif, probabilities.tif and map.png to {args.out or args.directory}")
    return 0


def _study(args: argparse.Namespace) -> int:
    from .studies.cells import listing
    from .studies.study import Study

    study = Study(args.out, args.scene, preset=args.preset, values=read_config(args.config) if args.config else {},
                  overrides=args.set, features=args.features or (), quiet=args.quiet, device=args.device)
    if args.cells and "list" in args.cells:
        print(listing(study.cells))
        return 0
    study.run(args.cells, args.seeds)
    beside = args.out.absolute().parent
    if (beside / "report.json").exists() and (beside / "history.json").exists():  # a study inside a run's directory
        try:
            directory = RunDirectory.open(beside)
            render(directory.path, with_map=directory.done("predict"))
        except UserError as error:  # another command works in it
            print(f"{beside / 'report.html'} does not show this study yet: {error}")
    print(f"{args.out / 'study.html'}, {args.out / 'study.md'}, {args.out / 'study.json'}")
    return 0


def _summary(reports: dict[int, dict[str, Any]]) -> dict[str, Any]:
    tables = {seed: {row["name"]: row for row in comparison(report)} for seed, report in reports.items()}
    rows = []
    for name in next(iter(tables.values())):
        row: dict[str, Any] = {"name": name}
        for metric in METRICS:
            values = [table[name][metric] for table in tables.values()]
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
            row[metric] = {"mean": float(np.mean(values)), "std": deviation, "values": values}
        rows.append(row)
    rows.sort(key=lambda row: -row["overall_accuracy"]["mean"])
    seconds = {stage: [report["seconds"][stage] for report in reports.values()] for stage in STAGES}
    return {"seeds": list(reports), "rows": rows, "seconds": seconds,
            "peak_memory_bytes": max(report["peak_memory_bytes"] for report in reports.values())}


def _say(text: str) -> None:
    if leads():
        print(text)


def _print(report: dict[str, Any], out: Path) -> None:
    """The result as a person reads it in the terminal."""
    if not leads():
        return
    print(f"\n{report['name']}: seed {report['seed']}, {report['train_pixels']} training and {report['test_pixels']} test pixels")
    for row in comparison(report):
        mark = "*" if row["best"] else " "
        print(f" {mark} {row['name']:<40} OA {percent(row['overall_accuracy'])} %  AA {percent(row['average_accuracy'])} %"
              f"  kappa {row['kappa']:.3f}")
    for name, value in report["per_class"].items():
        print(f"     {name:<38} {percent(value)} %")
    print(f"   {out / 'report.html'}, {out / 'map.tif'}, {out / 'map.png'}")
