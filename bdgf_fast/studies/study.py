"""A study: the method's cells (see ``cells``) x seeds, resumable, with pre-training shared where it is the same.

    study.json, study.md, study.html, differences.png   after every cell
    pretrain/<key>.safetensors, .json  one per (pre-training settings, modalities, seed); the seed decides the split
    cells/<key>.safetensors            of the cell that is being trained

Only test pixels are scored, and nothing is chosen by them. All cells of a seed share split and scored pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..baselines import predict_baseline
from ..common.progress import bar
from ..common.ranks import ranks
from ..config import Config
from ..data import PreparedScene, make_split, prepare
from ..data.known_sets import absolute_reference
from ..diffusion.denoiser import Denoiser
from ..diffusion.pretrain import load_denoiser, pretrain
from ..errors import UserError
from ..features.arrays import ArrayFeatures
from ..features.dense import DiffusionFeatures
from ..features.source import FeatureSource
from ..features.statistics import StatisticsFeatures
from ..files.atomic import atomic
from ..files.json_files import read_json, write_json
from ..network.predict import predict_pixels
from ..network.reach import guided, reach
from ..network.train import check_split, train
from ..pipeline import origin
from ..pipeline.locks import create, lock
from ..pipeline.scenes import NO_TEST, SYNTHETIC, check_size, open_scene
from ..pipeline.settings import ConfigLike, configured, filled_in
from ..pipeline.versions import versions
from ..report import pictures
from ..report.evaluation import predicted_labels, score
from ..report.page import embedded
from ..report.study_page import LEVEL, PLOT, compared, markdown, page
from .cells import DEFAULT_CELL, METHOD, PRESETS, STATISTICS, Cell, all_cells, select


class Study:
    """A study's directory with its scene and default configuration.

    Args:
        out: the directory; one that holds a study of the same scene, preset and configuration is gone on with.
        reference: a scene file, NAME:FOLDER or "synthetic".
        preset: "quick" or "full".
        config: what differs from the preset, or a whole ``Config`` in its place.
        features: files with another model's maps that guide in the default.
        per_class: training pixels per class, in place of those of the scene's [split].
        pretraining: directory of the denoisers (default: ``out``/pretrain); they do not depend on the number of labels.

    Raises UserError for a directory with another study in it, a bad override or a scene without test pixels.
    """

    def __init__(
        self, out: Path, reference: str, *, preset: str = "quick", config: ConfigLike = None,
        features: Sequence[str | os.PathLike[str]] = (), quiet: bool = False, device: torch.device | str = "cpu",
        per_class: int | None = None, pretraining: Path | None = None,
    ) -> None:
        if ranks()[1] > 1:
            raise UserError("a study runs in one process: start it without torchrun")
        if preset not in PRESETS:
            raise UserError(f"--preset is {preset!r}; it takes one of: {', '.join(PRESETS)}")
        self.out, self.quiet, self.device, self.preset = Path(out), quiet, torch.device(device), PRESETS[preset]
        self.config = configured(self.preset.base(), config, features=features)
        if self.config.seed != Config().seed:
            raise UserError("a study takes its seeds from --seeds; leave seed out of --set and --config")
        if self.config.predict.priors != "train":
            raise UserError("a study scores under the class shares of the training labels; leave predict.priors out of --set and "
                            "--config")  # fmt: skip
        self.scene = open_scene(reference)
        self.pretraining = self.out / "pretrain" if pretraining is None else pretraining
        if per_class is not None:
            kind = self.scene.split_spec.kind
            if kind != "blocks":
                raise UserError(
                    f'--labels: {self.scene.labels_source} has a split of kind "{kind}"; the number of labels is varied within '
                    'training blocks, kind = "blocks"'
                )
            self.scene.split_spec = replace(self.scene.split_spec, per_class=per_class)
        check_size(self.scene, self.config)
        self.cells = all_cells(self.config, [m.name for m in self.scene.modalities])
        self._prepared: tuple[int, PreparedScene] | None = None
        self.facts: dict[str, Any] = {
            "scene": reference if reference == SYNTHETIC else absolute_reference(reference),
            "preset": preset,
            "config": self.config.to_dict(),
            **({} if per_class is None else {"per_class": per_class}),
        }
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out {self.out} is a file; name a directory")
        self.state: dict[str, Any] = {}

    def _reopen(self) -> dict[str, Any]:
        """The study that the directory holds, when it is this one, or a new one."""
        path, maps = self.out / "study.json", self.config.features.path
        if path.exists():
            state = read_json(path)
            found = {**state, "config": filled_in(state.get("config"))}
            changed = [name for name, value in self.facts.items() if found.get(name) != value]
            if changed:
                raise UserError(f"{self.out} holds a study with another {' and '.join(changed)}; choose another --out")
            before = state.get("origin")
            origin.require_same(self.out, "study", before, origin.describe(self.scene, maps, before))
            return state
        return {
            **self.facts, "origin": origin.describe(self.scene, maps), "name": self.scene.name,
            "test_pixels": self.preset.test_pixels,
            "modalities": [m.name for m in self.scene.modalities], "versions": versions(), "cells": [], "pretraining": {},
        }  # fmt: skip

    # --- running ---

    def run(self, wanted: Sequence[str] | None, seeds: Sequence[int]) -> None:
        """Run the cells that have no result yet, seed after seed; writes the tables after every one."""
        chosen = select(self.cells, wanted or self.preset.wanted)
        if len(set(seeds)) != len(seeds):
            raise UserError(f"--seeds names a seed twice: {list(seeds)}")
        create(self.out)
        lock(self.out)
        self.state = self._reopen()
        for cell in chosen:
            self._entry(cell)
        for seed in seeds:
            for cell in chosen:
                if str(seed) not in self._entry(cell)["results"]:
                    self._entry(cell)["results"][str(seed)] = self._cell(cell, seed)
                    self._write()
        self._write()

    def _entry(self, cell: Cell) -> dict[str, Any]:
        """The cell's row in the state; a new one takes its place in the table's order."""
        for entry in self.state["cells"]:
            if entry["name"] == cell.name:
                return entry
        entry = {"name": cell.name, "title": cell.title, "group": cell.group, "settings": list(cell.settings), "same_as": None,
                 "results": {}}  # fmt: skip
        self.state["cells"].append(entry)
        order = {c.name: i for i, c in enumerate(self.cells)}
        self.state["cells"].sort(key=lambda e: order.get(e["name"], len(order)))
        return entry

    def _cell(self, cell: Cell, seed: int) -> dict[str, Any]:
        key = self._key(cell, seed)
        for other in self.cells:  # the default is one of the masking policies, and so on: not run twice
            entry = next((e for e in self.state["cells"] if e["name"] == other.name), None)
            if entry and other.name != cell.name and str(seed) in entry["results"] and self._key(other, seed) == key:
                self._entry(cell)["same_as"] = entry["same_as"] or other.name
                return entry["results"][str(seed)]
        prepared, rc = self._scene(seed)
        if cell.modalities is not None:
            prepared = prepared.select(cell.modalities)
        config = self.config.override(*cell.settings)
        checkpoint = self.out / "cells" / f"{key}.safetensors"
        used: list[tuple[str, float]] = []

        def denoiser_of(some: PreparedScene) -> Denoiser:
            denoiser, key, spent = self._denoiser(some, config, seed)
            used.append((key, spent))
            return denoiser

        start = time.perf_counter()
        with bar(f"{cell.title}, seed {seed}", self.quiet) as progress:
            if cell.kind in (METHOD, STATISTICS):
                features = self._features(cell, prepared, config, seed, denoiser_of)
                network, _ = train(prepared, features, config, seed=seed, checkpoint=checkpoint, resume=True, progress=progress,
                                   device=self.device)  # fmt: skip
                labels = predicted_labels(predict_pixels(network, features, prepared, config, rc))
            else:
                found = predict_baseline(
                    cell.kind, prepared, config, seed, rc, checkpoint=checkpoint, device=self.device, progress=progress,
                    denoiser=lambda name: denoiser_of(prepared.select([name])),
                    features=lambda: self._features(DEFAULT_CELL, prepared, config, seed, denoiser_of),
                )  # fmt: skip
                labels = {"fused": found}
        seconds = time.perf_counter() - start - sum(spent for _, spent in used)
        checkpoint.unlink(missing_ok=True)
        result = score(prepared, rc, labels)
        result.pop("confusion_matrix")
        return {**result, "pixels": len(rc), "seconds": round(seconds, 2),
                "pretraining": [key for key, _ in used]}  # fmt: skip

    def _features(
        self, cell: Cell, prepared: PreparedScene, config: Config, seed: int, denoiser_of: Callable[[PreparedScene], Denoiser]
    ) -> FeatureSource | None:
        """The source that guides in a cell."""
        if cell.kind == STATISTICS:
            return StatisticsFeatures(prepared, config, seed)
        if not guided(config.model):
            return None
        if config.features.path:
            return ArrayFeatures.fit(prepared, config, seed, config.features.path)
        return DiffusionFeatures.fit(denoiser_of(prepared), prepared, config, seed)

    def _denoiser(self, prepared: PreparedScene, config: Config, seed: int) -> tuple[Denoiser, str, float]:
        """The denoiser of these settings, pre-trained now if no cell has done so; its key and the seconds spent just now."""
        key = _digest({"pretrain": config.to_dict()["pretrain"], "modalities": list(prepared.modality_names), "seed": seed})
        path = self.pretraining / f"{key}.safetensors"
        start = time.perf_counter()
        facts = path.with_suffix(".json")
        if not facts.exists():
            with bar(f"pre-training ({', '.join(prepared.modality_names)}; masking {config.pretrain.masking}), seed {seed}",
                     self.quiet) as progress:  # fmt: skip
                denoiser, history = pretrain(prepared, config, seed=seed, checkpoint=path, resume=True, progress=progress,
                                             device=self.device)  # fmt: skip
            write_json(facts, {
                "modalities": history["modalities"], "balance": history["balance"], "masking": config.pretrain.masking,
                "seed": seed, "steps": config.pretrain.steps, "seconds": round(time.perf_counter() - start, 2),
            })  # fmt: skip
        else:
            denoiser = load_denoiser(path).to(self.device)
        self.state["pretraining"][key] = read_json(facts)
        return denoiser, key, time.perf_counter() - start

    # --- parts ---

    def _scene(self, seed: int) -> tuple[PreparedScene, torch.Tensor]:
        """The prepared scene of a seed's split, and the test pixels that are scored: a random part fixed by the seed."""
        if self._prepared is None or self._prepared[0] != seed:
            split = make_split(self.scene, patch=self.config.data.patch, seed=seed, reach=reach(self.config))
            check_split(split, self.config)
            if not len(split.test):
                raise UserError(NO_TEST.format(self.scene.name))
            self._prepared = seed, prepare(self.scene, split)
        prepared = self._prepared[1]
        assert prepared.split is not None
        test = prepared.split.test
        chosen = np.sort(np.random.default_rng(seed).permutation(len(test))[: self.preset.test_pixels])
        return prepared, test[torch.from_numpy(chosen)]

    def _key(self, cell: Cell, seed: int) -> str:
        config = self.config.override(*cell.settings).to_dict()
        return _digest({"config": config, "modalities": cell.modalities, "kind": cell.kind, "seed": seed})

    def _write(self) -> None:
        write_json(self.out / "study.json", self.state)
        pictures.differences(compared(self.state), LEVEL, self.out / PLOT)
        for name, text in (("study.md", markdown(self.state)), ("study.html", page(self.state, embedded(self.out / PLOT)))):
            with atomic(self.out / name) as beside:
                beside.write_text(text, encoding="utf-8")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
