"""Studies: shared pre-training, resumption, and sentences that say what the figures allow."""

import json
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest

from bdgf_fast.cli import main
from bdgf_fast.report.page import embedded
from bdgf_fast.report.pictures import differences
from bdgf_fast.report.study_page import analyse, compared, difference, markdown, page
from bdgf_fast.studies import study as study_module

CELLS = ["guidance-off", "cnn-alone", "masking", "surface-alone", "raw-statistics", "dual-branch-denoiser", "channel-exchange",
         "random-forest-pixel"]  # fmt: skip


def command(scene_file, out, tiny, *more):
    return ["study", str(scene_file), "--out", str(out), "--quiet", *tiny, *more]


@pytest.fixture(scope="module")
def finished(scene_file, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("studies") / "study"
    with pytest.MonkeyPatch.context() as patch:
        quick = study_module.PRESETS["quick"]
        patch.setitem(study_module.PRESETS, "quick", type(quick)(quick.settings, 60, None))
        assert main(command(scene_file, out, tiny, "--seeds", "0", "--cells", *CELLS)) == 0
    return out


def load(out):
    return json.loads((out / "study.json").read_text())


def test_cells_share_what_is_the_same(finished):
    state = load(finished)
    cells = {c["name"]: c for c in state["cells"]}
    assert set(cells) == {"default", "masking-none", "masking-fixed", "masking-adaptive", *CELLS} - {"masking"}
    assert [c["same_as"] for c in cells.values() if c["same_as"]] == ["default"]  # the default's own masking policy
    assert cells["masking-adaptive"]["results"] == cells["default"]["results"]
    used = {name: c["results"]["0"]["pretraining"] for name, c in cells.items()}
    assert used["default"] == used["cnn-alone"] and used["guidance-off"] == used["raw-statistics"] == []
    assert len(used["dual-branch-denoiser"]) == 3 and used["surface-alone"][0] in used["dual-branch-denoiser"]
    # masking none, fixed, adaptive, and three single modalities
    assert len(state["pretraining"]) == len(list((finished / "pretrain").glob("*.safetensors"))) == 6
    assert {c["results"]["0"]["pixels"] for c in cells.values()} == {60}
    assert not list((finished / "cells").glob("*"))
    text = (finished / "study.md").read_text()
    assert "60 random test pixels" in text and "Modality balance by masking policy" in text and "One seed" in text
    page = (finished / "study.html").read_text()
    assert all(c["title"] in page for c in cells.values())


def test_a_finished_cell_is_not_run_again(finished, scene_file, tiny, monkeypatch):
    before = (finished / "study.json").read_bytes()

    def never(*_, **__):
        raise AssertionError("a finished cell was run again")

    for name in ("train", "pretrain", "predict_baseline"):
        monkeypatch.setattr(study_module, name, never)
    monkeypatch.setitem(study_module.PRESETS, "quick", type(study_module.PRESETS["quick"])(
        study_module.PRESETS["quick"].settings, 60, None))  # fmt: skip
    assert main(command(scene_file, finished, tiny, "--seeds", "0", "--cells", *CELLS)) == 0
    assert (finished / "study.json").read_bytes() == before


def test_a_study_of_before_a_setting_existed_goes_on(finished, scene_file, tiny, monkeypatch, tmp_path, capsys):
    out = tmp_path / "study"
    shutil.copytree(finished, out)
    for name in ("train", "pretrain", "predict_baseline"):
        monkeypatch.setattr(study_module, name, None)  # nothing is left to do
    again = command(scene_file, out, tiny, "--seeds", "0", "--cells", *CELLS)
    state = load(out)
    del state["config"]["predict"]["refine"]
    (out / "study.json").write_text(json.dumps(state))
    assert main(again) == 0
    assert main([*again, "--set", "predict.refine=2"]) == 2  # the default stands for what was not said
    assert "another config" in capsys.readouterr().err
    (out / "study.json").write_text(json.dumps({**state, "config": {"gone": 1}}))  # a setting that no longer exists
    assert main(again) == 2 and "another config" in capsys.readouterr().err


def test_a_stopped_study_goes_on_to_the_same_result(scene_file, tiny, tmp_path, monkeypatch):
    cells = ("--seeds", "0", "1", "--cells", "cnn-alone")
    assert main(command(scene_file, tmp_path / "whole", tiny, *cells)) == 0
    original, calls = study_module.train, []

    def stopping(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:  # in the middle of the third training
            kwargs["progress"] = stop
        return original(*args, **kwargs)

    def stop(done, total, figures):
        if done > total // 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(study_module, "train", stopping)
    assert main(command(scene_file, tmp_path / "stopped", tiny, *cells)) == 130
    state = load(tmp_path / "stopped")
    assert sum(len(c["results"]) for c in state["cells"]) == 2 and (tmp_path / "stopped" / "study.html").exists()
    monkeypatch.setattr(study_module, "train", original)
    assert main(command(scene_file, tmp_path / "stopped", tiny, *cells)) == 0

    def figures(out):
        return {(c["name"], s): (r["overall_accuracy"], r["kappa"]) for c in load(out)["cells"] for s, r in c["results"].items()}

    assert figures(tmp_path / "stopped") == figures(tmp_path / "whole")
    # the report of a run shows the study in its folder
    run = tmp_path / "run"
    assert main(["run", str(scene_file), "--out", str(run), "--quiet", "--baselines", "none", *tiny]) == 0
    assert "<h2>Study</h2>" not in (run / "report.html").read_text()
    (tmp_path / "whole").rename(run / "study")
    assert main(command(scene_file, run / "study", tiny, *cells)) == 0
    assert "<h2>Study</h2>" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--cells", "guidence-off"], "did you mean 'guidance-off'"),
        (["--set", "train.epochs=3"], "another config"),
        (["--preset", "full"], "another preset"),
        (["--seeds", "0", "0"], "twice"),
        (["--set", "train.epoch=3"], "did you mean 'epochs'"),
        (["--set", "predict.priors=scene"], "under the class shares of the training labels"),
    ],
)
def test_bad_input_is_one_sentence(finished, scene_file, tiny, capsys, more, sentence):
    assert main(command(scene_file, finished, tiny, *more)) == 2
    text = capsys.readouterr().err
    assert sentence in text and text.startswith("error: ") and "Traceback" not in text


def test_list_shows_every_cell(finished, scene_file, tiny, capsys, tmp_path):
    assert main(command(scene_file, tmp_path / "none", tiny, "--cells", "list")) == 0
    text = capsys.readouterr().out
    for name in ("masking-none", "transformer-alone", "fusion-off", "channel-attention", "patch-features", "untrained-denoiser"):
        assert name in text
    assert not (tmp_path / "none").exists()


def test_differences_are_paired():
    default = {"0": 0.70, "1": 0.60, "2": 0.80}
    found = difference({"2": 0.77, "0": 0.68, "1": 0.575}, default)
    d = np.array([-2, -2.5, -3])
    assert found["mean"] == pytest.approx(d.mean()) and found["std"] == pytest.approx(d.std(ddof=1)) and found["n"] == 3
    half = 4.302653 * d.std(ddof=1) / np.sqrt(3)
    assert (found["low"], found["high"]) == pytest.approx((d.mean() - half, d.mean() + half), rel=1e-5)
    assert found["verdict"] == "worse"
    assert difference({"0": 0.75, "1": 0.55, "2": 0.80}, default)["verdict"] == "open"
    assert difference({"0": 0.9}, default)["verdict"] == "open"  # one seed tells nothing
    assert difference({"5": 0.9}, default) is None


def _state(**cells):
    entries = []
    for name, (group, values) in cells.items():
        results = {str(s): {"overall_accuracy": v, "average_accuracy": v, "kappa": v, "seconds": 1.0, "pretraining": []}
                   for s, v in enumerate(values)}  # fmt: skip
        entries.append({"name": name.replace("_", "-"), "title": name.replace("_", " "), "group": group, "same_as": None,
                        "results": results})  # fmt: skip
    return {"name": "made up", "preset": "quick", "test_pixels": 10, "modalities": ["a", "b"],
            "cells": entries, "pretraining": {}, "versions": {}, "config": {}}  # fmt: skip


def test_sentences_follow_the_figures():
    state = _state(
        default=("default", [0.70, 0.72, 0.71]), guidance_off=("guidance", [0.65, 0.67, 0.665]),
        cnn_alone=("branches", [0.69, 0.73, 0.70]),
        untrained_denoiser=("controls", [0.70, 0.715, 0.72]), forest=("baselines", [0.72, 0.74, 0.731]),
    )  # fmt: skip
    text = " ".join(analyse(state)["sentences"])
    assert "Worse than the default, in points with the 95 % interval: guidance off (-4.8" in text
    assert "Better than the default: forest (+2.0" in text
    assert "Not significantly different from the default: cnn alone" in text
    assert "The best baseline is forest" in text
    assert "2.0 points behind over the 3 seeds both have, a significant difference" in text
    assert "guidance pays" in text and "no gain of pre-training over an untrained denoiser" in text
    assert "Caution: 3 seeds" in text and "quick preset" in text
    table = markdown(state)
    assert "| guidance off | 66.2 ± 1.0 |" in table and "-4.8 ± 0.3" in table


def test_differences_are_drawn_with_their_intervals(tmp_path):
    state = _state(default=("default", [0.70, 0.72]), guidance_off=("guidance", [0.65, 0.67]), forest=("baselines", [0.72]))
    cells = compared(state)
    assert [c["title"] for c in cells] == ["guidance off", "forest"]
    assert differences(cells, 0.95, tmp_path / "d.png") and plt.imread(tmp_path / "d.png").std() > 0.01
    assert 'alt="paired differences' in page(state, embedded(tmp_path / "d.png")) and "<img" not in page(state)
    assert not differences([], 0.95, tmp_path / "d.png") and not (tmp_path / "d.png").exists()
