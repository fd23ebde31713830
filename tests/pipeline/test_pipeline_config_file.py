"""The configuration as a file: what `bdgf-fast config` prints, and the schema that editors complete it by."""

import json
import tomllib
from pathlib import Path

import pytest

from bdgf_fast.cli import main
from bdgf_fast.config import Config, schema

SCHEMA = Path(__file__).resolve().parents[2] / "docs/schemas/config.json"


def test_what_is_printed_is_read_back(tmp_path, capsys):
    assert main(["config", "--defaults", "--set", "train.epochs=3"]) == 0
    text = capsys.readouterr().out
    assert Config.from_dict(tomllib.loads(text)) == Config()
    assert "# Passes over the training pixels." in text and "\nepochs = 8\n" in text
    changes = ("train.epochs=3", "features.path=[a.npy]", "train.learning_rate=1e-5")
    assert main(["config", *(word for change in changes for word in ("--set", change))]) == 0
    file = tmp_path / "mine.toml"
    file.write_text(capsys.readouterr().out)
    config = Config.from_dict(tomllib.loads(file.read_text()))
    assert config.train.epochs == 3 and config.train.learning_rate == 1e-5
    assert config.features.path == [str(Path("a.npy").absolute())]
    assert main(["config", "--config", str(file)]) == 0
    assert Config.from_dict(tomllib.loads(capsys.readouterr().out)) == config


def test_the_committed_schema_is_up_to_date(capsys):
    """`bdgf-fast config --schema > docs/schemas/config.json` renews it."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()
    assert main(["config", "--schema"]) == 0
    assert capsys.readouterr().out == SCHEMA.read_text(encoding="utf-8")


def test_the_schema_takes_what_the_program_takes():
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(schema())
    assert check.is_valid(Config().to_dict()) and check.is_valid({"train": {"epochs": 3}})
    assert not check.is_valid({"train": {"epoch": 3}}) and not check.is_valid({"train": {"epochs": 0}})
