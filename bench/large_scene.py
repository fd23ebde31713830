"""A scene of 4,000 x 4,000 pixels and 32 bands on disk, predicted in 2 GiB: `python bench/large_scene.py FOLDER [--out JSON]`.

FOLDER receives 2 GB of rasters (a made-up scene of 500 x 500, 8 x 8 times), a network of the default size trained for a moment
on a small scene of the same sensors, and a student of it (`bdgf-fast distil`), trained for a moment too: weights do not matter for
time and memory. The prediction of every pixel by each of them, features, reading and writing included, is a process of its own,
whose VmHWM and wall time are read. Gate: the map has the scene's size and every pixel a class. `--side 2000` measures a quarter.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import from_origin

from bdgf_fast.data.synthetic import synthetic_scene
from bdgf_fast.pipeline.versions import versions

SIDE, PART, BUDGET = 4000, 500, "2GiB"
PROGRAM = """
import sys
from bdgf_fast.cli import main
from bdgf_fast.common.memory import peak_memory_bytes
code = main(sys.argv[1:])
print(peak_memory_bytes())
sys.exit(code)
"""


def write_scene(folder: Path, seed: int, side: int, repeat: int, labelled: bool) -> None:
    folder.mkdir(parents=True)
    scene, lines = synthetic_scene(seed, (side, side), bands=29), [f'name = "{folder.name}"']
    place = {"driver": "GTiff", "height": side * repeat, "width": side * repeat, "crs": "EPSG:32718", "tiled": True,
             "transform": from_origin(5e5, 5e6, 10, 10)}  # fmt: skip
    for modality in scene.modalities:
        values = np.asarray(modality.read(0, side, 0, side), np.float32)
        with rasterio.open(folder / f"{modality.name}.tif", "w", count=len(values), dtype="float32", **place) as raster:
            for band, plane in enumerate(values, 1):
                raster.write(np.tile(plane, (repeat, repeat)), band)
        lines += ["[[modality]]", f'name = "{modality.name}"', f'path = "{modality.name}.tif"']
    if labelled:
        with rasterio.open(folder / "labels.tif", "w", count=1, dtype="uint8", **place) as raster:
            raster.write((np.asarray(scene.labels) + 1).astype(np.uint8), 1)
        lines += ["[labels]", 'path = "labels.tif"', "[split]", 'kind = "blocks"', "block = 16", "train_fraction = 0.3",
                  "per_class = 40"]  # fmt: skip
    (folder / "scene.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def predict(folder: Path, run: str, side: int) -> dict:
    out = folder / f"map{side}-{run}"
    scene = folder / f"large{side}/scene.toml"
    arguments = ["predict", folder / run, "--scene", scene, "--out", out, "--quiet", "--memory", BUDGET]
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds = time.perf_counter() - start
    with rasterio.open(out / "map.tif") as raster:
        values = raster.read(1)
    assert values.shape == (side, side)
    assert (values > 0).all()
    return {"seconds": round(seconds, 1), "peak_mib": round(int(done.stdout.split()[-1]) / 2**20),
            "microseconds_per_pixel": round(1e6 * seconds / side**2, 1)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--side", type=int, default=SIDE, help=f"of the scene in pixels, a multiple of {PART}")
    args = parser.parse_args()
    if not (args.folder / f"large{args.side}/scene.toml").exists():
        write_scene(args.folder / f"large{args.side}", 1, PART, args.side // PART, labelled=False)
    if not (args.folder / "run/report.json").exists():
        write_scene(args.folder / "small", 0, 112, 1, labelled=True)
        command = ["-m", "bdgf_fast", "run", args.folder / "small/scene.toml", "--out", args.folder / "run", "--quiet"]
        command += ["--baselines", "none", "--set", "pretrain.steps=60", "--set", "train.epochs=2"]
        subprocess.run([sys.executable, *map(str, command)], check=True)
    if not (args.folder / "student/report.json").exists():
        command = ["-m", "bdgf_fast", "distil", args.folder / "run", "--out", args.folder / "student", "--quiet"]
        subprocess.run([sys.executable, *map(str, command), "--set", "train.most_steps=20"], check=True)
    result = {"pixels": args.side**2, "bands": 32, "budget": BUDGET, "threads": torch.get_num_threads(),
              "default": predict(args.folder, "run", args.side), "student": predict(args.folder, "student", args.side),
              "versions": versions()}  # fmt: skip
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
