"""A denoiser of many scenes, used by runs: its normalisation, its copy in the run, what the report says, and what does not fit."""

import json
import shutil

import numpy as np
import pytest
import torch
from application import TINY

import bdgf_fast as bf
from bdgf_fast.cli import main
from bdgf_fast.data import SplitSpec, scene_from_arrays, synthetic_scene, write_scene
from bdgf_fast.files import checkpoint
from bdgf_fast.pipeline import origin

BRIEF = [*TINY, 'model.branches=["cnn"]', "model.trees=5"]
SETTINGS = {key: json.loads(value) for key, value in (text.split("=", 1) for text in BRIEF)}
HOW = {"device": "cpu", "quiet": True}
RUN = {"config": {k: v for k, v in SETTINGS.items() if not k.startswith("pretrain.")}, "baselines": "none", **HOW}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three neighbours; the second has no radar and the last another size."""
    folder = tmp_path_factory.mktemp("neighbours")
    spec = SplitSpec(kind="blocks", block=8, train_fraction=0.4, per_class=12)
    sizes = {1: (64, 64), 2: (64, 64), 3: (70, 80)}
    made = [synthetic_scene(seed=seed, size=size, bands=6, split=spec) for seed, size in sizes.items()]
    made[1].modalities = [m for m in made[1].modalities if m.name != "sar"]
    return [write_scene(scene, folder / name) for name, scene in zip("abc", made, strict=True)]


@pytest.fixture(scope="module")
def denoiser(scenes, tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("denoiser") / "three"
    yield bf.pretrain(scenes, out, config=SETTINGS, seed=3, **HOW)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def result(scenes, denoiser, tmp_path_factory):
    return bf.run(scenes[0], tmp_path_factory.mktemp("given") / "run", denoiser=denoiser, **RUN)


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def same(*paths):
    """Whether checkpoints hold the same; the order in their headers, and so the digest of the file, differs from time to time."""
    (tensors, meta), (others, other) = (checkpoint.load(path, "pretrain") for path in paths)
    return meta == other and all(torch.equal(tensors[name], others[name]) for name in tensors.keys() | others.keys())


def test_a_directory_with_the_denoiser_and_its_normalisation(scenes, denoiser):
    assert denoiser.checkpoint.is_file() and denoiser.history["curves"]["step"]
    settings = read(denoiser.path / "config.json")
    assert settings["scenes"] == [str(path) for path in scenes] and settings["seed"] == 3
    state = read(denoiser.path / "scene.json")
    assert [m["name"] for m in state["modalities"]] == ["spectral", "sar", "surface"] and state["classes"] == []
    band = np.concatenate([bf.data.load_scene(scenes[i]).modality("sar").read(0, h, 0, w)[0].ravel() for i, h, w in
                           ((0, 64, 64), (2, 70, 80))])  # fmt: skip
    np.testing.assert_allclose(state["modalities"][1]["low"][0], np.percentile(band, 1))


def test_the_same_command_goes_on(scenes, denoiser, tmp_path):
    out = tmp_path / "three"
    brief = {**SETTINGS, "pretrain.steps": 6}

    class KillError(Exception):
        pass

    from bdgf_fast.diffusion import pretrain as module

    step = module._step

    def kill(*arguments):
        if arguments[-1] == 3:
            raise KillError
        return step(*arguments)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KillError):
        patch.setattr(module, "_step", kill)
        bf.pretrain(scenes, out, config=brief, seed=3, **HOW)
    with pytest.raises(bf.UserError, match="is no finished|has not ended"):
        bf.run(scenes[0], tmp_path / "run", denoiser=out, **RUN)
    with pytest.raises(bf.UserError, match=r"begun with other settings \(scenes\)"):
        bf.pretrain(scenes[:2], out, config=brief, seed=3, resume=True, **HOW)
    found = bf.pretrain(scenes, out, config=brief, seed=3, resume=True, **HOW)
    assert same(found.checkpoint, denoiser.checkpoint)
    assert read(out / "scene.json") == read(denoiser.path / "scene.json")


def test_a_run_takes_denoiser_and_normalisation(scenes, denoiser, result):
    assert result.report["denoiser"] == {
        "path": str(denoiser.path), "sha256": origin.digest_of(denoiser.checkpoint), "scenes": [str(path) for path in scenes]
    }  # fmt: skip
    assert origin.digest_of(result.path / "checkpoints/denoiser.safetensors") == origin.digest_of(denoiser.checkpoint)
    assert read(result.path / "origin.json")["denoiser"] == origin.digest_of(denoiser.checkpoint)
    own, shared = read(result.path / "scene.json"), read(denoiser.path / "scene.json")
    assert own["modalities"] == shared["modalities"] and len(own["classes"]) > 1
    assert result.report["config"]["pretrain"]["steps"] == 6  # the denoiser's
    assert any("No pre-training in this run" in note and "trained on a, b, c" in note for note in result.report["notes"])
    assert read(result.path / "state.json")["stages"]["pretrain"]["given"]
    assert result.history["pretrain"] == denoiser.history
    assert "No pre-training in this run" in result.page.read_text(encoding="utf-8")


def test_later_stages_need_the_run_alone(scenes, denoiser, result, tmp_path):
    other = tmp_path / "elsewhere"
    shutil.copytree(result.path, other)
    moved = denoiser.path.rename(denoiser.path.with_name("moved"))
    try:
        bf.train(other, **HOW)
        found = bf.predict(other, **HOW)
        np.testing.assert_array_equal(found.map(), result.map())
        assert bf.evaluate(other, **HOW).report["denoiser"] == result.report["denoiser"]
    finally:
        moved.rename(denoiser.path)
    # a single run's denoiser, and one that it was given, serve as well
    again = bf.run(scenes[2], tmp_path / "again", denoiser=result, **RUN)
    assert again.report["denoiser"]["scenes"] == [str(path) for path in scenes]
    shutil.copyfile(again.path / "checkpoints/network.safetensors", other / "checkpoints/denoiser.safetensors")
    with pytest.raises(bf.UserError, match=r"has changed since the run in .* began \(the denoiser\)"):
        bf.evaluate(other, **HOW)


def test_the_denoiser_of_one_scene(scenes, tmp_path):
    alone = bf.pretrain([scenes[0]], tmp_path / "one", config=SETTINGS, seed=3, **HOW)
    plain = bf.pretrain(scenes[0], tmp_path / "plain", config=SETTINGS, seed=3, **HOW)
    assert same(alone.checkpoint, plain.checkpoint)  # a list of one is that scene's run
    assert bf.train(alone, **HOW).checkpoint.is_file()
    found = bf.run(scenes[2], tmp_path / "run", denoiser=alone, **RUN)
    assert found.report["denoiser"]["scenes"] == [str(scenes[0])]


def test_a_changed_scene_is_refused(scenes, tmp_path):
    mine = [shutil.copytree(path.parent, tmp_path / path.parent.name) / "scene.toml" for path in scenes[:2]]
    bf.pretrain(mine, tmp_path / "out", config=SETTINGS, **HOW)
    write_scene(synthetic_scene(seed=9, size=(64, 64), bands=6), mine[0].parent)
    with pytest.raises(bf.UserError, match="the scene has changed since the pre-training in .* began"):
        bf.pretrain(mine, tmp_path / "out", config=SETTINGS, resume=True, **HOW)


def test_bad_input(scenes, denoiser, result, tmp_path, capsys):
    out = tmp_path / "out"

    def said(match, call, *arguments, **options):
        with pytest.raises(bf.UserError, match=match):
            call(*arguments, **{**HOW, **options})

    said("names a scene twice", bf.pretrain, [scenes[0], scenes[1], scenes[0]], out)
    said("takes at least one scene", bf.pretrain, [], out)
    said("pretrain.steps is 7, but the denoiser in .* was trained with 6", bf.run, scenes[0], out, denoiser=denoiser,
         config={**RUN["config"], "pretrain.steps": 7})  # fmt: skip
    said("holds no run", bf.run, scenes[0], out, denoiser=tmp_path)
    said("is --out itself", bf.run, scenes[0], denoiser.path, denoiser=denoiser, overwrite=True)
    said("two sources of guides", bf.run, scenes[0], out, denoiser=denoiser, features=["x.npy"])
    said("trained on the modalities spectral, sar, surface, .* has spectral, surface;", bf.run, scenes[1], out, denoiser=denoiser,
         **{"config": RUN["config"]})  # fmt: skip
    said("holds a denoiser of several scenes, and no run", bf.train, denoiser.path)
    said("holds a denoiser of several scenes, and no run", bf.predict, denoiser.path)
    said("features.levels reach|features.levels is 3", bf.run, scenes[0], out, denoiser=denoiser)
    rng = np.random.default_rng(0)
    bands = {"spectral": 5, "sar": 2, "surface": 1}
    small = scene_from_arrays("other", {name: rng.normal(size=(n, 64, 64)).astype(np.float32) for name, n in bands.items()},
                              rng.integers(1, 3, (64, 64)))  # fmt: skip
    said("modality 'spectral' has 5 bands, the checkpoint 6", bf.run, write_scene(small, tmp_path / "small"), out,
         denoiser=denoiser, config=RUN["config"])  # fmt: skip
    assert not list(out.glob("[a-z]*.json"))
    assert main(["run", str(scenes[0]), "--out", str(out), "--denoiser", str(tmp_path / "none"), "--quiet"]) == 2
    assert "none does not exist; name the directory of a run" in capsys.readouterr().err


def test_the_command_line(scenes, tmp_path, capsys):
    settings = [word for setting in BRIEF for word in ("--set", setting)] + ["--threads", "1", "--quiet"]
    out = tmp_path / "two"
    assert main(["pretrain", str(scenes[0]), str(scenes[2]), "--out", str(out), *settings]) == 0
    assert f"run SCENE --denoiser {out} --out RUN" in capsys.readouterr().out
    command = ["run", str(scenes[0]), "--denoiser", str(out), "--out", str(tmp_path / "run"), "--baselines", "none", *settings]
    assert main(command) == 0
    assert read(tmp_path / "run/report.json")["denoiser"]["scenes"] == [str(scenes[0]), str(scenes[2])]
    assert main([*command, "--resume"]) == 0
