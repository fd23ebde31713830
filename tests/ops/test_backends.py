"""The choice of a backend: order, limits, force, and what explain() says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from bdgf_fast import backends, ops

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registry(monkeypatch):
    """An operation of its own, with a reference; calls are recorded."""
    monkeypatch.setattr(backends, "_registry", {})
    monkeypatch.setattr(backends, "_plain", {})
    monkeypatch.setattr(backends, "_missing", {})
    backends.register_plain("op", "reference", lambda: None)


def choose(**facts):
    return backends.choose("op", facts.pop("device_type", "cpu"), facts.pop("dtype", torch.float32), **facts)


def nothing(*_):
    return None


def test_the_reference_when_there_is_nothing_else(registry):
    assert choose() == ("reference", "op has no kernel for cpu tensors")


def test_kernels_in_the_order_of_the_device(registry):
    for name in ("triton", "cpu", "cuda"):
        backends.register("op", name, forward=nothing, backward=nothing)
    assert choose()[0] == "cpu"
    assert choose(device_type="cuda")[0] == "cuda"
    assert choose(device_type="xpu")[0] == "reference"


def test_a_kernel_that_cannot_take_the_call_is_passed_over(registry):
    def supports(facts):
        return "N above 256" if facts.get("state", 0) > 256 else None

    backends.register("op", "cuda", forward=nothing, backward=nothing, supports=supports)
    backends.register("op", "triton", forward=nothing, backward=nothing)
    assert choose(device_type="cuda", state=256)[0] == "cuda"
    name, why = choose(device_type="cuda", state=300)
    assert name == "triton" and "not cuda: N above 256" in why
    with backends.use_backend("cuda"), pytest.raises(ValueError, match="op cannot run on the forced .* N above 256"):
        choose(device_type="cuda", state=300)


def test_a_measurement_puts_a_kernel_first(registry, monkeypatch):
    for name in ("cuda", "triton"):
        backends.register("op", name, forward=nothing, backward=nothing)
    row = backends.Choice("op", "sm_90", {"length": [0, 64]}, "triton", "bench/results/h100.json")
    monkeypatch.setattr(backends, "choices", (row, backends.Choice("op", "any", {}, "cuda", "not measured")))
    monkeypatch.setattr(backends, "_architecture", lambda: "sm_90")
    assert choose(device_type="cuda", length=64) == ("triton", "first for sm_90 in dispatch.toml, bench/results/h100.json")
    assert choose(device_type="cuda", length=65) == ("cuda", "first for any in dispatch.toml, not measured")
    assert choose(device_type="cuda")[0] == "cuda"
    monkeypatch.setattr(backends, "_architecture", lambda: "sm_120")
    assert choose(device_type="cuda", length=64)[0] == "cuda"


def test_the_table_of_choices_is_complete():
    for row in backends.choices:
        assert row.operation in backends.operations() and row.first in ("cuda", "triton")
        assert row.evidence == "not measured" or (ROOT / row.evidence).exists()
    for op, kernels in backends._registry.items():
        rows = [row for row in backends.choices if row.operation == op]
        if "cuda" in kernels:
            assert rows and rows[-1].architecture == "any" and not rows[-1].shapes, op


def test_a_preference_gives_way_to_force(registry):
    backends.register("op", "cpu", forward=nothing, backward=nothing, prefers=lambda facts: "torch is faster here")
    backends.register_plain("op", "torch", nothing)
    assert choose() == ("torch", "not cpu: torch is faster here; the first kernel that takes the call")
    with backends.use_backend("cpu"):
        assert choose() == ("cpu", "forced")


def test_a_kernel_without_backward(registry):
    backends.register("op", "cpu", forward=nothing)
    assert choose(needs_grad=False)[0] == "cpu"
    name, why = choose(needs_grad=True)
    assert name == "reference" and "no backward" in why


def test_a_forced_backend_without_a_kernel_runs_the_reference(registry):
    backends.register("op", "cpu", forward=nothing, backward=nothing)
    with backends.use_backend("triton"):
        assert choose() == ("reference", "triton is forced, but op has no triton kernel")


def test_a_forced_backend_of_another_device_raises(registry):
    backends.register("op", "cuda", forward=nothing, backward=nothing)
    with backends.use_backend("cuda"), pytest.raises(ValueError, match="the tensors are on cpu"):
        choose()


def test_a_missing_extension_is_named(registry, monkeypatch):
    monkeypatch.setitem(backends._missing, "cpu", "the extension is not built: pip install .")
    backends.register("op", "cpu", forward=nothing, backward=nothing)
    name, why = choose()
    assert name == "reference" and "pip install" in why
    assert backends.available("op") == ("reference",)
    with backends.use_backend("cpu"), pytest.raises(ValueError, match="pip install"):
        choose()


def test_a_missing_extension_is_told_once(monkeypatch):
    def missing():
        raise ImportError("no compiled extension: run `pip install .`")

    monkeypatch.setattr(backends, "_missing", {})
    monkeypatch.setattr("bdgf_fast._native.load", missing)
    with pytest.warns(RuntimeWarning, match="without its compiled kernels: no .* `pip install"):
        backends.probe()
    assert backends.choose("selective_scan", "cpu", torch.float32)[0] == "reference"
    assert "pip install" in backends.explain("causal_conv1d")
    with backends.use_backend("reference"), warnings.catch_warnings():
        warnings.simplefilter("error")
        backends.probe()


def test_force_nests_and_ends():
    before = backends.forced()
    with backends.use_backend("reference"):
        with backends.use_backend("torch"):
            assert backends.forced() == "torch"
            with backends.use_backend(None):
                assert backends.forced() is None
        assert backends.forced() == "reference"
        with pytest.raises(RuntimeError), backends.use_backend("cpu"):
            raise RuntimeError
        assert backends.forced() == "reference"
    assert backends.forced() == before


def test_an_unknown_backend():
    with (
        pytest.raises(ValueError, match="'gpu'; it takes one of cuda, triton, cpu, torch, reference"),
        backends.use_backend("gpu"),
    ):
        pass


@pytest.mark.parametrize(
    ("value", "expected"),
    [("reference", "reference forced"), ("", "None"), ("fast", "BDGF_BACKEND is 'fast'; it takes")],
)
def test_the_environment_variable(value, expected):
    code = (
        "import torch, bdgf_fast.ops; from bdgf_fast import backends as b; "
        "print(b.forced(), b.choose('cross_attention', 'cpu', torch.float32)[1]); "
        "exec('with b.use_backend(None): assert b.forced() is None')"
    )
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "BDGF_BACKEND": value}, capture_output=True, text=True)
    assert expected in run.stdout + run.stderr


def test_explain_has_a_line_for_every_operation():
    lines, _, choices = backends.explain().partition("CUDA or Triton on a GPU")
    assert "q_sample: cuda first on any, all shapes (not measured)" in choices or "bench/results" in choices
    lines = lines.splitlines()
    assert re.split(r"\s{2,}", lines[0]) == ["operation", "device", "runs on", "has kernels for", "why"]
    named = {line.split()[0] for line in lines[1:]}
    public = {name for name in ops.__all__ if name not in ("ddim_step", "ddpm_step")} | {"diffusion_step"}
    assert named == public == set(backends.operations())
    told = backends.explain("group_channel_attention", dtype=torch.float16, group_size=10**6)
    assert told.splitlines()[1].startswith("group_channel_attention")
    with backends.use_backend("reference"):
        row = backends.explain("selective_scan").splitlines()[1].split()
    assert row[:3] == ["selective_scan", "cpu", "reference"] and row[-1] == "forced"
    with pytest.raises(ValueError, match="op is 'scan'; it takes one of box_statistics, causal_conv1d"):
        backends.explain("scan")
