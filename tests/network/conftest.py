import pytest
import torch
from method_scene import config, site  # noqa: F401  (fixtures)

from bdgf_fast.config import Config
from bdgf_fast.diffusion.denoiser import Denoiser


@pytest.fixture(scope="module")
def denoiser(site):  # noqa: F811
    torch.manual_seed(0)
    settings = Config().override("pretrain.widths=[8,12,16]")
    made = Denoiser.create(site.prepared.groups, site.prepared.modality_names, settings.pretrain)
    made.unet.eval().requires_grad_(False)
    return made
