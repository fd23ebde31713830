"""Small files of the structures that the known data sets have."""

import numpy as np
import scipy.io as sio

from bdgf_fast.data.known_sets import known_sets

H, W = 29, 41  # labelled cells of 5 x 5 in a raster of 6 x 6 touch all four borders


def small_scene(name, *, codes=None):
    """(bands by modality as (H, W, C), ground truth, training map, test map): every class on both sides."""
    known = known_sets()[name]
    codes = codes or list(known.classes)
    rng = np.random.default_rng(len(name))
    cell = np.arange(H)[:, None] // 6 * 7 + np.arange(W) // 6
    inside = (np.arange(H)[:, None] % 6 < 5) & (np.arange(W) % 6 < 5)
    truth = np.where(inside, np.array(codes)[cell % len(codes)], 0).astype(np.uint8)
    # 35 cells do not hold 20 classes twice: the left part of a cell trains, the right part tests.
    left = np.arange(W) % 6 < 2
    train, test = np.where(left, truth, 0).astype(np.uint8), np.where(left, 0, truth).astype(np.uint8)
    bands = {
        role.name: rng.normal(100, 20, (H, W, min(role.bands, 5))).astype(np.float32)
        for role in known.modalities
    }  # fmt: skip
    return bands, truth, train, test


def listed(mask, base=0, swapped=False):
    """Pixels of a map as a MATLAB user lists them."""
    points = np.argwhere(mask > 0)
    return (points[:, ::-1] if swapped else points).astype(np.uint16) + base


def save_mat(path, variables):
    sio.savemat(path, variables, do_compression=True)


def save_v73(path, variables):
    """MATLAB v7.3: a 512-byte header, axes in reverse, classes as attributes, cells as references into #refs#."""
    import h5py

    with h5py.File(path, "w", userblock_size=512) as file:
        refs = file.create_group("#refs#")
        for name, value in variables.items():
            _put(file, refs, name, value)
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Tue Nov 24 2026 HDF5 schema 1.00 .".ljust(124))
        raw.write(b"\x00\x02IM")


def _put(group, refs, name, value):
    import h5py

    if isinstance(value, dict):
        inner = group.create_group(name)
        inner.attrs["MATLAB_class"] = np.bytes_("struct")
        for key, entry in value.items():
            _put(inner, refs, key, entry)
        return inner
    if isinstance(value, list):  # a cell array of one column
        pointers = []
        for entry in value:
            pointers.append(_put(refs, refs, f"r{len(refs)}", entry).ref)
        item = group.create_dataset(name, (1, len(value)), dtype=h5py.ref_dtype)
        item[0] = pointers
        kind = "cell"
    elif isinstance(value, str):
        item, kind = group.create_dataset(name, data=np.array([[ord(c)] for c in value], np.uint16)), "char"
    else:
        value = np.atleast_2d(value)
        kind = {"float64": "double", "float32": "single"}.get(str(value.dtype), str(value.dtype))
        item = group.create_dataset(name, data=value.T, chunks=True, compression="gzip")
    item.attrs["MATLAB_class"] = np.bytes_(kind)
    return item


def save_envi(path, array, *, interleave="bsq", names=None, nodata=None):
    """Header and raw data of a (C, H, W) array, written without GDAL; returns the header."""
    order = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[interleave]
    array.transpose(order).tofile(path)
    kind = {"uint8": 1, "int16": 2, "int32": 3, "float32": 4, "float64": 5, "uint16": 12}[str(array.dtype)]
    count, height, width = array.shape
    lines = ["ENVI", f"samples = {width}", f"lines = {height}", f"bands = {count}", "header offset = 0",
             "file type = ENVI Standard", f"data type = {kind}", f"interleave = {interleave}", "byte order = 0"]  # fmt: skip
    if names:
        lines.append(f"band names = {{{', '.join(names)}}}")
    if nodata is not None:
        lines.append(f"data ignore value = {nodata}")
    header = path.with_suffix(".hdr")
    header.write_text("\n".join(lines) + "\n")
    return header


def save_regions(path, labels):
    """Regions of interest as ENVI exports them: 1-based x and y, ids from 1 in each."""
    height, width = labels.shape
    codes = [code for code in np.unique(labels) if code]
    lines = ["; ENVI Output of ROIs (5.0)", f"; Number of ROIs: {len(codes)}", f"; File Dimension: {width} x {height}", ";"]
    for code in codes:
        lines += [f"; ROI name: class {code}", f"; ROI npts: {(labels == code).sum()}", ";   ID    X    Y   Lat   Lon"]
        lines += [f"   {i}   {x + 1}   {y + 1}   29.7   -95.3" for i, (y, x) in enumerate(np.argwhere(labels == code), 1)]
        lines.append("")
    path.write_text("\n".join(lines))
