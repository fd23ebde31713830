"""install and uninstall, and the runner: what becomes importable when, and what is left behind."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bdgf_fast import compat
from bdgf_fast.compat import stand_in
from bdgf_fast.nn import Mamba

NAMES = {
    "mamba_ssm": ["Mamba", "bimamba_inner_fn", "mamba_inner_fn", "selective_scan_fn"],
    "mamba_ssm.models.config_mamba": ["MambaConfig"],
    "mamba_ssm.models.mixer_seq_simple": ["MixerModel", "_init_weights", "create_block"],
    "mamba_ssm.modules.block": ["Block"],
    "mamba_ssm.modules.mamba_simple": ["Block", "Mamba"],
    "mamba_ssm.modules.mlp": ["GatedMLP"],
    "mamba_ssm.ops.selective_scan_interface": [
        "bimamba_inner_fn", "mamba_inner_fn", "mamba_inner_fn_no_out_proj", "selective_scan_fn", "selective_scan_ref",
        "MambaInnerFn", "MambaInnerFnNoOutProj", "BiMambaInnerFn", "SelectiveScanFn",
    ],
    "mamba_ssm.utils.generation": ["GenerationMixin", "InferenceParams"],
    "mamba_ssm.utils.hf": ["load_config_hf", "load_state_dict_hf"],
    "mamba_ssm.utils.torch": ["custom_bwd", "custom_fwd"],
    "mamba_ssm.ops.triton.selective_state_update": ["selective_state_update"],
    "mamba_ssm.ops.triton.layer_norm": ["RMSNorm", "layer_norm_fn", "rms_norm_fn"],
    "mamba_ssm.ops.triton.layernorm": ["RMSNorm", "layer_norm_fn", "rms_norm_fn"],
    "causal_conv1d": ["causal_conv1d_fn", "causal_conv1d_update"],
    "causal_conv1d.causal_conv1d_interface": ["CausalConv1dFn", "causal_conv1d_fn", "causal_conv1d_update"],
    "causal_conv1d.cpp_functions": [
        "causal_conv1d_bwd_function", "causal_conv1d_fwd_function", "causal_conv1d_update_function",
    ],
    "causal_conv1d_cuda": ["causal_conv1d_bwd", "causal_conv1d_fwd", "causal_conv1d_update"],
    "selective_scan_cuda": ["fwd", "bwd"],
    "selective_scan_cuda_nrow": ["fwd", "bwd"],
    "selective_scan_cuda_oflex": ["fwd", "bwd"],
    "selective_scan_cuda_core": ["fwd", "bwd"],
}  # fmt: skip
# Argument names in order, as the published packages have them.
SIGNATURES = {
    "mamba_ssm.ops.selective_scan_interface.selective_scan_fn": "u delta A B C D z delta_bias delta_softplus return_last_state",
    "mamba_ssm.ops.selective_scan_interface.selective_scan_ref": "u delta A B C D z delta_bias delta_softplus return_last_state",
    "mamba_ssm.ops.selective_scan_interface.mamba_inner_fn": "xz conv1d_weight conv1d_bias x_proj_weight delta_proj_weight "
    "out_proj_weight out_proj_bias A B C D delta_bias B_proj_bias C_proj_bias delta_softplus checkpoint_lvl b_rms_weight "
    "c_rms_weight dt_rms_weight b_c_dt_rms_eps",
    "mamba_ssm.ops.selective_scan_interface.mamba_inner_fn_no_out_proj": "xz conv1d_weight conv1d_bias x_proj_weight "
    "delta_proj_weight A B C D delta_bias B_proj_bias C_proj_bias delta_softplus checkpoint_lvl b_rms_weight c_rms_weight "
    "dt_rms_weight b_c_dt_rms_eps",
    "mamba_ssm.ops.selective_scan_interface.bimamba_inner_fn": "xz conv1d_weight conv1d_bias x_proj_weight delta_proj_weight "
    "out_proj_weight out_proj_bias A A_b B C D delta_bias B_proj_bias C_proj_bias delta_softplus checkpoint_lvl",
    "selective_scan_cuda.fwd": "u delta A B C D z delta_bias delta_softplus",
    "selective_scan_cuda.bwd": "u delta A B C D z delta_bias dout x out dz delta_softplus recompute_out_z",
    "mamba_ssm.ops.triton.selective_state_update.selective_state_update": "state x dt A B C D z dt_bias dt_softplus "
    "state_batch_indices",
    "mamba_ssm.ops.triton.layer_norm.layer_norm_fn": "x weight bias residual x1 weight1 bias1 eps dropout_p rowscale prenorm "
    "residual_in_fp32 is_rms_norm return_dropout_mask",
    "mamba_ssm.ops.triton.layer_norm.rms_norm_fn": "x weight bias residual x1 weight1 bias1 eps dropout_p rowscale prenorm "
    "residual_in_fp32 return_dropout_mask",
    "causal_conv1d.causal_conv1d_fn": "x weight bias seq_idx initial_states return_final_states final_states_out activation",
    "causal_conv1d.causal_conv1d_update": "x conv_state weight bias activation cache_seqlens conv_state_indices",
    "selective_scan_cuda_oflex.fwd": "u delta A B C D delta_bias delta_softplus nrows out_float",
    "selective_scan_cuda_core.fwd": "u delta A B C D delta_bias delta_softplus nrows",
    "selective_scan_cuda_core.bwd": "u delta A B C D delta_bias dout x delta_softplus nrows",
}


@pytest.fixture(autouse=True)
def clean():
    for name in stand_in.NAMES:
        if stand_in._really_installed(name):
            pytest.skip(f"{name} is installed here")
    path, device = list(sys.path), torch.cuda.device
    yield
    compat.uninstall()
    assert sys.path == path and torch.cuda.device is device
    assert not any(name in sys.modules for name in NAMES)


def importable(name):
    return importlib.util.find_spec(name) is not None


def test_nothing_before_install():
    assert not any(importable(name) for name in stand_in.NAMES)


def test_install_and_uninstall():
    assert compat.install() == list(stand_in.NAMES)
    path = list(sys.path)
    assert compat.install() == list(stand_in.NAMES) and sys.path == path
    for name, members in NAMES.items():
        module = importlib.import_module(name)
        assert module.__spec__.name == name and importlib.util.find_spec(name) is module.__spec__
        assert all(callable(getattr(module, member)) for member in members)
        assert isinstance(module.__version__ if name in stand_in.NAMES else "", str)
    for name, arguments in SIGNATURES.items():
        module, _, member = name.rpartition(".")
        assert list(inspect.signature(getattr(sys.modules[module], member)).parameters) == arguments.split(), name
    import mamba_ssm

    assert mamba_ssm.Mamba is compat.Mamba and issubclass(compat.Mamba, Mamba)
    assert mamba_ssm.ops.triton.selective_state_update.selective_state_update is compat.selective_state_update
    with pytest.raises(ImportError, match="Mamba2"):
        from mamba_ssm import Mamba2  # noqa: F401
    compat.uninstall()
    assert not any(importable(name) for name in stand_in.NAMES)
    compat.uninstall()


def real_package(folder, monkeypatch):
    (folder / "causal_conv1d").mkdir()
    (folder / "causal_conv1d" / "__init__.py").write_text("__version__ = 'real'\n")
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module("causal_conv1d")


def test_a_real_package_wins(tmp_path, monkeypatch, caplog):
    real = real_package(tmp_path, monkeypatch)
    with caplog.at_level(logging.INFO, "bdgf_fast.compat"):
        assert compat.install() == [name for name in stand_in.NAMES if name != "causal_conv1d"]
    assert "causal_conv1d is installed and stays" in caplog.text
    assert importlib.import_module("causal_conv1d") is real
    assert importlib.import_module("mamba_ssm").Mamba is compat.Mamba
    compat.uninstall()
    assert sys.modules.pop("causal_conv1d") is real


def test_force_stands_in_for_a_real_package(tmp_path, monkeypatch):
    real = real_package(tmp_path, monkeypatch)
    compat.install()
    assert compat.install(force=True) == list(stand_in.NAMES)
    assert importlib.import_module("causal_conv1d").causal_conv1d_fn is compat.causal_conv1d_fn
    compat.uninstall()
    assert importlib.import_module("causal_conv1d") is real
    del sys.modules["causal_conv1d"]


def test_devices_of_the_host(caplog):
    x = torch.zeros(1)
    original = torch.cuda.device
    with pytest.raises(ValueError), torch.cuda.device(x.device):
        pass
    compat.install()
    assert torch.cuda.device is original
    with caplog.at_level(logging.INFO, "bdgf_fast.compat"):
        compat.install(host_devices=True)
    assert "torch.cuda.device does nothing for CPU tensors" in caplog.text
    entered = 0
    for device in (x.device, "cpu", *([] if torch.cuda.is_available() else [x.device.index])):
        with torch.cuda.device(device):
            entered += 1
    assert entered >= 2
    assert isinstance(torch.cuda.device("cpu"), original)
    with pytest.raises(KeyError), torch.cuda.device("cpu"):
        raise KeyError
    with pytest.raises((ValueError, RuntimeError)):
        torch.cuda.device("meta")
    compat.uninstall()
    assert torch.cuda.device is original


SCRIPT = """
import multiprocessing, os, sys
import torch
from mamba_ssm import Mamba

def length(n):
    return Mamba(4)(torch.zeros(1, n, 4)).shape[1]

if __name__ == "__main__":
    print(sys.argv, os.path.basename(__file__))
    with torch.cuda.device(torch.zeros(1).device):
        print("entered")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print("child", pool.map(length, [3]))
"""


RUNNERS = [("-m", "bdgf_fast.compat"), ("-m", "bdgf_fast", "compat")]


@pytest.mark.parametrize("runner", RUNNERS, ids=" ".join)
def test_runner(runner, run_python, tmp_path):
    """An unmodified script, its arguments, and its worker processes, which import it anew."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = run_python(*runner, "script.py", "--force", "7")
    assert done.stdout.splitlines() == ["['script.py', '--force', '7'] script.py", "entered", "child [3]"]
    assert "stand-ins on bdgf_fast's operations: mamba_ssm" in done.stderr
    assert "torch.cuda.device does nothing for CPU tensors" in done.stderr


@pytest.mark.parametrize("runner", RUNNERS, ids=" ".join)
def test_runner_of_a_module(runner, run_python, tmp_path):
    (tmp_path / "some.json").write_text("[1]")
    done = run_python(*runner, "-m", "json.tool", "--compact", "some.json")
    assert done.stdout.strip() == "[1]"


@pytest.mark.parametrize("runner", RUNNERS, ids=" ".join)
def test_runner_without_script(runner, run_python):
    done = run_python(*runner, "missing.py", ok=False)
    assert done.returncode == 2 and "SCRIPT missing.py does not exist; name a Python file" in done.stderr


@pytest.mark.parametrize(
    "line, said",
    [
        ("from mamba_ssm import Mamba2", "ImportError: cannot import name 'Mamba2'"),
        ("import mamba_ssm; mamba_ssm.Mamba2", "has no attribute 'Mamba2'"),
        ("from mamba_ssm.modules.mamba2 import Mamba2", "No module named 'mamba_ssm.modules.mamba2'"),
        ("from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel", "cannot import name 'MambaLMHeadModel'"),
        ("from causal_conv1d import nothing", "cannot import name 'nothing'"),
        ("import no_such_package", "No module named 'no_such_package'"),
    ],
)
def test_what_a_stand_in_lacks_is_said(line, said, run_python, tmp_path):
    (tmp_path / "script.py").write_text(line)
    done = run_python("-m", "bdgf_fast", "compat", "--force", "script.py", ok=False)
    *_, error, note = done.stderr.strip().splitlines()
    package = next((name for name in ("mamba_ssm", "causal_conv1d") if name in line), None)
    if package is None:
        assert said in note
    else:
        assert said in error and note.startswith(f"{package} is bdgf_fast's stand-in here")
        assert note.endswith(f"; what it lacks needs {package} itself") and ("Mamba-2" in note) == (package == "mamba_ssm")


def test_a_script_that_fails_fails_as_under_python(run_python, tmp_path):
    (tmp_path / "script.py").write_text("import sys\nif sys.argv[1] == 'exit':\n    sys.exit(7)\nraise ValueError('mine')\n")
    done = run_python("-m", "bdgf_fast", "compat", "script.py", "exit", ok=False)
    assert done.returncode == 7
    done = run_python("-m", "bdgf_fast", "compat", "script.py", "raise", ok=False)
    assert done.returncode == 1 and "Traceback" in done.stderr and done.stderr.endswith("ValueError: mine\n")


def test_the_command_in_a_folder_of_sources(tmp_path):
    """In a clone the folder bdgf_fast has no kernels: the installed command does not look there."""
    command = Path(sys.executable).parent / "bdgf-fast"
    if not command.exists():
        pytest.skip("bdgf-fast is not installed beside this Python")
    (tmp_path / "bdgf_fast").mkdir()
    (tmp_path / "bdgf_fast/__init__.py").write_text("raise RuntimeError('the sources')\n")
    (tmp_path / "script.py").write_text("import mamba_ssm, bdgf_fast\nprint(bdgf_fast.__file__)\n")
    (tmp_path / "below").mkdir()
    for arguments in (("below/script.py",), ("-m", "below.script")):
        shutil.copy(tmp_path / "script.py", tmp_path / "below/script.py")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}  # as a person runs it
        done = subprocess.run([command, "compat", *arguments], cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert done.returncode == 0 and str(tmp_path) not in done.stdout, done.stderr


@pytest.mark.parametrize("way", ["script", "module", "hook"])
def test_the_traceback_of_a_failing_script_begins_with_the_script(run_python, tmp_path, way, monkeypatch):
    monkeypatch.delenv("PYTHONSAFEPATH")  # with which no module of the current folder is found
    hook = "import sys\nown = sys.excepthook\nsys.excepthook = lambda *found: own(*found)\n" if way == "hook" else ""
    (tmp_path / "failing.py").write_text(f"{hook}def inner():\n    raise KeyError('mine')\ntry:\n    inner()\n"
                                         "except KeyError as error:\n    raise ValueError('ours') from error\n")  # fmt: skip
    done = run_python("-m", "bdgf_fast.compat", *(("-m", "failing") if way == "module" else (tmp_path / "failing.py",)), ok=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("  File ")]
    assert done.returncode == 1 and "KeyError: 'mine'" in done.stderr and done.stderr.endswith("ValueError: ours\n")
    assert len(lines) == 3 and all("failing.py" in line for line in lines), done.stderr


def test_what_python_cannot_start_has_no_traceback_of_ours(run_python, tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n")
    done = run_python("-m", "bdgf_fast.compat", tmp_path / "broken.py", ok=False)
    assert done.returncode == 1 and "SyntaxError" in done.stderr and done.stderr.count("  File ") == 1
    done = run_python("-m", "bdgf_fast.compat", "-m", "no_such_module", ok=False)
    assert done.returncode == 1 and done.stderr.endswith("ImportError: No module named no_such_module\n")
    assert "  File " not in done.stderr
