"""The help of every command: it says what the command does, and explains every argument."""

import argparse

import pytest

from bdgf_fast.cli import parser
from bdgf_fast.cli.completion import _commands

COMMANDS = list(_commands(parser(), ()))


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[" ".join(path) or "bdgf-fast" for path, _ in COMMANDS])
def test_every_argument_is_explained(path, command):
    assert command.description and command.description.endswith(".")
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert all(choice.help for choice in action._choices_actions)
        elif not isinstance(action, argparse._VersionAction):
            assert action.help, f"{' '.join(path)}: {action.dest} has no help"
            assert action.metavar != "DIR|SCENE"
    text = command.format_help()
    assert "stage 3" not in text and "None" not in text


def test_a_command_is_described_as_in_the_list():
    listed = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    for choice in listed._choices_actions:
        begins = f"{choice.help[0].upper()}{choice.help[1:]}."
        assert listed.choices[choice.dest].description.startswith(begins)
