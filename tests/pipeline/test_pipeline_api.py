"""The commands as functions: `import bdgf_fast as bf; bf.run(...)`."""

import json

import numpy as np
import pytest
import torch
from application import TINY

import bdgf_fast as bf
from bdgf_fast.config import Config

BRIEF = [*TINY, 'model.branches=["cnn"]', "model.trees=5"]
SETTINGS = {key: json.loads(value) for key, value in (text.split("=", 1) for text in BRIEF)}
HOW = {"device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def result(scene_file, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("api") / "run"
    yield bf.run(scene_file, out, config=SETTINGS, seed=3, baselines="none", **HOW)
    torch.set_num_threads(threads)


def test_run_returns_figures_paths_and_arrays(result):
    assert result.report["seed"] == 3 and result.report["config"]["train"]["epochs"] == 2
    assert result.overall_accuracy == result.report["overall_accuracy"]
    matrix = result.confusion_matrix
    assert matrix.trace() / matrix.sum() == pytest.approx(result.overall_accuracy) and matrix.dtype == np.int64
    codes, probabilities = result.map(), result.probabilities()
    assert codes.dtype == np.uint8 and codes.shape == (64, 64) and probabilities.shape == (len(matrix), 64, 64)
    known = [c["code"] for c in result.report["classes"]]
    np.testing.assert_array_equal(np.array(known)[probabilities.argmax(0)], codes)
    assert all(path.is_file() for path in (result.map_path, result.probabilities_path, result.page))
    assert f"OA {100 * result.overall_accuracy:>5.1f} %" in str(result) and str(result.page) in str(result)


def test_stages_one_by_one_give_the_same(result, scene_file, tmp_path):
    nested: dict = {}
    for key, value in SETTINGS.items():
        section, _, name = key.partition(".")
        nested.setdefault(section, {})[name] = value
    stage = bf.pretrain(str(scene_file), tmp_path / "run", config=nested, seed=3, **HOW)
    assert stage.checkpoint.is_file() and stage.history["curves"]["step"]
    assert bf.train(tmp_path / "run", **HOW).checkpoint.is_file()
    found = bf.predict(tmp_path / "run", **HOW)
    np.testing.assert_array_equal(found.map(), result.map())
    scored = bf.evaluate(found, **HOW)
    assert scored.overall_accuracy == result.overall_accuracy and len(scored.baselines) > 1
    # another scene, by a result in place of its folder
    other = bf.predict(scored, scene_file, tmp_path / "other", memory="4GiB", **HOW)
    np.testing.assert_array_equal(other.map(), result.map())


def test_a_study_returns_its_table(scene_file, tmp_path):
    how = {"seeds": [0], "config": Config().override(*BRIEF), **HOW}
    with pytest.raises(bf.UserError, match="no cell or group 'forest-off'"):
        bf.study(scene_file, tmp_path / "study", cells=["forest-off"], **how)
    result = bf.study(scene_file, tmp_path / "study", cells=["guidance-off"], **how)
    assert set(result.cells) == {"default", "guidance-off"}
    cell = result.cells["guidance-off"]
    points = 100 * (cell["oa"]["0"] - result.cells["default"]["oa"]["0"])
    assert cell["difference"]["mean"] == pytest.approx(points) and result.page.is_file() and "guidance off" in str(result)


def test_several_seeds_give_a_summary(scene_file, tmp_path):
    seen = []
    found = bf.run_seeds(scene_file, tmp_path, [1, 2], config=SETTINGS, baselines="none", each=seen.append, **HOW)
    assert [r.report["seed"] for r in seen] == [1, 2] and list(found.runs) == [1, 2]
    row = found.summary["rows"][0]["overall_accuracy"]
    assert row["values"] == [r.overall_accuracy for r in seen] and row["mean"] == pytest.approx(np.mean(row["values"]))


    # the two on one page
    page = bf.compare([tmp_path / "seed-1", found.runs[2]], tmp_path / "pages" / "both.html")
    text = page.read_text()
    assert "<td>seed-1</td>" in text and text.count("data:image/png") == 2 and "differ in their seed" in text
    assert "<tr><td>seed</td><td>1</td><td>2</td></tr>" in text and "train.epochs" not in text
    with pytest.raises(bf.UserError, match="two runs or more"):
        bf.compare([tmp_path / "seed-1"])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda scene, out: bf.run("nowhere.toml", out), "nowhere.toml"),
        (lambda scene, out: bf.run(scene, out, config={"train.epoch": 3}), r"config: unknown key 'train.epoch' \(did you mean"),
        (lambda scene, out: bf.run(scene, out, config={"train": {"epochs": "many"}}), "train.epochs takes a whole number"),
        (lambda scene, out: bf.run(scene, out, config={"predict.priors": {"water": 0.5}}), "the shares of the classes sum to 0.5"),
        (lambda scene, out: bf.run(scene, out, config="mine.toml"), "config: the file mine.toml cannot be read"),
        (lambda scene, out: bf.run(scene, out, config=7), "config is 7; it takes"),
        (lambda scene, out: bf.run(scene, out, seed=-1), "seed is -1; it must lie between 0 and 4294967295"),
        (lambda scene, out: bf.run(scene, out, baselines="forests"), "baselines is 'forests'; it takes one of: none, forest"),
        (lambda scene, out: bf.run(scene, out, device="tpu"), "tpu is not one that torch knows"),
        (lambda scene, out: bf.run(bf.data.synthetic_scene(size=(64, 64)), out), "is in memory alone.*write_scene"),
        (lambda scene, out: bf.run_seeds(scene, out, [1, 1]), "names a seed twice"),
        (lambda scene, out: bf.run_seeds(scene, out, []), "names no seed"),
        (lambda scene, out: bf.pretrain(scene, scene), "is a file; name a directory"),
        (lambda scene, out: bf.train(out), "out does not exist; name the directory of a run"),
        (lambda scene, out: bf.evaluate(scene.parent), "holds no run"),
        (lambda scene, out: bf.predict(out, scene), "needs --out"),
        (lambda scene, out: bf.study(scene, out, preset="slow"), "preset is 'slow'; it takes one of: quick, full"),
    ],
)
def test_mistakes_are_user_errors_and_start_no_run(call, said, scene_file, tmp_path):
    with pytest.raises(bf.UserError, match=said):
        call(scene_file, tmp_path / "out")
    assert not (tmp_path / "out" / "state.json").exists()


def test_a_scene_in_memory_that_has_a_file_is_taken_by_it(scene_file, tmp_path):
    with pytest.raises(bf.UserError, match="'train.epoch'"):  # the scene was accepted
        bf.run(bf.data.load_scene(scene_file), tmp_path / "out", config={"train.epoch": 3})


def test_check_reports_on_a_scene(scene_file):
    assert bf.check(scene_file).status() == 0
