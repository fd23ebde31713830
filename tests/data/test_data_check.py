"""`data check`: what it recognises, what it says of each thing that can be wrong, and its exit status."""

import warnings

import numpy as np
import pytest

from bdgf_fast.cli import main
from bdgf_fast.data import load_scene, make_split, prepare
from bdgf_fast.data.check import check
from bdgf_fast.data.known_sets import known_sets
from bdgf_fast.errors import DataWarning, SceneError

pytest.importorskip("rasterio")
pytest.importorskip("h5py")
from known_files import listed, save_mat, small_scene  # noqa: E402

PUBLISHED = {"augsburg": (332, 485), "berlin": (1723, 476), "trento": (166, 600)}


def full_size(folder, name, *, change=None, files=None):
    """Label maps with the published size and counts, one band a modality."""
    known = known_sets()[name]
    shape = PUBLISHED[name]
    codes = np.zeros(shape[0] * shape[1], np.uint8)
    at, maps = 0, {}
    for side, counts in known.counts.items():
        maps[side] = codes.copy()
        for code, count in enumerate(counts, 1):
            maps[side][at : at + count] = code
            at += count
    arrays = {role.name: np.resize(np.arange(251, dtype=np.float32), (*shape, 1)) for role in known.modalities}
    arrays |= {("labels" if side == "labelled" else side): codes.reshape(shape) for side, codes in maps.items()}
    if change:
        change(arrays)
    for role in known.roles:
        if role.name in arrays:
            save_mat(folder / f"{(files or {}).get(role.name, role.files[0])}.mat", {role.variables[0]: arrays[role.name]})


def small(folder, name="houston2013", change=None):
    bands, truth, train, test = small_scene(name)
    arrays = {**bands, "labels": truth, "train": train, "test": test}
    if change:
        change(arrays)
    for role in known_sets()[name].roles:
        if arrays.get(role.name) is not None:
            save_mat(folder / f"{role.files[0]}.mat", {role.variables[0]: arrays[role.name]})


def levels(report, level):
    return [text for one, text in report.findings if one == level]


@pytest.mark.parametrize("name", ["augsburg", "berlin"])
def test_recognised_among_sets_with_the_same_file_names(tmp_path, name):
    full_size(tmp_path, name)
    report = check(tmp_path)
    assert known_sets()[name].title in report.title and report.status() == 0
    ok = " | ".join(levels(report, "ok"))
    rows, columns = PUBLISHED[name]
    assert f"{rows} x {columns} pixels, as published" in ok
    for side, counts in known_sets()[name].counts.items():
        assert f"{side}: {sum(counts)} pixels, every class as published" in ok
    assert any(text.startswith("hsi: 1 band, published are") for text in levels(report, "look"))
    assert report.status(strict=True) == 1


def test_small_files_are_taken_for_a_part_of_the_scene(tmp_path, capsys):
    small(tmp_path)
    assert main(["data", "check", f"houston2013:{tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "hsi: HSI.mat[HSI], 29 x 41 x 5" in out and "29 x 41 pixels, published are 349 x 1905: a part of the scene?" in out
    assert "split 'given', seed 0, patches of 11:" in out and "not verified in the table of houston2013" in out
    assert main(["data", "check", str(tmp_path), "--strict"]) == 1


def test_swapped_order_of_classes_and_swapped_axes(tmp_path):
    def swap(arrays):
        labels = arrays["labels"]
        arrays["labels"] = np.where(labels == 1, 2, np.where(labels == 2, 1, labels)).astype(np.uint8)

    full_size(tmp_path, "trento", change=swap)
    report = check(tmp_path)
    assert any("published counts are in another order of classes: [2903, 4034" in text for text in levels(report, "wrong"))
    full_size(tmp_path, "trento", change=lambda arrays: arrays.update({k: np.moveaxis(v, 0, 1) for k, v in arrays.items()}))
    assert any("600 x 166 pixels (rows x columns), published are 166 x 600: rows and columns are swapped" in text
               for text in levels(check(f"trento:{tmp_path}"), "wrong"))  # fmt: skip


def turn(arrays):
    arrays["hsi"] = arrays["hsi"].transpose(1, 0, 2)


def overlap(arrays):
    arrays["test"] = np.where(arrays["train"] > 0, arrays["train"], arrays["test"])


def other_code(arrays):
    arrays["test"] = np.where(arrays["test"] == 3, 99, arrays["test"]).astype(np.uint8)


def no_class(arrays):
    for side in ("train", "test"):
        arrays[side] = np.where(arrays[side] == 3, 0, arrays[side])


def untrained(arrays):
    arrays["train"] = np.where(arrays["train"] == 3, 0, arrays["train"])


def cut_grid(arrays):
    arrays["lidar"] = arrays["lidar"][:-1]


def no_value(arrays):
    arrays["hsi"][:] = np.nan


def empty_band(arrays):
    arrays["hsi"][:, :, 1] = np.nan


def border(arrays):
    arrays["hsi"][:3], arrays["hsi"][10, 10] = 0, 0


def all_labelled_trained(arrays):
    arrays["test"] = arrays["train"]


NO_REFUSAL = [
    (overlap, "look", "350 pixels stand in the train and in the test map; those trained on are not scored."),
    (no_class, "note", "no pixel of Synthetic grass (3); left out of the classes"),
    (empty_band, "look", "hsi: no value at all (NaN or nodata everywhere) in band 2; used without"),
    (border, "look", "hsi: 123 pixels along the border are 0 in every band and count as values; if they hold none, say nodata = 0"),
]


@pytest.mark.parametrize(("change", "level", "said"), NO_REFUSAL, ids=[c.__name__ for c, *_ in NO_REFUSAL])
def test_what_a_run_copes_with_is_no_error(tmp_path, change, level, said):
    small(tmp_path, change=change)
    report = check(f"houston2013:{tmp_path}")
    assert sum(said in text for text in levels(report, level)) == 1, report.text()
    assert report.status() == 0
    scene = load_scene(f"houston2013:{tmp_path}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert prepare(scene, make_split(scene)).groups == ((4, 1) if change is empty_band else (5, 1))


def test_no_test_pixel_left_is_wrong(tmp_path):
    small(tmp_path, change=all_labelled_trained)
    report = check(f"houston2013:{tmp_path}")
    assert "the split leaves no test pixel; choose smaller blocks or a smaller train_fraction" in levels(report, "wrong")


@pytest.mark.parametrize(("side", "level", "said"), [(6, "wrong", "a patch has at least 7 a side"), (9, "look", "data.patch=9")])
def test_scenes_narrower_than_a_patch(tmp_path, side, level, said):
    truth = np.arange(side * 60, dtype=np.uint8).reshape(side, 60) // 5 % 2 + 1
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(side, 60, 3)))
    np.save(tmp_path / "gt.npy", truth)
    (tmp_path / "scene.toml").write_text(
        '[[modality]]\nname = "x"\npath = "x.npy"\n[labels]\npath = "gt.npy"\n[split]\nblock = 3\nper_class = 5\n', "utf-8-sig"
    )
    report = check(tmp_path)
    assert any(said in text for text in levels(report, level)), report.text()
    assert "scene.toml: a scene file" in report.title and load_scene(tmp_path).width == 60


WRONG = [
    (turn, r"rows and columns look swapped"),
    (other_code, "label code 99 ("),
    (untrained, "class 'Synthetic grass' (code 3) has no training pixel"),
    (cut_grid, "no two neighbouring axes match"),
    (no_value, "hsi: no value at all (NaN or nodata everywhere)"),
]


@pytest.mark.parametrize(("change", "said"), WRONG, ids=[c.__name__ for c, _ in WRONG])
def test_wrong_things_give_status_1(tmp_path, change, said):
    small(tmp_path, change=change)
    report = check(f"houston2013:{tmp_path}")
    assert any(said in text for text in levels(report, "wrong")), report.text()
    assert report.status() == 1


def test_things_to_look_at(tmp_path):
    def holes(arrays):
        arrays["hsi"][2, 0, 0] = np.nan
        arrays["hsi"][:, :, 3] = 7
        arrays["lidar"][5, 6:9] = -9999

    small(tmp_path, change=holes)
    report = check(f"houston2013:{tmp_path}")
    look = levels(report, "look")
    assert "hsi: one value everywhere in band 4; dead bands are dropped" in look
    assert "hsi: 1 of 1189 pixels hold NaN, infinity or nodata in some band" in look
    assert any("lidar: 3 pixels of band 1 are -9999.0, which looks like a mark for no value; if it is" in t for t in look)
    assert any("1 of 875 labelled pixels have no value" in text for text in look)
    assert report.status() == 0 and report.status(strict=True) == 1


def test_a_label_map_among_the_modalities(tmp_path, write_toml, write_tif):
    bands, truth, _, _ = small_scene("trento")
    write_tif("hsi.tif", np.concatenate([bands["hsi"].transpose(2, 0, 1)[:2], truth[None]]))
    write_tif("gt.tif", truth)
    labels = '[labels]\npath = "gt.tif"\n[split]\nblock = 6\ntrain_fraction = 0.7\nper_class = 3\n'
    report = check(write_toml('[[modality]]\nname = "hsi"\npath = "hsi.tif"\n' + labels))
    found = [text for text in levels(report, "look") if "label map" in text]
    assert found == ["hsi: band 3 equals the class code at every labelled pixel: a label map?"]


def test_index_base_is_said(tmp_path):
    bands, truth, train, test = small_scene("berlin")
    for role, array in (("hsi", bands["hsi"]), ("sar", bands["sar"]), ("gt", truth)):
        save_mat(tmp_path / f"berlin_{role}.mat", {f"berlin_{role}": array})
    for base in (0, 1):
        save_mat(tmp_path / "berlin_index.mat", {"berlin_train": listed(train, base), "berlin_test": listed(test, base)})
        report = check(tmp_path)
        assert report.status() == 0, report.text()
        assert any(f"read as {base}-based (row, column); 100.0% of the listed pixels" in text for text in levels(report, "note"))
    save_mat(tmp_path / "berlin_index.mat", {"tr": listed(train), "te": listed(test)})
    wrong = levels(check(f"berlin:{tmp_path}"), "wrong")
    assert len(wrong) == 2 and all("berlin_index.mat holds tr (" in text and "but none of T" in text for text in wrong)


def test_missing_files_are_named(tmp_path, capsys):
    small(tmp_path, change=lambda arrays: arrays.update(lidar=None, test=None))
    assert main(["data", "check", f"houston2013:{tmp_path}"]) == 1
    out = capsys.readouterr().out
    assert "MISSING lidar (LiDAR or houston_lidar" in out and "MISSING test (TSLabel" in out and "2 missing" in out


def test_every_missing_file_of_a_scene_is_named(tmp_path, capsys):
    scene = tmp_path / "scene.toml"
    np.save(tmp_path / "there.npy", np.ones((9, 9)))
    files = ('path = "a.tif"', 'files = "B*.tif"', 'path = "there.npy"')
    tables = [f'[[modality]]\nname = "m{i}"\n{line}\n' for i, line in enumerate(files)]
    scene.write_text("".join(tables) + '[labels]\npath = "gt.tif"\n')
    assert main(["data", "check", str(scene)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["MISSING", "MISSING", "MISSING", "3"] and lines[-1] == "3 missing"
    said = ("a.tif does not exist; it is named in", "no file is named like 'B*.tif'", "gt.tif does not exist")
    assert all(words in line for words, line in zip(said, lines[1:], strict=False))
    with pytest.raises(SceneError, match=r"a\.tif does not exist; .*B\*\.tif.*gt\.tif does not exist; it is named in .*\[labels\]"):
        load_scene(scene)


def test_a_file_of_another_kind_is_not_called_a_scene_file(tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.zeros(3))
    (tmp_path / "quick.toml").write_text("[train]\nepochs = 3\n")
    for name, said in (("x.npy", "is not a text file"), ("quick.toml", "holds settings and describes no scene")):
        assert main(["data", "check", str(tmp_path / name)]) == 2
        told = capsys.readouterr()
        assert told.out == "" and told.err.startswith(f"error: {tmp_path / name} {said}")


def test_a_missing_file_that_several_tables_name_is_said_once(tmp_path):
    scene = tmp_path / "scene.toml"
    tables = [f'[[modality]]\nname = "{name}"\npath = "all.mat"\nvariable = "{name}"\n' for name in ("hsi", "sar")]
    scene.write_text("".join(tables) + '[labels]\npath = "all.mat"\nvariable = "gt"\n')
    with pytest.raises(SceneError) as refused:
        load_scene(scene)
    assert str(refused.value) == f"{tmp_path}/all.mat does not exist; it is named in {scene}, [[modality]] 'hsi'."


def test_a_scene_of_one_class_is_wrong(tmp_path, write_toml, write_tif):
    write_tif("hsi.tif", np.random.default_rng(0).normal(size=(3, 30, 30)))
    write_tif("gt.tif", np.ones((30, 30), "uint8"))
    labels = '[labels]\npath = "gt.tif"\nclasses = { 1 = "water" }\n'
    report = check(write_toml(f'[[modality]]\nname = "hsi"\npath = "hsi.tif"\n{labels}'))
    assert any("has the class 'water' alone; training needs two classes or more" in t for t in levels(report, "wrong"))


def test_truncated_file(tmp_path):
    small(tmp_path)
    file = tmp_path / "HSI.mat"
    file.write_bytes(file.read_bytes()[:3000])
    report = check(f"houston2013:{tmp_path}")
    assert any("HSI.mat is not a readable .mat file" in text for text in levels(report, "wrong")) and report.status() == 1


def test_a_known_set_without_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SceneError, match=r"trento is a known data set; name trento:FOLDER"):
        check("trento")


def test_folders_that_are_no_known_set(tmp_path, capsys):
    assert main(["data", "check", str(tmp_path)]) == 1
    assert "MISSING scene.toml, or the files of a known data set (augsburg, berlin, " in capsys.readouterr().out
    save_mat(tmp_path / "mine.mat", {"cube": np.ones((3, 4, 5))})
    (tmp_path / "own.toml").write_text("")
    assert main(["data", "check", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "mine.mat: cube (3 x 4 x 5 double)" in out and "check own.toml" in out
    for name in ("hsi", "sar", "train", "test"):
        np.save(tmp_path / f"{name}.npy", np.ones((5, 6)))
    report = check(tmp_path)
    assert any("the files fit several known data sets (augsburg, berlin" in text for text in levels(report, "wrong"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.json").write_text("{}")
    for wrong in ("nowhere.toml", f"houston:{tmp_path / 'nowhere'}", f"hous:{tmp_path}", str(tmp_path / "run")):
        assert main(["data", "check", wrong]) == 2


def test_scene_files(tmp_path, write_toml, write_tif):
    bands, truth, _, _ = small_scene("trento")
    write_tif("hsi.tif", bands["hsi"].transpose(2, 0, 1))
    write_tif("dsm.tif", bands["lidar"][:, :, 0], crs=None)
    write_tif("gt.tif", truth)
    text = '[[modality]]\nname = "hsi"\npath = "hsi.tif"\n[[modality]]\nname = "dsm"\npath = "dsm.tif"\n'
    labels = '[labels]\npath = "gt.tif"\n[split]\nblock = 6\ntrain_fraction = 0.7\nper_class = 3\n'
    report = check(write_toml(text + labels))
    assert any("grid: 29 x 41 pixels, EPSG:32718" in t for t in levels(report, "ok"))
    assert report.status() == 0, report.text()
    assert not any("outweighs" in t for _, t in report.findings)
    write_tif("hsi.tif", np.concatenate([bands["hsi"], bands["hsi"]], 2).transpose(2, 0, 1))
    wider = check(write_toml(text + labels))
    assert any("hsi has 10 of the 11 bands and outweighs" in t for t in levels(wider, "note")) and wider.status() == 0
    bare = check(write_toml(text))
    assert any("no labels: the scene can be predicted, not trained on" in t for t in levels(bare, "note")) and bare.status() == 0
    for pixels, said in ((1, "is taken to lie on the grid of the others"), (2, "its coordinates are taken to be in that of")):
        write_tif("dsm.tif", bands["lidar"][::pixels, ::pixels, 0], crs=None, pixel=10.0 * pixels)
        look = levels(check(write_toml(text + labels)), "look")
        assert sum("dsm.tif has no coordinate system; " in t and said in t for t in look) == 1, look
    write_tif("dsm.tif", bands["lidar"][:, :, 0], crs="EPSG:32719")
    other = check(write_toml(text + labels))
    said = levels(other, "wrong")
    assert len(said) == 1 and "do not cover the same ground" in said[0]
    assert said[0].endswith("check their coordinate systems: EPSG:32719 and EPSG:32718.")


def test_list_names_every_set(capsys):
    assert main(["data", "list"]) == 0 and main(["data", "list", "MUUFL"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in known_sets()) and "Yellow curb" in out and "not verified:" in out
    assert main(["data", "list", "mufl"]) == 2
