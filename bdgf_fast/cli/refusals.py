"""Mistakes on the command line, said in one sentence as all others are, in place of argparse's usage."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from bdgf_fast.errors import closest

WORDS = (
    (r"the following arguments are required: (.*)", r"\1 must be given"),
    (r"argument (.+): expected (?:one argument|at least one argument)", r"\1 needs a value"),
    (r"argument (.+): invalid int value: ('[-\d]+,[-\d,]*')", r"\1 is \2; put spaces between the numbers in place of commas"),
    (r"argument (.+): invalid int value: ('.*')", r"\1 is \2, which is not a whole number"),
    (r"argument (.+): invalid float value: ('.*')", r"\1 is \2, which is not a number"),
    (r"argument (.+): not allowed with argument (.+)", r"\1 and \2 exclude each other"),
    (r"argument (.+)", r"\1"),
)
"""argparse's messages, and ours."""


class Help(argparse.HelpFormatter):
    """Breaks lines at spaces alone, so that a command or an option stays one word."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in self._split_lines(text, width - len(indent)))


class Parser(argparse.ArgumentParser):
    """Ends with status 2 and one sentence on stderr."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": Help, **options})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {sentence(message)}; `{self.prog} --help` explains the arguments\n")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            self._command(found)._unknown(rest)
        return found

    def _command(self, found: argparse.Namespace) -> Parser:
        """The parser of the command that was given, or of that command's own command."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction) and (chosen := getattr(found, action.dest, None)):
                command = action.choices[chosen]
                assert isinstance(command, Parser)
                return command._command(found)
        return self

    def _unknown(self, rest: Sequence[str]) -> NoReturn:
        options = [word for word in rest if word.startswith("-")]
        if not options:
            self.error(f"{self.prog} does not know what to do with {' '.join(rest)}")
        name = options[0].partition("=")[0]
        known = {option.lstrip("-"): option for option in self._option_string_actions}  # dashes are alike in all of them
        near = closest(name.lstrip("-"), known, lambda word: repr(known[word]))
        self.error(f"{self.prog} has no option {name}{near}")


def sentence(message: str) -> str:
    """What to say in place of a message of argparse's."""
    if choice := re.fullmatch(r"argument (.+): invalid choice: '(.*?)' \(choose from (.*)\)", message):
        name, given, known = choice[1], choice[2], re.findall(r"[\w-]+", choice[3])
        near = closest(given, known)
        return f"{name} is {given!r}" + (near or f", which is none of {', '.join(known)}")
    for pattern, ours in WORDS:
        if re.fullmatch(pattern, message):
            return re.sub(pattern, ours, message)
    return message
