"""A scene ready for networks: normalised windows and patches, cut on the fly."""

from __future__ import annotations

import copy
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from bdgf_fast.data.align import Levels, aligned, reference_levels
from bdgf_fast.data.normalise import Normaliser, fit_normaliser
from bdgf_fast.data.scene import COMPLETE, ClassInfo, Modality, Scene
from bdgf_fast.data.sources.grid import pixel_metres
from bdgf_fast.data.sources.raster import counted
from bdgf_fast.data.split import Split
from bdgf_fast.errors import DataWarning, SceneError, StateError

CACHE_BYTES = 512 * 2**20
TILE = 256
STATE_VERSION = 1


def prepare(
    scene: Scene, split: Split, *, modalities: Sequence[str] | None = None, align: bool = False, cache_bytes: int = CACHE_BYTES
) -> PreparedScene:
    """Fit the normalisation on the training side of ``split`` and give access to normalised windows.

    Args:
        modalities: names of those to use, all by default.
        align: first bring the parts of a joined scene, and the scenes that the model will map, to common means and deviations of
            the bands (see `bdgf_fast.data.align`).
        cache_bytes: a scene that fits into this many bytes is held in memory; of a larger one, this much is kept as recent tiles.
    """
    reference = reference_levels(scene) if align else None
    if reference is not None:
        scene = aligned(scene, reference)
    chosen = [scene.modality(n) for n in modalities] if modalities is not None else scene.modalities
    if not chosen:
        raise SceneError(f"{scene.labels_source}: choose at least one modality.")
    region = split.train_region & scene.valid()
    fitted = [fit_normaliser(scene, m, region) for m in chosen]
    normalisers = [normaliser for normaliser in fitted if normaliser is not None]
    if not normalisers:
        raise SceneError(f"{scene.labels_source}: every band is constant on the training side; choose other training blocks.")
    prepared = PreparedScene(scene, normalisers, cache_bytes=cache_bytes, split=split)
    prepared.levels = reference
    return prepared


class PreparedScene:
    """Normalised view of a scene.

    Attributes: ``groups`` channels per modality, ``modality_names``, ``channels`` their sum, ``height``, ``width``,
    ``classes``, ``split``, ``labels`` int64 (H, W) of indices into them with -1 unlabelled, ``pixel`` the sides in metres of
    the pixels the normalisation was fitted on (None where not known), ``valid`` bool (H, W), False where any modality of the
    scene has no value (selecting modalities does not change it: runs on fewer are scored on the same pixels).
    ``levels`` are those that scenes are aligned to, None without alignment. Missing values read as 0. ``hidden`` is the modality
    that reads as missing everywhere (see ``hiding``), ``absent`` lists those that the scene itself has not. Reading is safe from
    several threads.
    """

    def __init__(
        self,
        scene: Scene,
        normalisers: Sequence[Normaliser],
        *,
        cache_bytes: int = CACHE_BYTES,
        classes: Sequence[ClassInfo] | None = None,
        split: Split | None = None,
    ) -> None:
        self.scene = scene
        self.split = split
        self.normalisers = list(normalisers)
        self.groups = tuple(n.channels for n in self.normalisers)
        self.modality_names = tuple(n.name for n in self.normalisers)
        self.channels = sum(self.groups)
        self.height, self.width = scene.height, scene.width
        self.classes = list(classes if classes is not None else scene.classes)
        self.cache_bytes = cache_bytes
        self.pixel = pixel_metres(scene)
        self.hidden: str | None = None
        self.levels: Levels | None = None
        present = {modality.name for modality in scene.modalities}
        self.absent = tuple(name for name in self.modality_names if name not in present)
        self._lock = threading.RLock()
        self._tiles: OrderedDict[tuple[int, int], torch.Tensor] = OrderedDict()

    @cached_property
    def labels(self) -> torch.Tensor:
        own, codes = [c.code for c in self.scene.classes], [c.code for c in self.classes]
        if own == codes:
            return torch.from_numpy(self.scene.labels.astype(np.int64))
        table = np.array([*(codes.index(code) for code in own), -1], np.int64)  # the last entry is that of -1
        return torch.from_numpy(table[self.scene.labels])

    @cached_property
    def valid(self) -> torch.Tensor:
        valid = self.scene.valid()
        for normaliser in self.normalisers:
            for band in sorted(set(normaliser.kept) & set(self.scene.empty.get(normaliser.name, []))):
                raise SceneError(
                    f"{self.scene.labels_source}: band {normaliser.bands[band]!r} of modality {normaliser.name!r} holds no value "
                    "here, but the model was trained on it; correct the file or 'nodata'."
                )
        return torch.from_numpy(valid)

    def forget_validity(self) -> None:
        """Free what says which pixels are valid; whoever asks again causes another pass over the rasters."""
        self.__dict__.pop("valid", None)
        self.scene._lacking = None

    def lacking(self) -> torch.Tensor:
        """int16 (H, W), the modality that a pixel lacks a value of: its index, -1 where none is lacking, and -2 where the pixel
        cannot be classified: it lacks more than one, or one that this view does not know."""
        table = np.full(256, -2, np.int16)
        known = {name: index for index, name in enumerate(self.modality_names)}
        if not self.absent:
            table[COMPLETE] = -1
            for index, modality in enumerate(self.scene.modalities):
                table[index] = known.get(modality.name, -2)
        elif len(self.absent) == 1:
            table[COMPLETE] = known[self.absent[0]]
        return torch.from_numpy(table[self.scene.lacking()])

    def hiding(self, name: str) -> PreparedScene:
        """The same scene with one modality read as missing everywhere: its channels are 0. Shares what is held in memory."""
        if name not in self.modality_names:
            raise ValueError(f"there is no modality {name!r} to hide, only {', '.join(self.modality_names)}")
        if self.in_memory:
            _ = self._whole  # loaded once for all views
        view = copy.copy(self)
        view.hidden = name
        return view

    @property
    def hidden_index(self) -> int | None:
        return None if self.hidden is None else self.modality_names.index(self.hidden)

    def _hide(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., C, h, w), in place, as this view shows it."""
        index = self.hidden_index
        if index is not None:
            first = sum(self.groups[:index])
            x[..., first : first + self.groups[index], :, :] = 0
        return x

    @property
    def in_memory(self) -> bool:
        """Whether the whole normalised scene fits the cache budget."""
        return 4 * self.channels * self.height * self.width <= self.cache_bytes

    def window(self, y0: int, x0: int, h: int, w: int) -> torch.Tensor:
        """Rows y0..y0+h-1, columns x0..x0+w-1: float32 (C, h, w), mirrored where it leaves the scene by any amount.

        The mirror does not repeat the edge pixel (row -1 is row 1); overhangs beyond the scene's size mirror again.
        """
        rows = mirror(torch.arange(y0, y0 + h), self.height)
        cols = mirror(torch.arange(x0, x0 + w), self.width)
        if not h or not w:
            return torch.empty(self.channels, h, w)
        top, left = int(rows.min()), int(cols.min())
        base_y, base_x, block = self._covering(top, int(rows.max()) + 1, left, int(cols.max()) + 1)
        if y0 >= 0 and x0 >= 0 and y0 + h <= self.height and x0 + w <= self.width:
            inside = block[y0 - base_y : y0 - base_y + h, x0 - base_x : x0 - base_x + w]
        else:
            near = block[:, left - base_x :]  # narrow first: the row gather copies whole rows
            inside = near[:, : int(cols.max()) + 1 - left].index_select(0, rows - base_y).index_select(1, cols - left)
        return self._hide(inside.permute(2, 0, 1).clone(memory_format=torch.contiguous_format))

    def patches(self, rc: torch.Tensor, size: int) -> torch.Tensor:
        """Patches of the pixels ``rc`` int64 (n, 2): float32 (n, C, size, size), contiguous.

        The patch of (r, c) covers rows r - size // 2 to r - size // 2 + size - 1, columns likewise; mirrored outside.
        """
        rc = torch.as_tensor(rc, dtype=torch.int64, device="cpu")
        if rc.ndim != 2 or rc.shape[1] != 2:
            raise ValueError(f"rc has shape {tuple(rc.shape)}; (n, 2) rows and columns are needed")
        if size < 1:
            raise ValueError(f"size is {size}; a patch has at least 1 pixel")
        n = len(rc)
        out = torch.empty(n, self.channels, size, size)
        if n == 0:
            return out
        low, high = rc.amin(0), rc.amax(0)
        if low.min() < 0 or high[0] >= self.height or high[1] >= self.width:
            raise ValueError(
                f"rc reaches from {low.tolist()} to {high.tolist()}, outside the {self.height} x {self.width} scene"
            )
        reach = torch.arange(size) - size // 2
        rows = mirror(rc[:, :1] + reach, self.height)  # (n, size)
        cols = mirror(rc[:, 1:] + reach, self.width)
        if self.in_memory:
            self._gather(out, self._whole, rows, cols)
            return self._hide(out)
        # Pixels of one tile share a window, so that a tile is fetched once.
        tile = rc.div(TILE, rounding_mode="floor")
        _, group = torch.unique(tile, dim=0, return_inverse=True)
        for g in range(int(group.max()) + 1):
            mine = (group == g).nonzero().squeeze(1)
            r, c = rows[mine], cols[mine]
            y0, x0, block = self._covering(int(r.min()), int(r.max()) + 1, int(c.min()), int(c.max()) + 1)
            part = torch.empty(len(mine), self.channels, size, size)
            self._gather(part, block, r - y0, c - x0)
            out[mine] = part
        return self._hide(out)

    @staticmethod
    def _gather(out: torch.Tensor, block: torch.Tensor, rows: torch.Tensor, cols: torch.Tensor) -> None:
        n, size = rows.shape
        flat = (rows[:, :, None] * block.shape[1] + cols[:, None, :]).reshape(-1)
        picked = block.reshape(-1, block.shape[2]).index_select(0, flat)
        out.view(n, -1, size * size).copy_(picked.view(n, size * size, -1).transpose(1, 2))

    # --- storage: channels last ---

    def _covering(self, y0: int, y1: int, x0: int, x1: int) -> tuple[int, int, torch.Tensor]:
        """(row, column, block (h, w, C)) with the block starting there and covering the range given."""
        if self.in_memory:
            return 0, 0, self._whole
        ty, tx = range(y0 // TILE, (y1 - 1) // TILE + 1), range(x0 // TILE, (x1 - 1) // TILE + 1)
        if len(ty) == len(tx) == 1:
            return ty[0] * TILE, tx[0] * TILE, self._tile(ty[0], tx[0])
        out = torch.empty(y1 - y0, x1 - x0, self.channels)
        for i in ty:
            for j in tx:
                a, b = max(y0, i * TILE), min(y1, (i + 1) * TILE)
                c, d = max(x0, j * TILE), min(x1, (j + 1) * TILE)
                part = self._tile(i, j)[a - i * TILE : b - i * TILE, c - j * TILE : d - j * TILE]
                out[a - y0 : b - y0, c - x0 : d - x0] = part
        return y0, x0, out

    def _tile(self, i: int, j: int) -> torch.Tensor:
        with self._lock:
            if (i, j) in self._tiles:
                self._tiles.move_to_end((i, j))
                return self._tiles[i, j]
        y0, x0 = i * TILE, j * TILE
        tile = self._load(y0, min(self.height, y0 + TILE), x0, min(self.width, x0 + TILE))
        with self._lock:
            self._tiles[i, j] = tile
            held = sum(t.nbytes for t in self._tiles.values())
            while held > self.cache_bytes and len(self._tiles) > 1:
                held -= self._tiles.popitem(last=False)[1].nbytes
        return tile

    @property
    def _whole(self) -> torch.Tensor:
        with self._lock:
            if "_all" not in self.__dict__:
                self._all = torch.empty(self.height, self.width, self.channels)
                for y0, y1 in self.scene.strips():
                    self._all[y0:y1] = self._load(y0, y1, 0, self.width)
            return self._all

    def _load(self, y0: int, y1: int, x0: int, x1: int) -> torch.Tensor:
        parts = [
            np.zeros((n.channels, y1 - y0, x1 - x0), np.float32)
            if n.name in self.absent
            else n.apply(self.scene.modality(n.name).read(y0, y1, x0, x1))
            for n in self.normalisers
        ]
        return torch.from_numpy(np.concatenate(parts)).permute(1, 2, 0).contiguous()

    # --- parts and states ---

    def select(self, names: Sequence[str]) -> PreparedScene:
        """The same scene with these modalities only, in the order given."""
        known = dict(zip(self.modality_names, self.normalisers, strict=True))
        for name in names:
            if name not in known:
                raise SceneError(f"{self.scene.labels_source} has no modality {name!r}; it has {', '.join(known)}.")
        if not names or len(set(names)) < len(names):
            raise SceneError(f"choose at least one of {', '.join(known)}, each once.")
        part = PreparedScene(
            self.scene,
            [known[n] for n in names],
            cache_bytes=self.cache_bytes,
            classes=self.classes,
            split=self.split,
        )
        part.pixel, part.levels = self.pixel, self.levels
        return part

    def state(self) -> dict[str, Any]:
        """JSON-able: everything needed to prepare the same or another scene alike."""
        return {
            **({} if self.levels is None else {"levels": self.levels}),
            "version": STATE_VERSION,
            "scene": self.scene.name,
            "groups": list(self.groups),
            "pixel": self.pixel,
            "modalities": [n.state() for n in self.normalisers],
            "classes": [{"code": c.code, "name": c.name, "colour": list(c.colour)} for c in self.classes],
        }

    @classmethod
    def from_state(
        cls, scene: Scene, split: Split | None, state: dict[str, Any], *, may_lack: bool = False, cache_bytes: int = CACHE_BYTES
    ) -> PreparedScene:
        """Prepare ``scene`` with the stored normalisation; ``split`` (None at prediction) is kept as it is.

        The scene may have another size, fewer classes, and its bands in another order where their names tell it; modalities
        the state does not know are left aside; a state without classes takes the scene's. A model that was trained on aligned
        scenes has this one aligned too. ``may_lack``: it may also have no file of one modality, which then reads as 0.
        Raises StateError naming the modality, the bands or the class that differs.
        """
        where = f"{scene.labels_source} does not fit the checkpoint of scene {state.get('scene')!r}"
        if state.get("version") != STATE_VERSION:
            raise StateError(
                f"the checkpoint's data state has version {state.get('version')!r}, this program writes "
                f"{STATE_VERSION}; use the release that wrote it, or train again."
            )
        try:
            normalisers = [Normaliser.from_state(entry) for entry in state["modalities"]]
            classes = [ClassInfo(c["code"], c["name"], tuple(c["colour"])) for c in state["classes"]] or scene.classes
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the checkpoint's data state is damaged ({error!r}); train again.") from None
        present = {m.name: m for m in scene.modalities}
        for normaliser in normalisers:
            if normaliser.name not in present:
                if may_lack and sum(n.name not in present for n in normalisers) == 1:
                    continue
                more = " (its network can do without one modality, not without several)" if may_lack else ""
                raise StateError(f"{where}: it has no modality {normaliser.name!r}, only {', '.join(present)}{more}.")
            order = band_order(scene, present[normaliser.name], normaliser, where)
            if order is not None:
                present[normaliser.name] = present[normaliser.name].reordered(order)
                empty = [order.index(band) for band in scene.empty.get(normaliser.name, [])]
                scene = replace(scene, modalities=list(present.values()), empty={**scene.empty, normaliser.name: empty})
        known = [c.code for c in classes]
        strange = [str(c.code) for c in scene.classes if c.code not in known]
        if strange:
            raise StateError(
                f"{where}: its class codes {', '.join(strange)} are not among the checkpoint's {', '.join(map(str, known))}; "
                "list the same classes in [labels], or leave [labels] out."
            )
        reference = state.get("levels")
        if reference is not None:
            scene = aligned(scene, reference)
        out = cls(scene, normalisers, cache_bytes=cache_bytes, classes=classes, split=split)
        out.pixel, out.levels = state.get("pixel"), reference
        return out


def band_order(
    scene: Scene, modality: Modality, known: Normaliser | Modality, where: str, holder: str = "the checkpoint"
) -> list[int] | None:
    """The modality's bands in the order of ``known``, which is that of the ``holder``, told by their names; None where they stand
    in it. Raises StateError, which begins with ``where``."""
    bands, wanted = ([name.strip().casefold() for name in names] for names in (modality.bands, known.bands))
    if len(bands) != len(wanted):
        raise StateError(f"{where}: modality {known.name!r} has {counted(len(bands), 'band')}, {holder} {len(wanted)}.")
    if bands == wanted:
        return None
    if sorted(bands) == sorted(wanted) and len(set(bands)) == len(bands):
        warnings.warn(
            f"{scene.labels_source}: the bands of modality {known.name!r} are in another order than in {holder} and "
            f"are taken by their names, {', '.join(known.bands)}.",
            DataWarning,
            stacklevel=3,
        )
        return [bands.index(name) for name in wanted]
    first = next(i for i, (a, b) in enumerate(zip(bands, wanted, strict=True)) if a != b)
    said = f"band {first + 1} of modality {known.name!r} is called {modality.bands[first]!r} here, {known.bands[first]!r}"
    moved = [name for i, name in enumerate(bands) if name in wanted and wanted[i] != name]
    if moved:
        raise StateError(f"{where}: {said} in {holder}; name the bands alike, with band_names, or put them in that order.")
    warnings.warn(
        f"{scene.labels_source}: {said} in {holder}; check that the order is the same.", DataWarning, stacklevel=3
    )
    return None


def mirror(index: torch.Tensor, size: int) -> torch.Tensor:
    """Fold any integer index into 0..size-1 by reflection at the edge pixels: -1 -> 1, size -> size - 2."""
    if size == 1:
        return torch.zeros_like(index)
    folded = index.remainder(2 * (size - 1))
    return torch.minimum(folded, 2 * (size - 1) - folded)
