"""A run's directory: what it holds, which stages are done, and how it survives a kill.

Every file is written beside its place and renamed into it, so a reader never sees half of one. `state.json` names the
stages that ended and is itself renamed, so a stage counts as done only after all its files stand.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ..common.ranks import barrier, leads
from ..errors import UserError
from ..files.json_files import read_json, write_json
from .locks import create, lock

STAGES = ("pretrain", "train", "predict", "evaluate")

#: What a run may leave. `--overwrite` removes these and nothing else: the directory is the user's.
FILES = (
    "config.json",
    "scene.json",
    "origin.json",
    "split.npz",
    "state.json",
    "report.json",
    "report.html",
    "history.json",
    "map.tif",
    "map.tif.aux.xml",
    "map.png",
    "areas.csv",
    "probabilities.tif",
    "probabilities.tif.aux.xml",
    "quality.tif",
    "quality.tif.aux.xml",
    "losses.png",
    "mask_rates.png",
    "confusion.png",
    "reliability.png",
    "tsne.png",
    "tensorboard",
    "baselines",
    "checkpoints",
    "blocks",
    "single",
)


class RunDirectory:
    """Paths and stage marks of one run.

    Args:
        path: the directory; it is created when it is not there.
        resume: go on in a directory that holds a run.
        overwrite: remove the files of an earlier run first (only files that a run writes).
        read_only: change nothing in it.

    Raises:
        UserError: the directory holds a run and neither flag is given, it cannot be written, or another process works in it.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False, overwrite: bool = False, read_only: bool = False):
        self.path = Path(path)
        if leads() and read_only:
            lock(self.path, shared=True)
        elif leads():
            self._claim(resume, overwrite)
        barrier()
        self.state: dict[str, Any] = read_json(self.state_path) if self.state_path.exists() else {"stages": {}}
        barrier()

    def _claim(self, resume: bool, overwrite: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--out {self.path} is a file; name a directory")
        try:
            create(self.path)
        except OSError as error:
            raise UserError(f"cannot create {self.path}: {error.strerror}; choose another --out") from error
        lock(self.path)
        if self.state_path.exists() and not resume:
            if not overwrite:
                raise UserError(f"{self.path} holds a run already: continue it with --resume or replace it with --overwrite")
            self._remove()
        create(self.checkpoints)

    @classmethod
    def open(cls, path: str | Path, *, read_only: bool = False) -> RunDirectory:
        """Open an existing run for its next stage, or for reading alone."""
        if not Path(path).is_dir():
            there = "is a file" if Path(path).exists() else "does not exist"
            raise UserError(f"{path} {there}; name the directory of a run, the --out of an earlier `bdgf-fast run`")
        if not (Path(path) / "state.json").exists():
            raise UserError(f"{path} holds no run (state.json is missing); name the --out of an earlier `bdgf-fast run`")
        return cls(path, resume=True, read_only=read_only)

    @property
    def state_path(self) -> Path:
        return self.path / "state.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def done(self, stage: str) -> bool:
        """Whether `stage` ended and left all its files."""
        return stage in self.state["stages"]

    def mark(self, stage: str, **facts: Any) -> None:
        """Record that `stage` ended, with facts for the report (seconds, peak memory)."""
        self.state["stages"][stage] = facts
        write_json(self.state_path, self.state)

    def forget(self, *stages: str) -> None:
        """Take back the marks of `stages`: what follows a repeated stage is stale."""
        for stage in stages:
            self.state["stages"].pop(stage, None)
        write_json(self.state_path, self.state)

    def facts(self, stage: str) -> dict[str, Any]:
        """What `mark` recorded for `stage`, empty when it has not ended."""
        return self.state["stages"].get(stage, {})

    def require(self, stage: str, command: str) -> None:
        """Raise when `stage` has not ended; `command` is what the person should run first."""
        if not self.done(stage):
            if command == "pretrain":  # it takes the scene
                raise UserError(f"{self.path} has not ended its pre-training; run `bdgf-fast pretrain SCENE --out {self.path} "
                                "--resume` first")  # fmt: skip
            raise UserError(f"{self.path}: stage {stage} has not ended; run `bdgf-fast {command} {self.path}` first")

    def _remove(self) -> None:
        for name in FILES:
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
