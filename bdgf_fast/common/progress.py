"""Progress bars (rich) behind the plain callback that the training loops call; silent where nobody looks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps, figures by name)."""


@contextmanager
def bar(title: str, quiet: bool) -> Iterator[Progress]:
    """Yield `callback(done, total, figures)`. On a terminal it draws a bar; in a log it prints a line every tenth part."""
    if quiet:
        yield lambda done, total, figures: None
    elif sys.stderr.isatty():
        with _terminal(title) as callback:
            yield callback
    else:
        printed = -1

        def line(done: int, total: int, figures: dict[str, float]) -> None:
            nonlocal printed
            tenth = 10 * done // max(total, 1)
            if tenth != printed:
                printed = tenth
                print(f"{title}: {done}/{total}{_text(figures)}", file=sys.stderr, flush=True)

        yield line


@contextmanager
def _terminal(title: str) -> Iterator[Progress]:
    from rich import progress as bars
    from rich.console import Console

    columns = ("{task.description}", bars.BarColumn(), bars.MofNCompleteColumn(), bars.TimeRemainingColumn(),
               bars.TextColumn("{task.fields[figures]}"))  # fmt: skip
    with bars.Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, figures="")
        yield lambda done, total, figures: progress.update(task, completed=done, total=total, figures=_text(figures))


def _text(figures: dict[str, float]) -> str:
    return "".join(f"  {name} {value:.4f}" for name, value in figures.items())
