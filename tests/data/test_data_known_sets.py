"""Each known data set from a folder with the files people have, and the tuples of rs-fusion-datasets."""

import numpy as np
import pytest

from bdgf_fast.data import SplitSpec, load_scene, make_split, prepare, scene_from_tuple
from bdgf_fast.data.colours import parse_colour
from bdgf_fast.data.known_sets import absolute_reference, by_name, describe, known_sets, split_reference
from bdgf_fast.errors import DataWarning, SceneError

pytest.importorskip("rasterio")
sparse = pytest.importorskip("scipy.sparse")
pytest.importorskip("h5py")
from known_files import H, W, listed, save_envi, save_mat, save_regions, save_v73, small_scene  # noqa: E402

ZONES = [1, 2, 3, 4, 5, 6, 8, 10, 11, 12, 13, 14, 17]


def maps(folder, names, save=save_mat, scene=None):
    """One .mat per array; `names` maps hsi, sar, ..., train, test to "file" or "file:variable"."""
    bands, truth, train, test = scene
    arrays = {**bands, "labels": truth, "train": train, "test": test.astype(np.float32)}
    for role, name in names.items():
        file, _, variable = name.partition(":")
        array = arrays[role]
        save(folder / f"{file}.mat", {variable or file: array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array})


def indices(folder, prefix, modality, scene, base, *, stem=None, variables=("{}_train", "{}_test"), inner=None, save=save_mat):
    """<name>_hsi/_sar/_gt/_index.mat, as the common loaders expect them."""
    bands, truth, train, test = scene
    stem = stem or prefix
    for role, array in (("hsi", bands["hsi"]), (modality, bands[modality]), ("gt", truth)):
        save(folder / f"{stem}_{role}.mat", {inner or f"{prefix}_{role}": array})
    every = np.argwhere(np.ones((H, W)))[:, :].astype(np.uint16) + base
    train_name, test_name = (v.format(prefix) for v in variables)
    lists = {train_name: listed(train, base), test_name: listed(test, base), f"{prefix}_all": every}
    save_mat(folder / f"{stem}_index.mat", lists)


HONG = {"hsi": "data_HS_LR", "sar": "data_SAR_HR", "train": "TrainImage", "test": "TestImage"}
TOOLKIT = {"hsi": "HSI", "lidar": "LiDAR", "train": "TRLabel", "test": "TSLabel", "labels": "gt"}


def write_augsburg_maps(folder, scene):
    maps(folder, {**HONG, "dsm": "data_DSM"}, scene=scene)


def write_augsburg_lists(folder, scene):
    indices(folder, "augsburg", "sar", scene, 0)


def write_augsburg_lists_from_one(folder, scene):
    indices(folder, "augsburg", "sar", scene, 1)


def write_berlin_v73(folder, scene):
    maps(folder, HONG, save_v73, scene)


def write_berlin_lists(folder, scene):
    (folder / "Berlin").mkdir()
    indices(folder / "Berlin", "berlin", "sar", scene, 0)


def write_yellow_river(folder, scene):
    names = ("train_index", "test_index")
    indices(folder, "x", "sar", scene, 0, stem="data", variables=names, inner="data", save=save_v73)


def write_hong_kong(folder, scene):
    maps(folder, {"msi": "data_MS_HR", "sar": "data_SAR_HR", "train": "TrainImage", "test": "TestImage"}, scene=scene)


def write_toolkit(folder, scene):
    maps(folder, TOOLKIT, scene=scene)


def write_contest(folder, scene):
    import rasterio

    bands, _, train, test = scene
    for role, stem in (("hsi", "CASI"), ("lidar", "LiDAR")):
        array = bands[role].transpose(2, 0, 1)
        path = folder / f"2013_IEEE_GRSS_DF_Contest_{stem}.tif"
        with rasterio.open(path, "w", driver="GTiff", count=len(array), height=H, width=W, dtype="float32") as data:
            data.write(array)
    save_regions(folder / "2013_IEEE_GRSS_DF_Contest_Samples_TR.txt", train)
    save_regions(folder / "2013_IEEE_GRSS_DF_Contest_Samples_VA.txt", test)


def write_houston2018(folder, scene):
    indices(folder, "houston", "lidar", scene, 1)


def write_trento_lists(folder, scene):
    indices(folder, "trento", "lidar", scene, 0)


def write_trento_truth(folder, scene):
    maps(folder, {"hsi": "Italy_hsi:data", "lidar": "Italy_lidar:data", "labels": "allgrd:mask_test"}, scene=scene)


def muufl_struct(scene):
    bands, truth, _, _ = scene
    labels = truth.astype(float)
    labels[truth == 0] = -1
    return {"Data": bands["hsi"], "labels": labels, "z": bands["lidar"]}


def write_muufl(folder, scene):
    import scipy.io as sio

    parts = muufl_struct(scene)
    lidar, names = np.empty(2, object), np.empty(11, object)
    lidar[0], lidar[1] = {"z": parts["z"]}, {"z": -parts["z"]}
    names[:] = [f"material {i}" for i in range(1, 12)]
    hsi = {"Data": parts["Data"], "Lidar": lidar, "sceneLabels": {"labels": parts["labels"], "Materials_Type": names}}
    (folder / "MUUFLGulfportSceneLabels").mkdir()
    sio.savemat(folder / "MUUFLGulfportSceneLabels" / "muufl_gulfport_campus_1_hsi_220_label.mat", {"hsi": hsi})


def write_muufl_v73(folder, scene):
    parts = muufl_struct(scene)
    hsi = {"Data": parts["Data"], "Lidar": [{"z": parts["z"]}, {"z": -parts["z"]}], "sceneLabels": {"labels": parts["labels"]}}
    save_v73(folder / "muufl_gulfport_campus_1_hsi_220_label.mat", {"hsi": hsi})


def write_envi(folder, scene):
    bands, _, train, test = scene
    for name, array in {**bands, "train": train[:, :, None], "test": test[:, :, None]}.items():
        save_envi(folder / f"{name}.img", array.transpose(2, 0, 1).copy(), interleave="bil")


CASES = [
    ("augsburg", write_augsburg_maps), ("augsburg", write_augsburg_lists), ("augsburg", write_augsburg_lists_from_one),
    ("augsburg", write_envi), ("berlin", write_berlin_v73), ("berlin", write_berlin_lists),
    ("yellow_river_estuary", write_yellow_river), ("lcz_hk", write_hong_kong), ("houston2013", write_toolkit),
    ("houston2013", write_contest), ("houston2018", write_houston2018), ("houston2018", write_toolkit),
    ("trento", write_toolkit), ("trento", write_trento_lists), ("trento", write_trento_truth), ("muufl", write_muufl),
    ("muufl", write_muufl_v73), ("muufl", write_envi),
]  # fmt: skip


@pytest.mark.parametrize(("name", "write"), CASES, ids=[f"{n}-{w.__name__.removeprefix('write_')}" for n, w in CASES])
def test_known_set_from_the_files_people_have(tmp_path, name, write):
    data = bands, truth, train, test = small_scene(name)
    write(tmp_path, data)
    scene = load_scene(f"{name}:{tmp_path}")
    known = known_sets()[name]
    for modality in scene.modalities:
        assert np.array_equal(modality.read(0, H, 0, W), bands[modality.name].transpose(2, 0, 1)), modality.name
    optional = {role.name for role in known.modalities if role.optional}
    assert set(bands) - optional <= {m.name for m in scene.modalities} <= set(bands)
    assert np.array_equal(scene.labels, truth.astype(int) - 1), "every class occurs, in ascending code"
    assert [c.code for c in scene.classes] == sorted(known.classes)
    if write is write_muufl:
        assert [c.name for c in scene.classes] == [f"material {i}" for i in range(1, 12)], "the file names its classes"
    else:
        assert [c.name for c in scene.classes] == list(known.classes.values())
        assert [c.colour for c in scene.classes] == [parse_colour(known.colours[c.name]) for c in scene.classes]
    if write in (write_trento_truth, write_muufl, write_muufl_v73):
        assert scene.split_spec.kind == "blocks" and not scene.given
        return
    assert np.array_equal(scene.given["train"], train > 0) and np.array_equal(scene.given["test"], test > 0)
    split = make_split(scene, patch=3)
    assert split.kind == "given" and len(split.train) == (train > 0).sum() and len(split.test) == (test > 0).sum()


def test_labels_on_all_borders_have_patches(tmp_path):
    write_augsburg_lists_from_one(tmp_path, small_scene("augsburg"))
    scene = load_scene(f"augsburg:{tmp_path}")
    split = make_split(scene, patch=11)
    corners = {(0, 0), (H - 1, 0)}
    assert corners <= set(map(tuple, split.train.tolist())) and (H - 1, W - 1) in set(map(tuple, split.test.tolist()))
    prepared = prepare(scene, split)
    at = split.train[[split.train.tolist().index(list(c)) for c in sorted(corners)]]
    patches = prepared.patches(at, 11)
    whole = prepared.window(0, 0, H, W)
    assert np.array_equal(patches[0, :, 5, 5], whole[:, 0, 0]) and np.array_equal(patches[1, :, 5, 5], whole[:, H - 1, 0])
    assert np.array_equal(patches[0, :, 4, 4], whole[:, 1, 1]), "mirrored without repeating the edge"


def test_local_climate_zones_by_their_own_numbers(tmp_path):
    data = small_scene("lcz_hk", codes=ZONES)
    write_hong_kong(tmp_path, data)
    scene = load_scene(f"LCZ HK:{tmp_path}")
    assert [c.code for c in scene.classes] == ZONES
    assert scene.classes[-1].name == "Water" and scene.classes[-1].colour == parse_colour("#6a6aff")
    assert any("labels use the codes 1, 2, 3, 4, 5, 6, 8" in note for note in scene.notes)


def test_scene_file_that_names_a_set(tmp_path):
    write_augsburg_maps(tmp_path, small_scene("augsburg"))
    (tmp_path / "data_SAR_HR.mat").rename(tmp_path / "mine.mat")
    save_mat(tmp_path / "both.mat", {"height": small_scene("augsburg")[0]["dsm"][:, :, 0], "slope": np.zeros((H, W))})
    path = tmp_path / "here" / "scene.toml"
    path.parent.mkdir()
    lines = ['dataset = "Augsburg"', 'folder = ".."', 'name = "ours"',
             'files = { sar = "mine.mat", dsm = { path = "both.mat", variable = "height" } }',
             "pca = { hsi = 3 }",
             "nodata = { dsm = -9999 }", "ignore = [6]", "[split]", 'kind = "per_class"', "per_class = 4"]  # fmt: skip
    path.write_text("\n".join(lines))
    scene = load_scene(path)
    assert scene.name == "ours" and [c.code for c in scene.classes] == [1, 2, 3, 4, 5, 7] and scene.path == path
    assert scene.modality("hsi").pca == 3 and scene.modality("dsm").parts[0][0].nodata == [-9999]
    assert scene.split_spec == SplitSpec(kind="per_class", per_class=4)


BAD = [
    ('dataset = "agsburg"', r"scene\.toml: no data set is known as 'agsburg' \(did you mean 'augsburg'\?\); known"),
    ('dataset = "augsburg"\nfolder = "nowhere"', r"nowhere is not a folder; name the one that holds the files of Augsburg"),
    ('dataset = "augsburg"\nfile = "x"', r"unknown key 'file' \(did you mean 'files'\?\); known keys are dataset, folder"),
    ('dataset = "augsburg"\nfiles = { lidar = "x" }', r"files is a table with some of hsi, sar, dsm, labels, train, test"),
    ('dataset = "augsburg"\nfiles = { sar = "x.mat" }', r"files names 'x\.mat' for sar, but there is no such file"),
    ('dataset = "augsburg"\nignore = 3', r"ignore is a list of codes"),
    ('dataset = "augsburg"\nnodata = { sar = "a" }', r"nodata is 'a'; it must be a number"),
    ('dataset = 3', r"dataset and folder are texts"),
    ('dataset = "berlin"\nfolder = "berlin"', r"label code 9 \(\d+ pixels\) has no class"),
    ('dataset = "augsburg"\nfiles = { sar = { path = "x.mat" } }', r"files, sar: give a file name or \{ path = "),
    ('dataset = "trento"\nfolder = "empty"',
     r"Trento.* needs hsi \(HSI or trento_hsi.*\), lidar .*, train .*, test .*, labels .* none of its files"),
    ('dataset = "houston2013"\nfolder = "two"', r"HSI\.mat holds a \(.*, b \(.*, but none of HSI, houston_hsi"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_bad_known_sets_are_named_with_their_mend(tmp_path, text, message):
    write_augsburg_maps(tmp_path, small_scene("augsburg"))
    for folder, data in (("berlin", small_scene("berlin", codes=list(range(2, 10)))), ("two", small_scene("houston2013"))):
        (tmp_path / folder).mkdir()
        (write_berlin_v73 if folder == "berlin" else write_toolkit)(tmp_path / folder, data)
    save_mat(tmp_path / "two" / "HSI.mat", {"a": np.ones((H, W, 3)), "b": np.ones((H, W, 3))})
    (tmp_path / "empty").mkdir()
    (tmp_path / "scene.toml").write_text(text)
    with pytest.raises(SceneError, match=message):
        load_scene(tmp_path / "scene.toml")


def test_names_and_references(tmp_path, monkeypatch):
    assert by_name("Yellow River Estuary") is by_name("yellow-river_estuary") is known_sets()["yellow_river_estuary"]
    assert split_reference("scene.toml") is None and split_reference("C:/data/scene.toml") is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "augsburg:odd.toml").write_text("")
    assert split_reference("augsburg:odd.toml") is None, "a file of that name wins"
    assert absolute_reference("Houston2013:d") == f"houston2013:{tmp_path / 'd'}"
    assert absolute_reference("d.toml") == str(tmp_path / "d.toml")
    with pytest.raises(SceneError, match=r"no data set is known as 'trent' \(did you mean 'trento'\?\); known"):
        load_scene(f"trent:{tmp_path}")
    with pytest.raises(SceneError, match=r"is a folder without scene.toml; name a scene file, such as .*odd\.toml"):
        load_scene(tmp_path)
    (tmp_path / "augsburg:odd.toml").unlink()
    with pytest.raises(SceneError, match=r"is a folder without scene.toml; name a scene file, or NAME:"):
        load_scene(tmp_path)


def test_tables_are_whole():
    assert sorted(known_sets()) == ["augsburg", "berlin", "houston2013", "houston2018", "lcz_hk", "muufl", "trento",
                                    "yellow_river_estuary"]  # fmt: skip
    published = {("augsburg", "train"): 761, ("augsburg", "test"): 77_533, ("berlin", "train"): 2_820,
                 ("berlin", "test"): 461_851, ("houston2013", "train"): 2_832, ("houston2013", "test"): 12_197,
                 ("houston2018", "labelled"): 2_018_910, ("trento", "labelled"): 30_214, ("muufl", "labelled"): 53_687}  # fmt: skip
    assert {(k.name, side): sum(counts) for k in known_sets().values() for side, counts in k.counts.items()} == published
    for known in known_sets().values():
        assert set(known.colours) == set(known.classes.values()) and len(set(known.colours.values())) == len(known.classes)
        assert set(known.other_classes.values()) <= set(known.colours) and known.sources and known.unverified
        assert all(len(counts) == len(known.classes) for counts in known.counts.values())
        assert known.title in describe() and all(name in describe(known.name) for name in known.classes.values())


# --- tuples ---


def as_tuple(count):
    bands, truth, train, test = small_scene("trento")
    info = {"name": "trento", "label_name": {i: f"class {i}!" for i in range(1, 7)}, "n_class": 6,
            "palette": ("royalblue", "lightblue", "limegreen", "yellow", "red", "#010203")}  # fmt: skip
    sides = {4: (truth,), 5: (train, test), 6: (train, test, truth)}[count]
    maps = [sparse.coo_array(side) for side in sides]
    return (bands["hsi"].transpose(2, 0, 1), bands["lidar"].transpose(2, 0, 1), *maps, info), bands, truth, train, test


@pytest.mark.parametrize("count", [4, 5, 6])
def test_tuples_of_rs_fusion_datasets(count):
    data, bands, truth, train, test = as_tuple(count)
    scene = scene_from_tuple(data)
    assert scene.name == "trento" and [m.name for m in scene.modalities] == ["hsi", "dsm"]
    assert np.array_equal(scene.modality("hsi").read(0, H, 0, W), bands["hsi"].transpose(2, 0, 1))
    assert np.array_equal(scene.labels, truth.astype(int) - 1)
    assert [c.name for c in scene.classes] == [f"class {i}!" for i in range(1, 7)]
    assert scene.classes[0].colour == (65, 105, 225) and scene.classes[5].colour == (1, 2, 3)
    if count == 4:
        assert scene.split_spec.kind == "blocks"
    else:
        assert np.array_equal(scene.given["train"], train > 0) and np.array_equal(scene.given["test"], test > 0)
    prepare(scene, make_split(scene, patch=3, spec=SplitSpec(block=6, train_fraction=0.6) if count == 4 else None))


def test_tuples_in_other_forms():
    data, bands, truth, _, _ = as_tuple(4)
    hsi, dsm, labels, info = data
    less = scene_from_tuple((hsi, dsm, np.where(truth == 2, 0, truth), info))
    assert [c.code for c in less.classes] == [1, 3, 4, 5, 6] and less.classes[-1].colour == (1, 2, 3), "colours go with codes"
    corner = np.append(labels.row, 0), np.append(labels.col, 0)
    twice = sparse.coo_array((np.append(labels.data, truth[0, 0]), corner), truth.shape)
    scene = scene_from_tuple((hsi, dsm[0], twice, {}), names=("hsi", "lidar"))
    assert np.array_equal(scene.labels, truth.astype(int) - 1), "a pixel listed twice does not add up"
    assert [m.name for m in scene.modalities] == ["hsi", "lidar"] and scene.classes[0].name == "class 1"
    clash = sparse.coo_array((np.append(labels.data, 5), corner), truth.shape)
    for bad, message in (
        ((hsi, dsm, info), "the tuple must be .*here it is 3 long"),
        ((hsi, dsm, labels, labels), "the info table, a dict; here it is coo_array"),
        ((bands["hsi"], dsm, labels, info), r"the bands stand last: give hsi\.transpose\(2, 0, 1\)"),
        ((hsi, dsm[:, :5], labels, info), r"'dsm' is 5 x 41 pixels, 'hsi' is 29 x 41"),
        ((hsi, dsm, clash, info), "row 0, column 0 carries two codes"),
        ((hsi, dsm, labels, {**info, "palette": ["reddish"] * 6}), "the palette of scene 'trento'"),
        ((hsi, dsm, labels, {**info, "label_name": {1: "a"}}), "label code 2 .*has no class"),
    ):
        with pytest.raises(SceneError, match=message):
            scene_from_tuple(bad)


def test_unverified_split_overlap_is_warned_about(tmp_path):
    bands, truth, train, test = small_scene("trento")
    write_toolkit(tmp_path, (bands, truth, train, np.where(train > 0, train, test)))
    with pytest.warns(DataWarning, match="stand in the train and in the test map"):
        make_split(load_scene(f"trento:{tmp_path}"))
