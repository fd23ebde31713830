"""The whole configuration of a run, as nested dataclasses with documented defaults.

Precedence (the application applies it): built-in defaults < ``Config.demo()`` or a study's preset < ``--config FILE.toml`` <
``--set section.key=value``. Every unknown section or key and every value of the wrong type is a ``ValueError`` that names it
and lists what exists.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from dataclasses import dataclass, field
from typing import Any, get_args, get_origin, get_type_hints

SEEDS = 2**32
"""Seeds lie below this: scikit-learn takes no larger ones."""


def _one_of(name: str, value: object, options: tuple[str, ...]) -> None:
    if value not in options:
        raise ValueError(f"{name} is {value!r}; it takes one of: {', '.join(options)}")


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise ValueError(f"{name} is {value}; it must be at least {low}")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie between {low} and {high}")


@dataclass
class DataConfig:
    """What is cut from the scene."""

    patch: int = 11
    """Side of the patch around a pixel, in pixels; any odd or even size from 7 on."""

    def check(self) -> None:
        _at_least("data.patch", self.patch, 7)


@dataclass
class PretrainConfig:
    """Stage 1: the multimodal denoising diffusion model."""

    steps: int = 2400
    """Optimiser steps; 0 leaves the denoiser untrained (a control)."""
    batch: int = 8
    """Crops a step, over all ranks."""
    crop: int = 32
    """Side of a training crop in pixels (no larger than the scene; odd and even sizes work)."""
    learning_rate: float = 1.5e-3
    """Peak learning rate of AdamW; linear warm-up over ``warmup`` of the steps, then cosine to zero."""
    warmup: float = 0.05
    weight_decay: float = 1e-4
    clip_gradient: float = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    ema: float = 0.99
    """Decay of the moving average of the weights; the average is what stage 2 uses. 0 switches it off."""
    region: str = "scene"
    """Pixels the denoiser sees, never with labels: ``scene`` or ``train`` (crops whose centre lies in the training
    blocks)."""
    augment: bool = True
    """Rotations by 90 degrees and flips of the crops."""
    timesteps: int = 1000
    schedule: str = "linear"
    """Noise schedule: ``linear``, ``scaled_linear`` or ``cosine``."""
    prediction: str = "sample"
    """What the U-Net predicts of a visible modality: ``sample`` (x0), ``epsilon`` or ``v_prediction``. For a hidden
    modality it is x0 always."""
    min_snr_gamma: float = 0.0
    """Clip of the signal-to-noise weight of the loss; 0 = no such weight."""
    weights: str = "balanced"
    """Weight of a modality's loss: ``balanced`` (1/M) or ``channels`` (C_m / sum C, what a plain mean over channels
    does)."""
    masking: str = "adaptive"
    """Masking policy: ``none``, ``fixed`` (every modality at ``mask_rate``) or ``adaptive`` (by influence)."""
    mask_rate: float = 0.25
    """Mean probability that a modality is hidden."""
    mask_low: float = 0.05
    mask_high: float = 0.6
    """Bounds of a modality's adaptive rate."""
    mask_ema: float = 0.8
    mask_every: int = 25
    """Decay of the influence's moving average, and the steps between two measurements of it."""
    mask_fill: str = "zero"
    """What a hidden modality's channels hold: ``zero`` or ``noise`` (a stream of its own, never the target's)."""
    widths: list[int] = field(default_factory=lambda: [32, 64, 64])
    """Channels of the U-Net per level, finest first."""
    blocks: int = 1
    """Residual blocks a level."""
    evaluate_every: int = 400
    """Steps between two measurements on held-out crops (also one at the end)."""
    precision: str = "float32"
    """Arithmetic of the U-Net: ``float32`` or ``bfloat16`` (autocast; weights, optimiser and loss stay float32)."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""

    def check(self) -> None:
        _at_least("pretrain.batch", self.batch, 2)  # the influence borrows from another sample
        for name in ("timesteps", "blocks", "mask_every", "evaluate_every", "checkpoint_every"):
            _at_least(f"pretrain.{name}", getattr(self, name), 1)
        _at_least("pretrain.steps", self.steps, 0)
        _at_least("pretrain.crop", self.crop, 7)
        _between("pretrain.warmup", self.warmup, 0, 1)
        _between("pretrain.ema", self.ema, 0, 0.99999)
        _between("pretrain.mask_ema", self.mask_ema, 0, 0.99999)
        _between("pretrain.mask_rate", self.mask_rate, 0, 1)
        _between("pretrain.mask_low", self.mask_low, 0, self.mask_high)
        _between("pretrain.mask_high", self.mask_high, self.mask_low, 1)
        _one_of("pretrain.region", self.region, ("scene", "train"))
        _one_of("pretrain.schedule", self.schedule, ("linear", "scaled_linear", "cosine"))
        _one_of("pretrain.prediction", self.prediction, ("sample", "epsilon", "v_prediction"))
        _one_of("pretrain.weights", self.weights, ("balanced", "channels"))
        _one_of("pretrain.masking", self.masking, ("none", "fixed", "adaptive"))
        _one_of("pretrain.precision", self.precision, ("float32", "bfloat16"))
        _one_of("pretrain.mask_fill", self.mask_fill, ("zero", "noise"))
        if not self.widths or min(self.widths) < 1:
            raise ValueError(f"pretrain.widths is {self.widths}; it takes one positive channel count per level")


@dataclass
class FeaturesConfig:
    """Stage 2: features of the frozen denoiser, or of another model."""

    path: list[str] = field(default_factory=list)
    """Files with feature maps of another model on the scene's grid (.npy, .mat, GeoTIFF), which guide in place of the
    denoiser's; stage 1 is then left out."""
    mode: str = "dense"
    """``dense`` (overlapping tiles of the scene, patches cropped from the maps) or ``patch`` (each patch through the
    U-Net)."""
    timesteps: list[int] = field(default_factory=lambda: [10, 100, 300])
    """Diffusion steps whose features are concatenated."""
    levels: int = 3
    """Decoder levels used, coarsest first; blocks behind the last one are not run."""
    channels: int = 48
    """Channels after the principal components."""
    pca: str = "level"
    """``joint``: one projection of all levels, the same guide for every stage. ``level``: one projection a level, the
    coarsest level guides the first stage."""
    tile: int = 256
    """Side of a tile's core in pixels (a multiple of 2^(levels of the U-Net - 1)). Larger ones spend less on their halos."""
    fit_pixels: int = 200_000
    """Training-side pixels the projection is fitted on, at most (by whole tiles)."""

    def check(self) -> None:
        _one_of("features.mode", self.mode, ("dense", "patch"))
        _one_of("features.pca", self.pca, ("joint", "level"))
        for name in ("levels", "channels", "tile", "fit_pixels"):
            _at_least(f"features.{name}", getattr(self, name), 1)
        if not self.timesteps or min(self.timesteps) < 0:
            raise ValueError(f"features.timesteps is {self.timesteps}; it takes at least one step, counted from 0")


@dataclass
class ModelConfig:
    """Stage 3: the group network."""

    mode: str = "dense"
    """``dense`` (pieces of the scene are mapped at once, every pixel is computed once) or ``patch`` (each pixel is classified
    by a patch of its own: a hundred times the work)."""
    branches: list[str] = field(default_factory=lambda: ["cnn", "mamba", "transformer"])
    """Any of ``cnn``, ``mamba``, ``transformer``."""
    width: int = 64
    stages: int = 3
    expand: int = 1
    """Width of the scan over the width of the Mamba branch."""
    state: int = 8
    """States N a channel of the selective scan."""
    directions: int = 4
    """Scan directions: 4, 2 (rows, both ways) or 1."""
    heads: int = 4
    groups: int = 4
    """Groups of the group channel gate / attention."""
    guide_cnn: str = "fusion"
    """Guidance of the CNN branch: ``fusion``, ``gate``, ``channel_attention``, ``cross_attention`` or ``none``."""
    guide_mamba: str = "gate"
    """Guidance of the Mamba branch, likewise."""
    guide_transformer: str = "cross_attention"
    """Guidance of the transformer branch, likewise."""
    twins: bool = False
    """Beside each guided branch a copy of it without guidance. The two groups are trained apart and predict by their mean: where
    the features mislead, the bands alone do not, and the other way round. Costs as much again."""
    statistics: bool = True
    """Each head also sees mean, standard deviation and centre of every band and guide over the patch, standardised by the
    training patches."""
    balance: bool = False
    """Every modality enters the branches with the same total variance, however many bands it has. Without it a modality's weight
    grows with its bands, which costs most where one sensor has many times the bands of another."""
    scan_window: int = 16
    attention_window: int = 8
    """Dense mode: sides in pixels of the windows that the scans and gates, and the attentions, work in; both powers of two."""
    map_radius: int = 5
    """Dense mode: a head sees its branch's map at the pixel, and mean and deviation within this many pixels of it."""
    radii: list[int] = field(default_factory=lambda: [5])
    """Dense mode: the heads see value, mean and deviation of the bands within these distances, standardised."""
    context: list[int] = field(default_factory=lambda: [2, 6, 18])
    """Dense mode: means and deviations of the bands within these distances, turned onto their principal axes, are further maps
    whose statistics the heads and forests see; empty for none."""
    guide_radii: list[int] = field(default_factory=lambda: [5])
    """Dense mode: the same distances for the guides and for the maps of ``context``."""
    trees: int = 100
    """Dense mode: trees of each of the forests on those statistics that predict beside the branches; 0 for none."""
    statistics_noise: float = 0.3
    """Dense mode: standard deviation of normal noise on the standardised statistics in training."""
    hidden: int = 256
    """Width of the heads' two layers."""
    dropout: float = 0.5
    """Dropout of the heads' inputs and layers."""
    fusion: str = "mean"
    """Prediction: ``mean`` of the branches' probabilities, ``logits`` (softmax of the mean logits) or ``learned``
    (softmax of the mean logits, weighted by learned weights per branch)."""

    def check(self) -> None:
        guides = ("fusion", "gate", "channel_attention", "cross_attention", "none")
        for branch in self.branches:
            _one_of("model.branches", branch, ("cnn", "mamba", "transformer"))
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise ValueError(f"model.branches is {self.branches}; it takes one to three different branches")
        for name in ("width", "stages", "expand", "state", "heads", "groups", "hidden"):
            _at_least(f"model.{name}", getattr(self, name), 1)
        for name in ("guide_cnn", "guide_mamba", "guide_transformer"):
            _one_of(f"model.{name}", getattr(self, name), guides)
        _one_of("model.mode", self.mode, ("dense", "patch"))
        for name in ("scan_window", "attention_window"):
            side = getattr(self, name)
            if not 4 <= side <= 64 or side & (side - 1):
                raise ValueError(f"model.{name} is {side}; it takes a power of two from 4 to 64")
        for name in ("radii", "context", "guide_radii"):
            values = getattr(self, name)
            if values and min(values) < 1 or len(set(values)) != len(values):
                raise ValueError(f"model.{name} is {values}; it takes different distances of 1 pixel or more")
        _at_least("model.map_radius", self.map_radius, 1)
        _at_least("model.statistics_noise", self.statistics_noise, 0)
        _at_least("model.trees", self.trees, 0)
        _one_of("model.fusion", self.fusion, ("mean", "logits", "learned"))
        _between("model.dropout", self.dropout, 0, 0.9)
        if self.directions not in (1, 2, 4):
            raise ValueError(f"model.directions is {self.directions}; it takes 1, 2 or 4")
        for name in ("heads", "groups"):
            if self.width % getattr(self, name):
                raise ValueError(f"model.width {self.width} is not a multiple of model.{name} {getattr(self, name)}")


@dataclass
class TrainConfig:
    """Training of the group network."""

    epochs: int = 8
    """Passes over the training pixels. A network over patches needs some 40: its steps have fewer of them."""
    most_steps: int = 2000
    """Dense mode: the training ends after this many steps, however many pixels there are."""
    crops: int = 48
    """Dense mode: crops per step, over all ranks, each laid over a training pixel. Many small crops are worth more than few
    large ones: labels beside each other say nearly the same."""
    crop: int = 16
    """Dense mode: side of a crop in pixels. The loss is taken at the labels that are ``model.map_radius`` or more from its edge."""
    batch: int = 64
    """Patch mode: patches per step, over all ranks; a last smaller batch is used, not dropped."""
    learning_rate: float = 2e-3
    warmup: float = 0.1
    weight_decay: float = 0.05
    clip_gradient: float = 1.0
    ema: float = 0.98
    """Decay of the moving average of the weights, which predicts; 0 switches it off."""
    label_smoothing: float = 0.1
    noise: float = 0.05
    """Standard deviation of normal noise added to the raw bands (scaled to [-1, 1])."""
    guide_noise: float = 0.0
    """The same for the diffusion features, whose mean variance is 1."""
    augment: bool = True
    """Rotations by 90 degrees and flips of patch and features together."""
    lambda_entropy: float = 0.1
    lambda_similarity: float = 0.1
    """Weights of the two mutual-learning losses."""
    entropy: str = "squared"
    """Alignment of entropy: ``squared`` difference (divided by log K) or ``kl`` (symmetric KL divergence)."""
    ramp: float = 0.2
    """Both lambdas rise linearly from 0 over this share of the steps."""
    precision: str = "float32"
    """Arithmetic of the network's forward and backward: ``float32`` or ``bfloat16`` (autocast; weights, optimiser and
    losses stay float32)."""
    accumulate: int = 1
    """Parts a batch is worked through in, one after the other: less memory, the same gradient but for L_sim, which
    compares within a part."""
    compile: bool = False
    """Run the network through ``torch.compile``: minutes at the start, for long trainings."""
    patience: int = 0
    """Stop when the accuracy on the split's validation part (``val_blocks``) has not risen for this many epochs, and keep
    the best weights; 0 trains the whole budget. Never looks at the test side."""
    checkpoint_every: int = 10
    """Epochs between two checkpoints."""

    def check(self) -> None:
        for name in ("epochs", "batch", "accumulate", "checkpoint_every"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("most_steps", "crops", "crop"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        _at_least("train.patience", self.patience, 0)
        _one_of("train.precision", self.precision, ("float32", "bfloat16"))
        for name in ("noise", "guide_noise", "lambda_entropy", "lambda_similarity", "weight_decay", "clip_gradient"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        _between("train.warmup", self.warmup, 0, 1)
        _between("train.ramp", self.ramp, 0, 1)
        _between("train.ema", self.ema, 0, 0.99999)
        _between("train.label_smoothing", self.label_smoothing, 0, 0.9)
        _one_of("train.entropy", self.entropy, ("squared", "kl"))


@dataclass
class PredictConfig:
    """Prediction of pixels and whole scenes."""

    block: int = 256
    """Side of a predicted block in pixels; bounds the memory."""
    batch: int = 256
    """Patches a forward pass."""
    views: int = 1
    """Rotations and flips averaged over: 1 or 8."""
    precision: str = "float32"
    """Arithmetic of the network: ``float32`` or ``bfloat16`` (autocast; the features stay in float32)."""

    def check(self) -> None:
        _at_least("predict.block", self.block, 1)
        _at_least("predict.batch", self.batch, 1)
        if self.views not in (1, 8):
            raise ValueError(f"predict.views is {self.views}; it takes 1 or 8")
        _one_of("predict.precision", self.precision, ("float32", "bfloat16"))


@dataclass
class Config:
    """A run's configuration: one section per stage. ``seed`` is the default of every stage's seed argument."""

    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Build from nested dictionaries (TOML, JSON); missing keys keep their defaults. Raises ValueError."""
        return cls()._take(values).check()

    def updated(self, values: dict[str, Any]) -> Config:
        """A copy with the values of nested dictionaries (a TOML file) in place of its own. Raises ValueError."""
        return Config.from_dict(self.to_dict())._take(values).check()

    def _take(self, values: dict[str, Any]) -> Config:
        for name, value in values.items():
            if not isinstance(value, dict):
                self._assign([name], value)
                continue
            for key, inner in value.items():
                self._assign([name, key], inner)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries, JSON- and TOML-able; ``from_dict`` restores an equal Config."""
        return dataclasses.asdict(self)

    def override(self, *assignments: str) -> Config:
        """A copy with ``"section.key=value"`` strings applied. Values are JSON (``true``, ``[1,2]``) or bare words."""
        config = Config.from_dict(self.to_dict())
        for text in assignments:
            path, sign, raw = text.partition("=")
            if not sign:
                raise ValueError(f"override {text!r} has no '='; write section.key=value")
            try:
                value = json.loads(raw.strip())
            except ValueError:
                value = _bare(raw.strip())
            config._assign(path.strip().split("."), value)
        return config.check()

    def check(self) -> Config:
        """Check every value's range; returns self. Raises ValueError naming the key."""
        if not 0 <= self.seed < SEEDS:
            raise ValueError(f"seed is {self.seed}; a seed is a whole number from 0 to {SEEDS - 1}")
        for section in dataclasses.fields(self):
            value = getattr(self, section.name)
            if hasattr(value, "check"):
                value.check()
        bottom = 2 ** (len(self.pretrain.widths) - 1)
        if self.features.levels > len(self.pretrain.widths):
            raise ValueError(
                f"features.levels is {self.features.levels}, but pretrain.widths has {len(self.pretrain.widths)}"
            )
        if self.features.tile % bottom:
            levels = len(self.pretrain.widths)
            raise ValueError(f"features.tile is {self.features.tile}; the U-Net of {levels} levels needs a multiple of {bottom}")
        if self.model.mode == "dense":
            self._check_dense()
        if max(self.features.timesteps) >= self.pretrain.timesteps:
            raise ValueError(
                f"features.timesteps {self.features.timesteps} reach past pretrain.timesteps {self.pretrain.timesteps}"
            )
        return self

    def _check_dense(self) -> None:
        c, crop = self.model, self.train.crop
        for name in ("scan_window", "attention_window"):
            for where, side in (("train.crop", crop), ("predict.block", self.predict.block)):
                if side % getattr(c, name):
                    raise ValueError(f"{where} is {side}; the dense network needs a multiple of model.{name} {getattr(c, name)}")
        if crop <= 2 * c.map_radius:
            least = 2 * c.map_radius + 1
            raise ValueError(f"train.crop is {crop}; with model.map_radius {c.map_radius} it must be at least {least}")
        if self.features.mode == "patch":
            raise ValueError('features.mode is "patch", which has no map for the dense network; set model.mode = "patch" too')

    @classmethod
    def demo(cls) -> Config:
        """A run of a few minutes on the built-in scene. What differs from the defaults beside the budget was chosen on split 0 of
        that scene: its spectral image has 28 of the 31 bands, so the modalities are balanced, and its classes are told by texture,
        where statistics of the surroundings and the forests on them mislead."""
        return cls().override(
            "pretrain.steps=300",
            "pretrain.evaluate_every=100",
            "pretrain.checkpoint_every=100",
            "pretrain.learning_rate=2e-3",
            "pretrain.ema=0.98",
            "model.balance=true",
            "model.statistics=false",
            "model.dropout=0.2",
            "train.epochs=12",
        )

    def _assign(self, path: list[str], value: Any) -> None:
        owner: Any = self
        for depth, name in enumerate(path):
            where = ".".join(path[: depth + 1])
            names = [f.name for f in dataclasses.fields(owner)] if dataclasses.is_dataclass(owner) else []
            if name not in names:
                kind = "section or key" if depth == 0 else "key"
                near = difflib.get_close_matches(name, names, 1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise ValueError(
                    f"unknown {kind} {where!r}{hint}; there are: {', '.join(names) or 'none below this one'}"
                )
            if depth < len(path) - 1:
                owner = getattr(owner, name)
        name = path[-1]
        if dataclasses.is_dataclass(getattr(owner, name)):
            keys = ", ".join(f.name for f in dataclasses.fields(getattr(owner, name)))
            raise ValueError(f"{name!r} is a section, not a value; its keys are: {keys}")
        setattr(owner, name, _convert(".".join(path), value, get_type_hints(type(owner))[name]))


def _bare(raw: str) -> Any:
    """An override's value that is no JSON: ``cnn,mamba`` is a list of words, anything else a word."""
    return [part.strip() for part in raw.strip("[]").split(",")] if "," in raw or raw.startswith("[") else raw


def _convert(name: str, value: Any, kind: Any) -> Any:
    if get_origin(kind) is list:
        (inner,) = get_args(kind)
        items = value if isinstance(value, (list, tuple)) else [value]
        return [_convert(name, item, inner) for item in items]
    whole = isinstance(value, int) and not isinstance(value, bool)
    if kind is float and (whole or isinstance(value, float)):
        return float(value)
    if (kind is int and whole) or (kind in (bool, str) and isinstance(value, kind)):
        return value
    takes = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
    raise ValueError(f"{name} takes {takes}, got {value!r} ({type(value).__name__})")
