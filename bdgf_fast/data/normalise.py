"""Scaling of bands to [-1, 1] by statistics of the training side, with optional PCA; stored as plain JSON."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bdgf_fast.data.scene import Modality, Scene
from bdgf_fast.errors import DataWarning, SceneError

PERCENTILES = (1.0, 99.0)
SEEN = (0.0, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 100.0)
"""Percentiles of each band that are kept to know other scenes' values by."""
CLIP = 1.5
MAX_SAMPLE_VALUES = 100_000_000  # per modality; 400 MB of float32


@dataclass
class Scaling:
    """x -> clip(2 (x - low) / (high - low) - 1, -1.5, 1.5) per channel; arrays of length C."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def fit(cls, sample: np.ndarray) -> Scaling:
        """From ``sample`` (C, n): the 1st and 99th percentile, or the extremes where these coincide."""
        low, high = np.percentile(sample, PERCENTILES, axis=1)
        flat = high <= low
        low[flat], high[flat] = sample[flat].min(axis=1, initial=np.inf), sample[flat].max(axis=1, initial=-np.inf)
        return cls(low.astype(np.float64), high.astype(np.float64))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Scale ``x`` (C, h, w) float32; missing values (NaN) become 0, the middle of the range."""
        shape = (-1, 1, 1)
        out = x - self.low.astype(np.float32).reshape(shape)
        out *= (2 / (self.high - self.low)).astype(np.float32).reshape(shape)
        out -= 1
        np.clip(out, -CLIP, CLIP, out=out)
        return np.nan_to_num(out, copy=False, nan=0.0)

    def state(self) -> dict[str, Any]:
        return {"low": self.low.tolist(), "high": self.high.tolist()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Scaling:
        return cls(np.asarray(state["low"], np.float64), np.asarray(state["high"], np.float64))


@dataclass
class Normaliser:
    """Bands of one modality to network channels: drop dead bands, scale, and, if asked, project by PCA and scale "
    "again."""

    name: str
    bands: list[str]
    kept: list[int]
    scaling: Scaling
    pca_mean: np.ndarray | None = None
    pca_components: np.ndarray | None = None  # (n, len(kept))
    pca_scaling: Scaling | None = None

    units: list[str] = field(default_factory=list)
    seen: np.ndarray | None = None  # (all bands, len(SEEN)), NaN for bands without value

    @property
    def channels(self) -> int:
        return len(self.kept) if self.pca_components is None else len(self.pca_components)

    def apply(self, raw: np.ndarray) -> np.ndarray:
        """(all bands, h, w) float32, NaN missing -> (channels, h, w) float32 in [-1.5, 1.5]."""
        scaled = self.scaling.apply(raw if len(self.kept) == len(self.bands) else raw[self.kept])
        if self.pca_scaling is None:
            return scaled
        return self.pca_scaling.apply(self._project(scaled))

    def _project(self, scaled: np.ndarray) -> np.ndarray:
        assert self.pca_mean is not None and self.pca_components is not None
        flat = scaled.reshape(len(scaled), -1) - self.pca_mean.astype(np.float32)[:, None]
        return (self.pca_components.astype(np.float32) @ flat).reshape(-1, *scaled.shape[1:])

    def state(self) -> dict[str, Any]:
        """JSON-able."""
        pca = None
        if self.pca_mean is not None and self.pca_components is not None and self.pca_scaling is not None:
            pca = {
                "mean": self.pca_mean.tolist(),
                "components": self.pca_components.tolist(),
                **self.pca_scaling.state(),
            }
        seen = None if self.seen is None else [[v if np.isfinite(v) else None for v in band] for band in self.seen.tolist()]
        return {
            "name": self.name, "bands": self.bands, "kept": self.kept, **self.scaling.state(), "pca": pca,
            "units": self.units, "percentiles": {"at": list(SEEN), "values": seen},
        }  # fmt: skip

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Normaliser:
        out = cls(state["name"], list(state["bands"]), list(state["kept"]), Scaling.from_state(state))
        if (pca := state["pca"]) is not None:
            out.pca_mean, out.pca_components = (np.asarray(pca[key], np.float64) for key in ("mean", "components"))
            out.pca_scaling = Scaling.from_state(pca)
        out.units = list(state.get("units", []))
        seen = state.get("percentiles", {})
        if seen.get("values") is not None and tuple(seen["at"]) == SEEN:
            out.seen = np.array(seen["values"], np.float64)
        return out


def fit_normaliser(scene: Scene, modality: Modality, region: np.ndarray) -> Normaliser | None:
    """Statistics of ``modality`` over the pixels where ``region`` (H, W) is True; None when no band varies there.

    At most MAX_SAMPLE_VALUES values are held: beyond that every k-th pixel, in row-major order, is used.
    Warns when some bands do not vary, and when none does.
    """
    return fit_together([(scene, modality, region)])


def sample_of(parts: Sequence[tuple[Scene, Modality, np.ndarray]], most: int | None = None) -> np.ndarray:
    """Values (bands, n) at the pixels where the regions (H, W) are True, of scenes with the same bands in the same order; where
    these are more than ``most``, of every k-th pixel, in row-major order."""
    scene, modality, _ = parts[0]
    total = sum(int(region.sum()) for _, _, region in parts)
    if total == 0:
        raise SceneError(f"{scene.labels_source}: no valid pixel in the training region; use more training blocks.")
    step = -(-total * len(modality.bands) // (most or MAX_SAMPLE_VALUES))
    picked, seen = [], 0
    for own, bands, region in parts:
        for y0, y1 in own.strips():
            inside = region[y0:y1]
            count = int(inside.sum())
            if count:
                picked.append(bands.read(y0, y1, 0, own.width)[:, inside][:, (-seen) % step :: step])
                seen += count
    return np.concatenate(picked, axis=1)


def fit_together(parts: Sequence[tuple[Scene, Modality, np.ndarray]]) -> Normaliser | None:
    """The same over several scenes with the same bands in the same order: every pixel counts alike. Bands without any value must be
    so in all of them."""
    scene, modality, _ = parts[0]
    sample = sample_of(parts)
    scaling = Scaling.fit(sample)
    alive = scaling.high > scaling.low
    kept = np.flatnonzero(alive).tolist()
    dead = [modality.bands[i] for i in np.flatnonzero(~alive) if i not in scene.empty.get(modality.name, [])]
    if not kept:
        text = f"modality {modality.name!r} is left out: all of it is constant on the training side."
    elif dead:
        text = f"modality {modality.name!r} is used without {', '.join(dead)}: constant on the training side."
    if dead:
        warnings.warn(f"{modality.source}: {text}", DataWarning, stacklevel=3)
    if not kept:
        return None
    normaliser = Normaliser(modality.name, list(modality.bands), kept, Scaling(scaling.low[kept], scaling.high[kept]))
    normaliser.units = modality.units
    normaliser.seen = np.percentile(sample, SEEN, axis=1).T.astype(np.float64)
    if modality.pca is not None:
        _fit_pca(normaliser, modality, sample[kept])
    return normaliser


def _fit_pca(normaliser: Normaliser, modality: Modality, sample: np.ndarray) -> None:
    from bdgf_fast.common.packages import require

    decomposition = require("sklearn.decomposition", modality.source)
    limit = min(sample.shape)
    if modality.pca > limit:
        raise SceneError(
            f"{modality.source}: pca = {modality.pca} for modality {modality.name!r}, but only {limit} components "
            f"exist ({len(sample)} varying bands, {sample.shape[1]} training pixels)."
        )
    scaled = normaliser.scaling.apply(sample[:, :, None])[:, :, 0]
    pca = decomposition.PCA(modality.pca, svd_solver="full" if scaled.shape[1] < 10_000 else "covariance_eigh")
    pca.fit(scaled.T.astype(np.float64))
    normaliser.pca_mean, normaliser.pca_components = pca.mean_, pca.components_
    normaliser.pca_scaling = Scaling.fit(normaliser._project(scaled[:, :, None])[:, :, 0])
