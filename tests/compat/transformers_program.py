"""transformers' Mamba on the stand-ins and on its own torch path, in an interpreter of its own.

Every name that the model takes from a stand-in is counted; the results are held against those of the model's own functions.
"""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import torch

from bdgf_fast import compat

assert compat.install(), "nothing to stand in for"
import causal_conv1d  # noqa: E402
import mamba_ssm.ops.selective_scan_interface as interface  # noqa: E402
import mamba_ssm.ops.triton.selective_state_update as update  # noqa: E402

calls = {}


def counted(module, name):
    import functools

    function = getattr(module, name)

    @functools.wraps(function)
    def call(*args, **kwargs):
        calls[name] = calls.get(name, 0) + 1
        return function(*args, **kwargs)

    setattr(module, name, call)


for owner, name in (
    (causal_conv1d, "causal_conv1d_fn"),
    (causal_conv1d, "causal_conv1d_update"),
    (interface, "mamba_inner_fn"),
    (interface, "selective_scan_fn"),
    (update, "selective_state_update"),
):
    counted(owner, name)
sys.modules["mamba_ssm"].mamba_inner_fn = interface.mamba_inner_fn
sys.modules["mamba_ssm"].selective_scan_fn = interface.selective_scan_fn

from transformers import MambaConfig, MambaForCausalLM  # noqa: E402
from transformers.models.mamba import modeling_mamba  # noqa: E402

# What transformers takes from elsewhere keeps its own function under __wrapped__ of the module's name.
FUNCTIONS = [
    "causal_conv1d_fn", "causal_conv1d_update", "mamba_inner_fn", "mamba_selective_scan", "mamba_selective_state_update",
]  # fmt: skip


def results(model, tokens, mask):
    """Logits, loss and gradients of training; logits and cache of a prompt; greedy decoding."""
    found = {}
    model.train()
    model.zero_grad()
    out = model(tokens, labels=tokens)
    out.loss.backward()
    found["loss"], found["training logits"] = out.loss, out.logits
    found |= {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters()}
    model.eval()
    with torch.no_grad():
        found["logits"] = model(tokens).logits
        found["masked logits"] = model(tokens, attention_mask=mask).logits
        generated = model.generate(
            tokens, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True, pad_token_id=0
        )
    found["decoding"] = torch.stack(generated.logits)
    found["tokens"] = generated.sequences
    return {name: value.detach() for name, value in found.items()}


torch.manual_seed(0)
config = MambaConfig(vocab_size=40, hidden_size=32, state_size=6, num_hidden_layers=2, eos_token_id=None, use_bias=True)
model = MambaForCausalLM(config)
with torch.no_grad():  # far enough from zero for the scan to matter
    for p in model.parameters():
        p.add_(0.1 * torch.randn_like(p))
tokens = torch.randint(1, 40, (2, 11))
mask = torch.ones_like(tokens)
mask[1, :4] = 0

fast = results(model, tokens, mask)
print(sorted(calls.items()))
missing = {"causal_conv1d_fn", "causal_conv1d_update", "mamba_inner_fn", "selective_scan_fn", "selective_state_update"} - set(calls)
assert not missing, f"never called: {missing}"

before = dict(calls)
for name in FUNCTIONS:
    setattr(modeling_mamba, name, getattr(modeling_mamba, name).__wrapped__)
slow = results(model, tokens, mask)
assert calls == before, "the second run was to take the model's own functions"

for name, value in slow.items():
    torch.testing.assert_close(
        fast[name], value, rtol=1e-3, atol=1e-5 * max(value.abs().max().item(), 1.0), msg=lambda m, n=name: f"{n}: {m}"
    )
print("agree on", len(slow), "results")
