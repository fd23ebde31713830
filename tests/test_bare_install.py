"""What torch, numpy and einops alone are enough for: operations, modules, stand-ins, schedulers and `bdgf-fast info`."""

import re
import subprocess
import sys
from pathlib import Path

CODE = """
import importlib.abc
import sys

MISSING = {"h5py", "jinja2", "matplotlib", "pydantic", "pyogrio", "rasterio", "rich", "safetensors", "scipy", "shapely", "sklearn"}


class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Refuse())
import bdgf_fast
import bdgf_fast.compat, bdgf_fast.nn
from bdgf_fast.cli import main
from bdgf_fast.diffusion import DDPMScheduler, Schedule

assert main(["info", "--json"]) == 0
assert main(["demo", "--out", "nowhere"]) == 2
try:
    bdgf_fast.run
except bdgf_fast.UserError as error:
    print(error)
"""


def test_bare_install(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"the package (\S+) is missing, which the application needs: pip install \1.*", said)
    assert "error: the package " in done.stderr and "Traceback" not in done.stderr


NO_TRITON = """
import importlib.util
import sys
from importlib.machinery import PathFinder


class OnlyTheFolder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, sys.path[:1]) if name == "triton" else None


sys.path.insert(0, sys.argv[1])
sys.meta_path.insert(0, OnlyTheFolder)
assert importlib.util.find_spec("triton")
import conftest

assert importlib.util.find_spec("triton") is None
"""


def test_without_triton_the_folder_of_its_tests_is_not_taken_for_it():
    done = subprocess.run([sys.executable, "-c", NO_TRITON, Path(__file__).parent], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
