"""Baselines that a run's report compares the method with, on the same split and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..baselines import FORESTS, GUIDED_FOREST, available, predict_baseline
from ..common.progress import bar
from ..diffusion.pretrain import load_denoiser
from ..errors import UserError
from ..features.dense import DiffusionFeatures
from ..report.metrics import METRICS, scores
from .run import Run
from .scenes import NO_TEST


def forests(run: Run) -> dict[str, Any]:
    """Forests beside the method, on the same split and normalisation."""
    return {name: _beside(run, name) for name in (*FORESTS, *((GUIDED_FOREST,) if run.guide == "denoiser" else ()))}


def networks(run: Run, names: Sequence[str]) -> dict[str, Any]:
    """Other networks beside the method, in its own training loop. The dual-branch denoiser takes the denoisers of the runs on
    single modalities, which must have pre-trained. Every rank must call it."""
    return {name: _beside(run, name) for name in names if name in available(len(run.prepared.groups))}


def _beside(run: Run, name: str) -> dict[str, float]:
    rc = run.split.test
    if len(rc) == 0:
        raise UserError(NO_TEST.format(run.scene.name))
    with bar(name, run.quiet) as progress:
        labels = predict_baseline(
            name, run.prepared, run.config, run.seed, rc, device=run.device, progress=progress,
            checkpoint=run.directory / "baselines" / f"{name.replace(' ', '-')}.safetensors",
            features=lambda: DiffusionFeatures.fit(run.denoiser(), run.prepared, run.config, run.seed),
            denoiser=lambda modality: load_denoiser(run.directory / "single" / modality / "checkpoints" / "denoiser.safetensors"),
        )
    result = scores(run.prepared.labels[rc[:, 0], rc[:, 1]].numpy(), labels, len(run.prepared.classes))
    return {key: result[key] for key in METRICS}
