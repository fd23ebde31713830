"""Accuracy over the number of labels: the same test pixels and denoisers for every number."""

import json

import pytest
from application import TINY

import bdgf_fast
from bdgf_fast.cli import main
from bdgf_fast.studies.cells import PRESETS


def test_a_curve_shares_denoisers_and_test_pixels(scene_file, tiny, tmp_path, capsys):
    command = ["study", str(scene_file), "--out", str(tmp_path / "curve"), "--quiet", *tiny, "--seeds", "0", "1"]
    cells = ["--cells", "guidance-off", "random-forest-pixel"]
    assert main([*command, "--labels", "12", "3", *cells]) == 0
    said = capsys.readouterr().out
    assert "3 labels per class | 12 labels per class" in said
    found = json.loads((tmp_path / "curve" / "labels.json").read_text())
    assert found["labels"] == [3, 12] and set(found["cells"]) == {"default", "guidance-off", "random-forest-pixel"}
    assert set(found["cells"]["guidance-off"]["3"]["difference"]) >= {"mean", "low", "high"}
    states = [json.loads((tmp_path / "curve" / f"labels-{n}" / "study.json").read_text()) for n in (3, 12)]
    pixels = [[c["results"]["0"]["pixels"] for c in state["cells"]] for state in states]
    assert pixels[0] == pixels[1]
    assert len(list((tmp_path / "curve" / "pretrain").glob("*.safetensors"))) == 2  # one a seed
    assert states[0]["pretraining"].keys() == states[1]["pretraining"].keys()
    assert (tmp_path / "curve" / "labels.png").stat().st_size > 5000
    config = PRESETS["quick"].base().override(*TINY)
    result = bdgf_fast.label_curve(scene_file, tmp_path / "curve", [3], seeds=[0, 1], cells=cells[1:], quiet=True, config=config)
    assert result.cells["default"]["3"]["difference"] is None


@pytest.mark.parametrize("labels", [["0"], ["5", "5"]])
def test_numbers_of_labels_are_checked(scene_file, tmp_path, capsys, labels):
    assert main(["study", str(scene_file), "--out", str(tmp_path / "x"), "--labels", *labels]) == 2
    assert "--labels is [" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_a_given_split_has_no_curve(tmp_path, scene_file, capsys):
    text = scene_file.read_text().replace('kind = "blocks"', 'kind = "per_class"').replace("block = 8\n", "")
    text = text.replace("train_fraction = 0.4\n", "")
    text = "".join(
        line.replace('path = "', f'path = "{scene_file.parent}/') if line.startswith("path") else line
        for line in text.splitlines(keepends=True)
    )
    (tmp_path / "scene.toml").write_text(text)
    assert main(["study", str(tmp_path / "scene.toml"), "--out", str(tmp_path / "x"), "--labels", "5"]) == 2
    assert 'has a split of kind "per_class"; the number of labels is varied within training blocks' in capsys.readouterr().err
