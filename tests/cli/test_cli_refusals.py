"""Mistakes in the arguments: one sentence that names the argument, and where to read on."""

import logging
import warnings

import pytest

from bdgf_fast.cli import main
from bdgf_fast.errors import DataWarning


@pytest.mark.parametrize(
    "arguments, said",
    [
        ("run", "SCENE, --out must be given; `bdgf-fast run --help`"),
        ("run x --out y --seeed 3", "bdgf-fast run has no option --seeed (did you mean '--seed'?); `bdgf-fast run --help`"),
        ("data check x --frobnicate", "bdgf-fast data check has no option --frobnicate; `bdgf-fast data check --help`"),
        ("compat", "SCRIPT must be given; `bdgf-fast compat --help`"),
        ("run x y --out z", "bdgf-fast run does not know what to do with y;"),
        ("rnu x", "COMMAND is 'rnu' (did you mean 'run'?); `bdgf-fast --help`"),
        ("rn x", "COMMAND is 'rn' (did you mean 'run'?); `bdgf-fast --help`"),
        ("run x --out y --baselines nothing", "--baselines is 'nothing', which is none of none, forest, cnn, all;"),
        ("run x --out y --seed a", "--seed is 'a', which is not a whole number;"),
        ("run x --out y --seeds 0,1", "--seeds is '0,1'; put spaces between the numbers in place of commas;"),
        ("run x --out y --resume --overwrite", "--overwrite and --resume exclude each other;"),
        ("run x --out", "--out needs a value;"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments.split())
    text = capsys.readouterr().err
    assert ended.value.code == 2
    assert text.startswith(f"error: {said}") and text.count("\n") == 1


@pytest.mark.parametrize("arguments", [["run", "x", "--out", ""], ["evaluate", ""], ["report", "a", "b", "--page", ""]])
def test_an_empty_name_is_not_the_working_directory(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert ": the name is empty; name a file or directory" in capsys.readouterr().err


def test_other_packages_say_nothing_but_warnings(monkeypatch, caplog):
    caplog.set_level(logging.INFO)

    def speak(args):
        for name in ("matplotlib.font_manager", "rasterio._env"):
            logging.getLogger(name).info("generated new fontManager")

    monkeypatch.setattr("bdgf_fast.cli._dispatch", speak)
    main(["info"])
    assert caplog.messages == []


def test_a_warning_is_said_once_by_each_command(monkeypatch, caplog):
    def work(args):
        for number in (1, 1, 2, 1):
            with warnings.catch_warnings():  # forgets what was said before, as tools around us do
                warnings.simplefilter("always")
                warnings.warn(f"{number} pixels hold nodata", DataWarning, stacklevel=1)
        return 0

    monkeypatch.setattr("bdgf_fast.cli._dispatch", work)
    for _ in range(2):
        caplog.clear()
        assert main(["info"]) == 0
        assert caplog.messages == ["warning: 1 pixels hold nodata", "warning: 2 pixels hold nodata"]


@pytest.mark.parametrize("width", [40, 57, 80])
def test_help_breaks_no_command_or_option(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    for command in ([], ["run"], ["predict"], ["data", "check"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        text = capsys.readouterr().out
        assert not [line for line in text.splitlines() if line.endswith("bdgf-")], text


def test_the_program_alone_explains_itself(capsys):
    assert main([]) == 2
    assert "COMMAND --help" in capsys.readouterr().err
