"""The whole configuration of a run, as nested dataclasses with documented defaults.

Precedence (the application applies it): built-in defaults < ``Config.demo()`` or a study's preset < ``--config FILE.toml`` <
``--set section.key=value``. Every unknown section or key and every value of the wrong type is a ``ValueError`` that names it
and lists what exists.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, Strict, TypeAdapter, ValidationError

from .common.random_streams import SEEDS
from .validation import FORBID, as_list, as_priors, sentence

T = TypeVar("T")
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
Count = Annotated[Whole, Field(ge=0)]
Positive = Annotated[Whole, Field(ge=1)]
AtLeast7 = Annotated[Whole, Field(ge=7)]
Size = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Decay = Annotated[Number, Field(ge=0, le=0.99999)]
Listed = Annotated[list[T], BeforeValidator(as_list)]
Several = Annotated[list[T], BeforeValidator(as_list), Field(min_length=1)]
Priors = Annotated[Literal["train", "scene"] | dict[str, Number], BeforeValidator(as_priors)]
Mode = Literal["dense", "patch"]
Precision = Literal["float32", "bfloat16"]
BranchName = Literal["cnn", "mamba", "transformer"]
Guide = Literal["fusion", "gate", "channel_attention", "cross_attention", "none"]
Window = Literal[4, 8, 16, 32, 64]


@dataclass
class DataConfig:
    """The surroundings of a pixel."""

    __pydantic_config__ = FORBID

    patch: AtLeast7 = 11
    """Side in pixels of the patch around a pixel, odd or even. The split keeps half of it between training blocks and test pixels
    (``gap = "patch"``), one of the random forests summarises it, and with ``model.mode = "patch"`` the network sees it."""
    align: Literal["none", "scene"] = "none"
    """``scene``: the bands of every scene, those that are joined for training and those that are mapped, are first shifted and
    scaled to common means and deviations, without labels. For another season, gain or offset; it also removes true differences."""


@dataclass
class PretrainConfig:
    """First stage: the denoising diffusion model on all modalities."""

    __pydantic_config__ = FORBID

    steps: Count = 2400
    """Optimiser steps; 0 leaves the denoiser untrained (a control)."""
    batch: Annotated[Whole, Field(ge=2)] = 8
    """Crops per step, over all processes."""
    crop: AtLeast7 = 32
    """Side of a training crop in pixels (no larger than the scene; odd and even sizes work)."""
    learning_rate: Number = 1.5e-3
    """Peak learning rate of AdamW, reached by a linear warm-up; it then falls to zero along a cosine."""
    warmup: Share = 0.05
    """Share of the steps that the warm-up takes."""
    weight_decay: Number = 1e-4
    """Weight decay of AdamW."""
    clip_gradient: Number = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    ema: Decay = 0.99
    """Decay of the moving average of the weights; the features come from the average. 0 switches it off."""
    region: Literal["scene", "train"] = "scene"
    """Pixels that the denoiser sees, always without labels: ``scene`` (all) or ``train`` (crops whose centre lies in the
    training blocks)."""
    augment: Flag = True
    """Rotations by 90 degrees and flips of the crops."""
    timesteps: Positive = 1000
    """Steps of the diffusion process."""
    schedule: Literal["linear", "scaled_linear", "cosine"] = "linear"
    """Noise schedule: ``linear``, ``scaled_linear`` or ``cosine``."""
    prediction: Literal["sample", "epsilon", "v_prediction"] = "sample"
    """What the U-Net predicts of a visible modality: ``sample`` (x0), ``epsilon`` or ``v_prediction``. For a hidden
    modality it is always x0."""
    min_snr_gamma: Number = 0.0
    """Clip of the signal-to-noise weight of the loss; 0 for no such weight."""
    weights: Literal["balanced", "channels"] = "balanced"
    """Weight of a modality's loss: ``balanced`` (1/M) or ``channels`` (C_m / sum C, what a plain mean over channels
    does)."""
    masking: Literal["none", "fixed", "adaptive"] = "adaptive"
    """Masking policy: ``none``, ``fixed`` (every modality at ``mask_rate``) or ``adaptive`` (by influence)."""
    mask_rate: Share = 0.25
    """Mean probability that a modality is hidden."""
    mask_low: Share = 0.05
    """Lowest rate at which adaptive masking hides a modality."""
    mask_high: Share = 0.6
    """Highest rate at which adaptive masking hides a modality."""
    mask_ema: Decay = 0.8
    """Decay of the moving average of a modality's influence."""
    mask_every: Positive = 25
    """Steps between two measurements of the influence."""
    mask_fill: Literal["zero", "noise"] = "zero"
    """What a hidden modality's channels hold: ``zero`` or ``noise`` (drawn independently of the noise that is to be predicted)."""
    widths: Several[Positive] = field(default_factory=lambda: [32, 64, 64])
    """Channels of the U-Net per level, finest first."""
    blocks: Positive = 1
    """Residual blocks per level."""
    evaluate_every: Positive = 400
    """Steps between two measurements on held-out crops (also one at the end)."""
    precision: Precision = "float32"
    """Arithmetic of the U-Net: ``float32`` or ``bfloat16`` (autocast; weights, optimiser and loss stay float32)."""
    checkpoint_every: Positive = 200
    """Steps between two checkpoints."""


@dataclass
class FeaturesConfig:
    """Features of the frozen denoiser, or of another model, which guide the classifier."""

    __pydantic_config__ = FORBID

    path: Listed[str] = field(default_factory=list)
    """Files with feature maps of another model on the scene's grid (.npy, .mat, GeoTIFF), which guide in place of the
    denoiser's; the pre-training is then left out."""
    mode: Mode = "dense"
    """``dense`` (overlapping tiles of the scene, patches cropped from the maps) or ``patch`` (each patch through the
    U-Net)."""
    timesteps: Several[Count] = field(default_factory=lambda: [10, 100, 300])
    """Diffusion steps whose features are concatenated."""
    noise: Literal["drawn", "none"] = "drawn"
    """What the frozen denoiser is given at a diffusion step: ``drawn``, a noisy scene as in its training, with noise fixed by the
    seed and the place; or ``none``, the signal in it alone, sqrt(abar_t) x0."""
    levels: Positive = 3
    """Decoder levels used, coarsest first; blocks after the last one are not run."""
    channels: Positive = 48
    """Channels after the principal components."""
    pca: Literal["joint", "level"] = "level"
    """``joint``: one projection of all levels, the same guide for every stage. ``level``: one projection per level, the
    coarsest level guides the first stage."""
    tile: Positive = 256
    """Side in pixels of the tiles that the U-Net computes, without their margin (a multiple of 2^(levels of the U-Net - 1)). Larger
    tiles spend less on their margins."""
    fit_pixels: Positive = 200_000
    """Training-side pixels the projection is fitted on, at most (by whole tiles)."""


@dataclass
class ModelConfig:
    """The classifier: branches of different kinds, each guided by the features."""

    __pydantic_config__ = FORBID

    mode: Mode = "dense"
    """``dense`` (all pixels of a tile are classified together, so that each is computed once) or ``patch`` (each pixel is
    classified from a patch of its own, which takes some hundred times the work)."""
    branches: Several[BranchName] = field(default_factory=lambda: ["cnn", "mamba", "transformer"])
    """Any of ``cnn``, ``mamba``, ``transformer``."""
    width: Positive = 64
    """Channels of each branch."""
    stages: Positive = 3
    """Stages of each branch; each is followed by guidance."""
    expand: Positive = 1
    """Width of the selective scan, as a multiple of the Mamba branch's width."""
    state: Positive = 8
    """States N per channel of the selective scan."""
    directions: Literal[1, 2, 4] = 4
    """Scan directions: 4, 2 (rows, both ways) or 1."""
    heads: Positive = 4
    """Heads of the attentions; they divide ``width``."""
    groups: Positive = 4
    """Groups of the group channel gate / attention."""
    guide_cnn: Guide = "fusion"
    """Guidance of the CNN branch: ``fusion``, ``gate``, ``channel_attention``, ``cross_attention`` or ``none``."""
    guide_mamba: Guide = "gate"
    """Guidance of the Mamba branch, likewise."""
    guide_transformer: Guide = "cross_attention"
    """Guidance of the transformer branch, likewise."""
    twins: Flag = False
    """Adds an unguided copy of each guided branch. The copies are trained separately, and the predictions of both groups are
    averaged: where the features mislead, the bands alone may not, and the other way round. Doubles the cost."""
    statistics: Flag = True
    """The head of each branch (its last layers) also sees mean, standard deviation and centre of every band and guiding feature
    around the pixel, standardised by the training pixels."""
    balance: Flag = False
    """Every modality enters the branches with the same total variance, however many bands it has. Without it a modality's weight
    grows with its bands, which costs most where one sensor has many times the bands of another."""
    scan_window: Window = 16
    """Dense mode: side in pixels of the windows in which the scans and gates work; a power of two."""
    attention_window: Window = 8
    """Dense mode: side in pixels of the windows in which the attentions work; a power of two."""
    map_radius: Positive = 5
    """Dense mode: a head sees its branch's feature map at the pixel, and mean and standard deviation within this many pixels."""
    radii: Listed[Positive] = field(default_factory=lambda: [5])
    """Dense mode: the heads see value, mean and standard deviation of the bands within these distances in pixels, standardised."""
    context: Listed[Positive] = field(default_factory=lambda: [2, 6, 18])
    """Dense mode: means and standard deviations of the bands within these distances, projected onto their principal components, are
    further maps whose statistics the heads and forests see; empty for none."""
    guide_radii: Listed[Positive] = field(default_factory=lambda: [5])
    """Dense mode: the same distances for the guiding features and for the maps of ``context``."""
    trees: Count = 100
    """Dense mode: trees in each of the two forests on those statistics, whose predictions are averaged with the branches'; 0 for
    none."""
    statistics_noise: Size = 0.3
    """Dense mode: standard deviation of normal noise on the standardised statistics in training."""
    hide_rate: Share = 0.0
    """Dense mode: share of the training crops in which one modality is hidden, each equally often; for each modality, the forests
    are also grown without it. Such a network classifies pixels and scenes that lack a modality too. With 0 these get no class."""
    hidden: Positive = 256
    """Width of the two layers of each head."""
    dropout: Annotated[Number, Field(ge=0, le=0.9)] = 0.5
    """Dropout of the heads' inputs and layers."""
    fusion: Literal["mean", "logits", "learned"] = "mean"
    """Prediction: ``mean`` of the branches' probabilities, ``logits`` (softmax of the mean logits) or ``learned``
    (softmax of the mean logits, weighted by learned weights per branch)."""


@dataclass
class TrainConfig:
    """Second stage: training of the classifier."""

    __pydantic_config__ = FORBID

    epochs: Positive = 8
    """Passes over the training pixels. With ``model.mode = "patch"`` some 40 are needed, because a step then sees fewer pixels."""
    most_steps: Positive = 2000
    """Dense mode: the training ends after this many steps, however many pixels there are."""
    crops: Positive = 48
    """Dense mode: crops per step, over all processes, each placed over a training pixel. Many small crops are better than a few
    large ones, because neighbouring labels say nearly the same."""
    crop: Positive = 16
    """Dense mode: side of a crop in pixels. The loss is taken at the labels that are ``model.map_radius`` or more from its edge."""
    batch: Positive = 64
    """Patch mode: patches per step, over all processes; a smaller last batch is used, not dropped."""
    learning_rate: Number = 2e-3
    """Peak learning rate of AdamW, reached by a linear warm-up; it then falls to zero along a cosine."""
    warmup: Share = 0.1
    """Share of the steps that the warm-up takes."""
    weight_decay: Size = 0.05
    """Weight decay of AdamW."""
    clip_gradient: Size = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    ema: Decay = 0.98
    """Decay of the moving average of the weights, which predicts; 0 switches it off."""
    label_smoothing: Annotated[Number, Field(ge=0, le=0.9)] = 0.1
    """Share of each label's weight that is spread evenly over all classes."""
    noise: Size = 0.05
    """Standard deviation of normal noise added to the raw bands (scaled to [-1, 1])."""
    guide_noise: Size = 0.0
    """The same for the diffusion features, whose mean variance is 1."""
    augment: Flag = True
    """Rotations by 90 degrees and flips of patch and features together."""
    lambda_entropy: Size = 0.1
    """Weight of the mutual-learning loss that aligns the entropies of the branches."""
    lambda_similarity: Size = 0.1
    """Weight of the mutual-learning loss that aligns the similarities of their features."""
    entropy: Literal["squared", "kl"] = "squared"
    """Alignment of entropy: ``squared`` difference (divided by log K) or ``kl`` (symmetric KL divergence)."""
    ramp: Share = 0.2
    """Both lambdas rise linearly from 0 over this share of the steps."""
    precision: Precision = "float32"
    """Arithmetic of the network's forward and backward: ``float32`` or ``bfloat16`` (autocast; weights, optimiser and
    losses stay float32)."""
    accumulate: Positive = 4
    """Parts in which a batch is worked through, one after the other: it takes less memory, and the gradient is the same except for
    that of the similarity loss, which compares within a part."""
    compile: Flag = False
    """Run the network through ``torch.compile``: it takes minutes at the start and pays off in long training."""
    patience: Count = 0
    """Stop when the accuracy on the split's validation part (``val_blocks``) has not risen for this many epochs, and keep
    the best weights; 0 trains for all epochs. Test pixels take no part."""
    checkpoint_every: Positive = 10
    """Epochs between two checkpoints."""


@dataclass
class PredictConfig:
    """Prediction of pixels and whole scenes."""

    __pydantic_config__ = FORBID

    block: Positive = 256
    """Side of a predicted block in pixels; bounds the memory."""
    batch: Positive = 256
    """Patch mode: patches per forward pass."""
    views: Literal[1, 8] = 1
    """Number of rotations and flips over which a prediction is averaged: 1 or 8."""
    precision: Precision = "float32"
    """Arithmetic of the network: ``float32`` or ``bfloat16`` (autocast; the features stay in float32)."""
    refine: Count = 0
    """Rounds in which the class probabilities of a pixel are averaged with those of nearby pixels whose bands are similar (3, for
    example); 0 for none. Speckle goes, and so do small objects whose bands resemble those around them."""
    calibrate: Flag = True
    """After the training, fit one temperature of the fused probabilities: on the split's validation part if there is one, else on
    squares of training labels that are left out in turn, with forests like the network's own (which takes seconds) or, if it has
    none, a network of one branch. The likeliest class of a pixel does not change; test pixels take no part."""
    priors: Priors = "train"
    """The class shares on which a map is based: ``train`` (those of the training labels, which are drawn per class), ``scene`` (the
    scene's own, estimated without labels from its probabilities; the average accuracy falls where classes are rare, and the
    estimate errs where classes look different from those in the training blocks) or shares by class name with sum 1, such as
    ``{water = 0.1, trees = 0.9}`` (a class left out has the share 0)."""


@dataclass
class Config:
    """A run's configuration: a table per section. ``seed`` is the default of every stage's seed argument."""

    __pydantic_config__ = FORBID

    seed: Annotated[Whole, Field(ge=0, le=SEEDS - 1)] = 0
    """Seed of the split, the weights and all noise."""
    data: DataConfig = field(default_factory=DataConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Config:
        """Build from nested dictionaries (TOML, JSON); missing keys keep their defaults. Raises ValueError."""
        try:
            config = _adapter().validate_python(values)
        except ValidationError as error:
            raise ValueError(sentence(error, cls)) from None
        config._check_together()
        return config

    def updated(self, values: dict[str, Any]) -> Config:
        """A copy with the values of nested dictionaries (a TOML file) in place of its own. Raises ValueError."""
        own = self.to_dict()
        for name, value in values.items():
            own[name] = {**own[name], **value} if isinstance(value, dict) and isinstance(own.get(name), dict) else value
        return Config.from_dict(own)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries, JSON- and TOML-able; ``from_dict`` restores an equal Config."""
        return dataclasses.asdict(self)

    def override(self, *assignments: str) -> Config:
        """A copy with ``"section.key=value"`` strings applied. Values are JSON (``true``, ``[1,2]``), ``1,2`` or bare words."""
        values: dict[str, Any] = {}
        for text in assignments:
            path, sign, raw = text.partition("=")
            if not sign:
                raise ValueError(f"override {text!r} has no '='; write section.key=value")
            try:
                value = json.loads(raw.strip())
            except ValueError:
                value = _bare(raw.strip())
            *sections, key = path.strip().split(".")
            if len(sections) > 1:
                raise ValueError(f"unknown key {path.strip()!r}; there are: none below {'.'.join(sections)}")
            (values.setdefault(sections[0], {}) if sections else values)[key] = value
        return self.updated(values)

    def check(self) -> Config:
        """Check every value again, after assignments; returns self. Raises ValueError naming the key."""
        Config.from_dict(self.to_dict())
        return self

    def _check_together(self) -> None:
        """What no single value shows."""
        pretrain, features, model = self.pretrain, self.features, self.model
        if pretrain.mask_low > pretrain.mask_high:
            raise ValueError(f"pretrain.mask_low is {pretrain.mask_low}, above pretrain.mask_high, which is {pretrain.mask_high}")
        bottom = 2 ** (len(pretrain.widths) - 1)
        if features.levels > len(pretrain.widths):
            raise ValueError(f"features.levels is {features.levels}, but pretrain.widths has {len(pretrain.widths)}")
        if features.tile % bottom:
            levels = len(pretrain.widths)
            raise ValueError(f"features.tile is {features.tile}; the U-Net of {levels} levels needs a multiple of {bottom}")
        for name in ("branches", "radii", "context", "guide_radii"):
            values = getattr(model, name)
            if len(set(values)) != len(values):
                raise ValueError(f"model.{name} is {values}; it takes different ones")
        for name in ("heads", "groups"):
            if model.width % getattr(model, name):
                raise ValueError(f"model.width {model.width} is not a multiple of model.{name} {getattr(model, name)}")
        if model.mode == "dense":
            self._check_dense()
        elif model.hide_rate:
            raise ValueError(f'model.hide_rate is {model.hide_rate}, which is for the dense network; set model.mode = "dense"')
        if max(features.timesteps) >= pretrain.timesteps:
            raise ValueError(f"features.timesteps {features.timesteps} reach past pretrain.timesteps {pretrain.timesteps}")

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
        that scene: its spectral image has 28 of the 31 bands, so the modalities are balanced, and its classes differ by texture,
        where statistics of the surroundings, and forests on them, mislead."""
        return cls().override(
            "pretrain.steps=300",
            "pretrain.evaluate_every=100",
            "pretrain.checkpoint_every=100",
            "pretrain.learning_rate=2e-3",
            "pretrain.ema=0.98",
            "model.balance=true",
            "model.statistics=false",
            "model.dropout=0.2",
            "train.epochs=24",
        )


def _bare(raw: str) -> Any:
    """An override's value that is not JSON: ``cnn,mamba`` is a list of words, ``16,32`` one of numbers, anything else a word."""
    if raw.startswith("{") or ("," not in raw and not raw.startswith("[")):
        return raw
    return [_number(part.strip()) for part in raw.strip("[]").split(",")]


def _number(word: str) -> Any:
    """A word as the number that it writes, or as it is."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return word


def schema() -> dict[str, Any]:
    """JSON schema of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_adapter().json_schema()}


@cache
def _adapter() -> TypeAdapter[Config]:
    return TypeAdapter(Config)
