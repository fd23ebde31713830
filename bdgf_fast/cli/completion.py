"""Completion of the command line in bash and zsh, as a script made from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator


def script(root: argparse.ArgumentParser, shell: str, keys: list[str]) -> str:
    """What `eval "$(bdgf-fast completion bash)"` runs.

    Args:
        keys: completed after ``--set``, e.g. ``train.epochs``.
    """
    cases, answered = [], []
    for path, command in _commands(root, ()):
        options = [text for action in command._actions for text in action.option_strings if text.startswith("--")]
        below = [name for action in command._actions if isinstance(action, argparse._SubParsersAction) for name in action.choices]
        only = "; only=1" if below else ""  # a command comes next, no file
        cases.append(f'    "{" ".join(path)}") words="{" ".join([*below, *options])}"{only} ;;')
        for action in command._actions:
            if action.choices and action.option_strings:
                answers = " ".join(map(str, action.choices))
                answered.append(f'    "{" ".join((*path, action.option_strings[-1]))}") words="{answers}"; only=1 ;;')
    settings = " ".join(f"{key}=" for key in keys)
    lines = [
        "_bdgf_fast() {",
        '  local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" path="" words="" only="" word',
        '  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '    case "$word" in -*) break ;; esac',
        f'    case " {" ".join(sorted({name for path, _ in _commands(root, ()) for name in path}))} " in',
        '      *" $word "*) path="${path:+$path }$word" ;;',
        "      *) break ;;",
        "    esac",
        "  done",
        f'  if [ "$previous" = "--set" ]; then COMPREPLY=($(compgen -W "{settings}" -- "$current")); compopt -o nospace; return',
        "  fi",
        '  case "${path:+$path }$previous" in',
        *answered,
        "  esac",
        '  [ -z "$only" ] && case "$path" in',
        *cases,
        "  esac",
        '  COMPREPLY=($(compgen -W "$words" -- "$current"))',
        '  [ -z "$only" ] && case "$current" in -*) ;; *) local IFS=$\'\\n\'; COMPREPLY+=($(compgen -f -- "$current")) ;; esac',
        "}",
        "complete -o filenames -F _bdgf_fast bdgf-fast",
    ]
    if shell == "zsh":
        lines.insert(0, "autoload -U +X bashcompinit && bashcompinit")
    return "\n".join(lines) + "\n"


def _commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every command with the words that lead to it, the root first."""
    yield path, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _commands(inner, (*path, name))
