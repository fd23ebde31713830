"""The schema that editors complete and check scene files by."""

import json
import tomllib
from pathlib import Path

import pytest

from bdgf_fast.cli import main
from bdgf_fast.data import synthetic_scene, write_scene
from bdgf_fast.data.scene_tables import check_tables, schema
from bdgf_fast.errors import SceneError

SCHEMA = Path(__file__).resolve().parents[2] / "docs/schemas/scene.json"
GUIDE = Path(__file__).resolve().parents[2] / "docs/guides/scenes.md"


def tables():
    """The scene files of the guide."""
    blocks = GUIDE.read_text(encoding="utf-8").split("```toml\n")[1:]
    return [tomllib.loads(block.partition("```")[0]) for block in blocks]


def test_the_committed_schema_is_up_to_date(capsys):
    """`bdgf-fast data schema > docs/schemas/scene.json` renews it."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()
    assert main(["data", "schema"]) == 0
    assert capsys.readouterr().out == SCHEMA.read_text(encoding="utf-8")


def test_the_schema_takes_what_the_program_takes(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    check = jsonschema.Draft202012Validator(schema())
    written = tomllib.loads(write_scene(synthetic_scene(seed=1, size=(64, 64), bands=6), tmp_path).read_text())
    whole = [table for table in tables() if "modality" in table or "dataset" in table]
    assert len(whole) >= 2
    for table in (written, *whole):
        assert check.is_valid(table), [error.message for error in check.iter_errors(table)]
    for change in ({"nam": "x"}, {"split": {"block": 1.5}}, {"labels": {"path": 3}}, {"split": {"kind": "random"}}):
        assert not check.is_valid({**written, **change})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"modality": {"name": "x"}}, "s.toml: give at least one [[modality]] table (double brackets)."),
        ({"labels": 3}, "s.toml: labels must be a table, [labels]."),
        ({"modality": [{"name": "a"}, {"nodatta": 0}]}, "s.toml, [[modality]] 2: unknown key 'nodatta' (did you mean 'nodata'?)"),
        ({"labels": {"classe": {}}}, "s.toml, [labels]: unknown key 'classe' (did you mean 'classes'?); known keys are path"),
        ({"split": {"per_class": "many"}}, "s.toml, [split]: per_class is 'many'; it must be a whole number."),
        ({"labels": {"nodata": 10**400}}, "s.toml, [labels]: nodata lies beyond the range of numbers."),
    ],
)
def test_mistakes_are_one_sentence(table, said):
    with pytest.raises(SceneError) as caught:
        check_tables(table, "s.toml")
    assert str(caught.value).startswith(said) and len(str(caught.value)) < 250
