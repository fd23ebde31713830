"""Noise schedulers with diffusers' interface, for code written for its DDPMScheduler and DDIMScheduler.

Tables and coefficients come from `Schedule`, in float64 before they are rounded; a step is one kernel. What these do not
offer (thresholding, learned variances, zero terminal SNR) is refused when the scheduler is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ops import _check as check
from ..ops import ddim_step, ddpm_step
from ..ops._noise import check_range
from .schedule import Schedule

_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
_VARIANCES = {"fixed_small": "fixed_small", "fixed_small_log": "fixed_small", "fixed_large": "fixed_large"}


class SchedulerConfig(dict):
    """The arguments of a scheduler, as a mapping and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the scheduler has no option {name}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"options are fixed; make a scheduler with another {name}")


class SchedulerOutput:
    """`prev_sample` and `pred_original_sample`, as attributes, by name or by position; the second is worked out when read."""

    def __init__(self, prev_sample: Tensor, pred_original_sample: Any) -> None:
        self.prev_sample, self._original = prev_sample, pred_original_sample

    @property
    def pred_original_sample(self) -> Tensor:
        if callable(self._original):
            self._original = self._original()
        return self._original

    def to_tuple(self) -> tuple[Tensor, Tensor]:
        return self.prev_sample, self.pred_original_sample

    def __getitem__(self, key: int | str) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key] if key else self.prev_sample

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.to_tuple())


class _Scheduler:
    order = 1
    init_noise_sigma = 1.0

    def _set_up(self, options: dict[str, Any], refused: Mapping[str, Any]) -> None:
        for name, neutral in refused.items():
            if check.flag(name, options[name]) != neutral:
                raise ValueError(f"{name} is {options[name]!r}; it takes {neutral!r} only")
        _one_of("prediction_type", options["prediction_type"], ("epsilon", "sample", "v_prediction"))
        _one_of("timestep_spacing", options["timestep_spacing"], ("leading", "trailing", "linspace"))
        steps, betas = options["num_train_timesteps"], options["trained_betas"]
        if betas is not None:
            self.schedule = Schedule.from_betas(torch.as_tensor(betas, dtype=torch.float64))
        else:
            name = _SCHEDULES[_one_of("beta_schedule", options["beta_schedule"], tuple(_SCHEDULES))]
            bounds = {} if name == "cosine" else {k: options[k] for k in ("beta_start", "beta_end")}
            self.schedule = Schedule.from_name(name, steps, **bounds)
        if len(self.schedule) != steps:
            raise ValueError(f"trained_betas has {len(self.schedule)} values; num_train_timesteps is {steps}")
        abar = self.schedule.alphas_cumprod
        alphas = abar / torch.cat([abar.new_ones(1), abar[:-1]])
        self.betas, self.alphas, self.alphas_cumprod = (1.0 - alphas).float(), alphas.float(), abar.float()
        self.config = SchedulerConfig(_class_name=type(self).__name__, **options)
        self.num_inference_steps: int | None = None
        self.custom_timesteps = False
        self.timesteps = torch.arange(steps - 1, -1, -1)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], **changes: Any) -> Any:
        """From another scheduler's config (ours or diffusers'); options that this one does not have are passed over."""
        known = list(inspect.signature(cls.__init__).parameters)[1:]
        return cls(**{name: value for name, value in {**config, **changes}.items() if name in known})

    def __len__(self) -> int:
        return len(self.schedule)

    def scale_model_input(self, sample: Tensor, timestep: int | Tensor | None = None) -> Tensor:
        """The sample as it is."""
        return sample

    def _spaced(self, count: int) -> Tensor:
        """numpy's sequences and its rounding, as in diffusers: other ways to the same numbers differ where they lie half way."""
        total, count = len(self.schedule), check.integer("num_inference_steps", count)
        if not 1 <= count <= total:
            raise ValueError(f"num_inference_steps is {count}; it takes 1 to {total}")
        spacing = self.config.timestep_spacing
        if spacing == "linspace":
            return _rounded(np.linspace(0, total - 1, count)[::-1])
        if spacing == "leading":
            return self.schedule.sampling_timesteps(count) + self.config.steps_offset
        return _rounded(np.arange(total, 0, -total / count)[:count]) - 1

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """sqrt(abar_t) x0 + sqrt(1 - abar_t) noise, timesteps (batch,) or one; coefficients and sum in float32."""
        level, rest = self._factors(original_samples, timesteps)
        return (level * original_samples + rest * noise).to(original_samples.dtype)

    def get_velocity(self, sample: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """The target of v-prediction: sqrt(abar_t) noise - sqrt(1 - abar_t) x0."""
        level, rest = self._factors(sample, timesteps)
        return (level * noise - rest * sample).to(sample.dtype)

    def _factors(self, like: Tensor, timesteps: Any) -> tuple[Tensor, Tensor]:
        """sqrt(abar) and sqrt(1 - abar), float32, one per sample, broadcasting against `like`."""
        schedule = self.schedule.to(like.device)
        t = torch.as_tensor(timesteps, device=like.device).reshape(-1)
        if t.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"timesteps is {t.dtype}; it takes whole numbers")
        check_range(t, len(self), "timesteps")
        shape = (-1, *[1] * (like.dim() - 1))
        return schedule.sqrt_alphas_cumprod[t].view(shape), schedule.sqrt_one_minus_alphas_cumprod[t].view(shape)

    def _original_sample(self, model_output: Tensor, t: Tensor | int, sample: Tensor) -> Tensor:
        """The x0 that a prediction means, clipped as the options say."""
        level, rest = self._factors(sample, t)
        kind, dtype = self.config.prediction_type, sample.dtype
        if kind == "epsilon":
            x0 = (sample - rest * model_output) / level
        else:
            x0 = model_output if kind == "sample" else level * sample - rest * model_output
        if self.config.clip_sample:
            x0 = x0.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        return x0.to(dtype)

    def _step(self, op, pred, t, sample, previous, kind, clip, noise, **options):
        t, previous = (x.to(sample.device) if isinstance(x, Tensor) else x for x in (t, previous))
        clip = clip and self.config.clip_sample
        # The kernels clip to [-1, 1]; a step is linear but for that, so another range is a matter of units.
        unit = self.config.clip_sample_range if clip else 1.0
        if unit != 1.0:
            pred, sample, noise = (None if x is None else x / unit for x in (pred, sample, noise))
        options |= {"prev_t": previous, "prediction_type": kind, "clip_sample": clip, "noise": noise}
        prev = op(pred, t, sample, self.schedule, **options)
        return prev if unit == 1.0 else prev * unit


class DDPMScheduler(_Scheduler):
    """diffusers' `DDPMScheduler` on the kernels of `bdgf_fast.ops.ddpm_step`; options, attributes and results are its."""

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | Tensor | None = None,
        variance_type: str = "fixed_small",
        clip_sample: bool = True,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        steps_offset: int = 0,
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        _one_of("variance_type", variance_type, tuple(_VARIANCES))
        self._set_up(options, {"thresholding": False, "rescale_betas_zero_snr": False})
        self.variance_type = variance_type

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """The falling timesteps to sample at: so many, spaced as the options say, or those given."""
        if (num_inference_steps is None) == (timesteps is None):
            raise ValueError("set_timesteps takes one of num_inference_steps and timesteps")
        if num_inference_steps is not None:
            chosen = self._spaced(num_inference_steps)
            self.num_inference_steps = num_inference_steps
        elif timesteps is not None:
            given = torch.as_tensor(timesteps)
            chosen = given.to(torch.int64)
            if not torch.equal(given, chosen.to(given.dtype)):
                raise ValueError(f"timesteps are {list(timesteps)}; they take whole numbers")
            if len(chosen) < 1 or (chosen[1:] >= chosen[:-1]).any() or chosen[0] >= len(self) or chosen[-1] < 0:
                raise ValueError(f"timesteps are {list(timesteps)}; they take falling numbers from {len(self) - 1} to 0")
        self.custom_timesteps = timesteps is not None
        self.timesteps = chosen.to(device)

    def previous_timestep(self, timestep: int | Tensor) -> int | Tensor:
        """The timestep that follows in sampling; -1 after the last."""
        if not self.custom_timesteps and self.num_inference_steps is None:
            return timestep - 1
        later = self.timesteps[self.timesteps < timestep]
        return later[0] if len(later) else -1

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        *,
        seed: int | Tensor | None = None,
        stream: int | Tensor = 0,
    ) -> SchedulerOutput | tuple[Tensor, Tensor]:
        """One step back, sample (batch, ...) of the model_output's shape.

        The noise is drawn from torch's generator as diffusers draws it; with `seed` (and `stream`, another one in each
        step) it is counter-based and drawn inside the kernel, see `bdgf_fast.ops.ddpm_step`.
        """
        noise = None
        if seed is None and timestep > 0:
            noise = _normals(sample, generator)
        prev = self._step(
            ddpm_step, model_output, timestep, sample, self.previous_timestep(timestep), self.config.prediction_type, True,
            noise, variance=_VARIANCES[self.variance_type], seed=seed, stream=stream,
        )  # fmt: skip
        out = SchedulerOutput(prev, lambda: self._original_sample(model_output, timestep, sample))
        return out if return_dict else out.to_tuple()


class DDIMScheduler(_Scheduler):
    """diffusers' `DDIMScheduler` on the kernels of `bdgf_fast.ops.ddim_step`; options, attributes and results are its."""

    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: Sequence[float] | Tensor | None = None,
        clip_sample: bool = True,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        clip_sample_range: float = 1.0,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        rescale_betas_zero_snr: bool = False,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self._set_up(options, {"thresholding": False, "rescale_betas_zero_snr": False})
        self.final_alpha_cumprod = torch.tensor(1.0) if set_alpha_to_one else self.alphas_cumprod[0]

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """The falling timesteps to sample at, spaced as the options say."""
        self.timesteps = self._spaced(num_inference_steps).to(device)
        self.num_inference_steps = num_inference_steps

    def step(
        self,
        model_output: Tensor,
        timestep: int | Tensor,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        variance_noise: Tensor | None = None,
        return_dict: bool = True,
        *,
        seed: int | Tensor | None = None,
        stream: int | Tensor = 0,
    ) -> SchedulerOutput | tuple[Tensor, Tensor]:
        """One step back, sample (batch, ...) of the model_output's shape. Noise, for eta above 0, as `DDPMScheduler.step`."""
        if self.num_inference_steps is None:
            raise ValueError("num_inference_steps is None; call set_timesteps first")
        previous = timestep - len(self) // self.num_inference_steps
        if not self.config.set_alpha_to_one:  # abar after the last step is that of timestep 0
            previous = torch.as_tensor(previous).clamp(min=0)
        if variance_noise is not None and generator is not None:
            raise ValueError("variance_noise is given with generator; give one of them")
        noise = variance_noise
        if eta > 0.0 and noise is None and seed is None:
            noise = _normals(sample, generator)
        pred, kind, clip = model_output, self.config.prediction_type, True
        if use_clipped_model_output:  # the noise that the clipped x0 means
            pred, kind, clip = self._original_sample(model_output, timestep, sample), "sample", False
        prev = self._step(
            ddim_step, pred, timestep, sample, previous, kind, clip, noise, eta=eta, seed=seed, stream=stream
        )
        out = SchedulerOutput(prev, lambda: self._original_sample(model_output, timestep, sample))
        return out if return_dict else out.to_tuple()


def _rounded(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.round(values).astype(np.int64))


def _one_of(name: str, value: str, options: Sequence[str]) -> str:
    if value not in options:
        raise ValueError(f"{name} is {value!r}; it takes one of {', '.join(options)}")
    return value


def _normals(like: Tensor, generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
    """Standard normals of the sample's shape from one generator, or one for each sample; drawn where the generator is."""
    if isinstance(generator, list):
        if len(generator) == 1:
            return _normals(like, generator[0])
        if len(generator) != like.shape[0]:
            raise ValueError(f"generator is a list of {len(generator)}; it takes one per sample, {like.shape[0]}")
        return torch.cat([_normals(like[i : i + 1], g) for i, g in enumerate(generator)])
    device = like.device if generator is None else generator.device
    return torch.randn(like.shape, generator=generator, device=device, dtype=like.dtype).to(like.device)
