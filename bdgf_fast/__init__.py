"""Balanced diffusion-guided fusion (BDGF) for multimodal land-cover classification, on fused kernels.

`bdgf_fast.ops` holds the single operations as drop-ins, `bdgf_fast.nn` thin modules over them, `bdgf_fast.reference` their
plain PyTorch definitions. `bdgf_fast.run`, `pretrain`, `train`, `evaluate`, `predict`, `study`, `compare` and `check` are the
commands of `bdgf-fast` as functions::

    import bdgf_fast as bf
    result = bf.run("scene.toml", out="runs/first", config={"train.epochs": 4}, seed=0)
    print(result.overall_accuracy, result.map_path)

The other packages and the functions are imported when they are first asked for; they need the packages of the extra
`app`, which `pip install '.[app]'` in the repository installs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import _vml, backends, ops, reference
from .backends import explain, use_backend
from .errors import UserError, missing_package

if TYPE_CHECKING:
    # fmt: off
    from . import baselines as baselines, compat as compat, config as config, data as data  # noqa: I001
    from . import diffusion as diffusion, features as features, network as network, nn as nn, report as report
    from .data.check import check as check
    from .pipeline.commands import compare as compare, distil as distil, evaluate as evaluate, predict as predict
    from .pipeline.commands import predict_scenes as predict_scenes, pretrain as pretrain, run as run, run_seeds as run_seeds
    from .pipeline.commands import train as train
    from .pipeline.transfer import transfer as transfer
    from .studies.commands import study as study
    from .studies.label_curve import label_curve as label_curve
    # fmt: on

_vml.settle()

__version__ = "0.1.0"
__all__ = ["UserError", "backends", "explain", "ops", "reference", "use_backend"]

_PACKAGES = ("baselines", "compat", "config", "data", "diffusion", "features", "network", "nn", "report")
_FUNCTIONS = {
    **dict.fromkeys(
        ("run", "run_seeds", "pretrain", "train", "evaluate", "predict", "predict_scenes", "distil", "compare"), "pipeline.commands"
    ),
    "study": "studies.commands",
    "label_curve": "studies.label_curve",
    "transfer": "pipeline.transfer",
    "check": "data.check",
}


def __getattr__(name: str) -> Any:
    """The other packages and the functions, imported when they are first asked for."""
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _FUNCTIONS:
        try:
            return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
        except ModuleNotFoundError as error:
            raise UserError(missing_package(error.name)) from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PACKAGES, *_FUNCTIONS})
