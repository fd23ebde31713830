"""What the stages of a run directory share: their marks and times, their histories, and the settings that they began with."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..common.memory import peak_memory_bytes
from ..common.ranks import barrier, leads
from ..errors import UserError
from ..files.json_files import read_json, write_json
from ..report.tensorboard import Log
from .run_directory import STAGES, RunDirectory
from .settings import filled_in


def require_same_settings(directory: RunDirectory, settings: dict[str, Any]) -> None:
    """Raise UserError when a resumed directory was begun with other settings than the content of config.json would now be."""
    path = directory / "config.json"
    if not path.exists():
        return
    before = read_json(path)
    before["config"] = filled_in(before.get("config"))
    changed = sorted(_leaves(before).items() ^ _leaves(settings).items())
    if changed:
        names = ", ".join(sorted({name for name, _ in changed}))
        raise UserError(f"{directory.path} was begun with other settings ({names}); resume with the same ones, or --overwrite")


def remember(directory: RunDirectory, stage: str, history: dict[str, Any], log: Log | None) -> None:
    """Add a stage's curves to history.json, and to the logs where there are some."""
    path = directory / "history.json"
    if leads():
        write_json(path, {**(read_json(path) if path.exists() else {}), stage: history})
    if log is not None:
        log.history(stage, history)


class Stage:
    """Times a stage, takes the marks of the stages behind it back at the start and marks it at the end, with ``facts``."""

    def __init__(self, directory: RunDirectory, name: str, progress: AbstractContextManager[Callable], log: Log | None,
                 facts: dict[str, Any]):
        self.directory, self.name, self.progress, self.log, self.facts = directory, name, progress, log, facts

    def __enter__(self) -> Callable:
        self.directory.forget(*STAGES[STAGES.index(self.name) :])
        self.start = time.perf_counter()
        progress = self.progress.__enter__()
        return progress if self.log is None else self.log.watch(self.name, progress)

    def __exit__(self, kind, value, traceback) -> None:
        self.progress.__exit__(kind, value, traceback)
        if kind is None:
            seconds = round(time.perf_counter() - self.start, 3)
            self.directory.mark(self.name, seconds=seconds, peak_memory_bytes=peak_memory_bytes(), **self.facts)
            barrier()  # the stage's files stand before any rank reads them


def _leaves(value: Any, path: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in _leaves(inner, f"{path}.{key}" if path else str(key)).items()}
    return {path: repr(value)}
