"""Instructions an element of the CPU kernels stay within 5 % of their budget (bench/count.py says how they are counted)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from bdgf_fast import _native

SOURCE = Path(__file__).parents[2] / "bench" / "count.py"
spec = importlib.util.spec_from_file_location("count", SOURCE)
assert spec and spec.loader
count = importlib.util.module_from_spec(spec)
spec.loader.exec_module(count)


@pytest.mark.slow
def test_no_kernel_takes_more_instructions_than_its_budget():
    if count.obstacle():
        pytest.skip(count.obstacle())
    if not _native.available() or "avx2" not in _native.load().cpu_isas():
        pytest.skip("the AVX2 level is not there")
    budget = json.loads(count.BUDGET.read_text())
    family = budget["compiler"].split(".")[0]
    if count.compiler().split(".")[0] != family:
        pytest.skip(f"the budget is for {family}; this extension was compiled by {count.compiler()}")
    found = count.count()
    assert found.keys() == budget["instructions"].keys()
    assert not count.too_many(found, budget["instructions"])


def test_a_kernel_above_its_budget_is_named():
    budget = {"a": 10.0, "b": 10.0}
    assert count.too_many({"a": 10.4, "b": 9.0}, budget) == []
    assert count.too_many({"a": 10.6, "b": 9.0}, budget) == ["a: 10.60 instructions an element; the budget is 10.00"]
    assert "no budget" in count.too_many({"c": 1.0}, budget)[0]


def test_dumps_are_summed_over_the_extension_alone(tmp_path):
    """What a called function cost is part of that function's own lines."""
    dump = tmp_path / "dump.1"
    dump.write_text(
        "desc: Trigger: Client Request: scan forward\nevents: Ir\n"
        "ob=/lib/libtorch.so\nfn=at::empty\n10 500\ncob=/x/bdgf_fast/_C.cpython-311.so\ncfn=scan\ncalls=1 20\n10 70\n"
        "ob=/x/bdgf_fast/_C.cpython-311.so\nfn=scan\n20 40\n21 30\ncfn=inner\ncalls=2 5\n21 7\n\ntotals: 577\n"
    )
    assert count.instructions(dump) == ("scan forward", 70)


def test_a_missing_valgrind_is_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(count.shutil, "which", lambda name: None)
    monkeypatch.setattr(count.sys, "argv", ["count.py"])
    assert count.main() == 1
    assert "valgrind" in capsys.readouterr().err
