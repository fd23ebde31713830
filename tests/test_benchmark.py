"""`bdgf-fast bench`: right results are timed, wrong ones are refused."""

import json

import pytest
import torch
import torch.nn.functional as F

from bdgf_fast import benchmark, ops
from bdgf_fast.benchmark import Case, bench
from bdgf_fast.cli import main
from bdgf_fast.errors import UserError

SMALL = (4, 2, 9, 8)


def small(ours=ops.cross_attention, backward=False):
    inputs = benchmark._normal(SMALL, SMALL, SMALL)
    return Case("cross_attention", SMALL, ours, inputs, "sdpa", F.scaled_dot_product_attention, backward)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_is_above_zero(seconds, capsys):
    assert main(["bench", "cross_attention", "--seconds", str(seconds)]) == 2
    assert "it takes a number above 0" in capsys.readouterr().err


def test_every_case_is_a_public_operation_that_can_be_told_from_another():
    cases = benchmark.cases()
    assert {case.op for case in cases} <= set(ops.__all__)
    assert len({(case.op, case.shape, case.backward) for case in cases}) == len(cases)


def test_rows_hold_both_times(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "cases", lambda: [small(), small(backward=True)])
    seen = []
    rows = bench(["cross_attention"], seconds=0.01, each=seen.append)
    assert seen == rows and [row.passes for row in rows] == ["forward", "forward and backward"]
    assert all(row.milliseconds > 0 and row.ratio == row.baseline_milliseconds / row.milliseconds for row in rows)
    assert main(["bench", "--seconds", "0.01", "--device", "cpu", "--json"]) == 0
    assert [row["op"] for row in json.loads(capsys.readouterr().out)] == ["cross_attention"] * 2
    assert main(["bench", "--seconds", "0.01", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "4 x 2 x 9 x 8" in lines[1] and "against sdpa" in lines[1]


@pytest.mark.parametrize("backward", [False, True])
def test_a_wrong_result_is_not_timed(backward, monkeypatch):
    def off(q, k, v):
        out = ops.cross_attention(q, k, v)
        return out if q.dtype is torch.float64 else out + 1e-2 * v.roll(1, 2) if backward else out + 1e-2

    monkeypatch.setattr(benchmark, "cases", lambda: [small(off, backward)])
    with pytest.raises(UserError, match="cross_attention differs from its definition"):
        bench(seconds=0.01)


def test_an_unknown_name_is_said(capsys):
    assert main(["bench", "nope"]) == 2
    out, err = capsys.readouterr()
    assert "there is no benchmark of 'nope'; there are: selective_scan" in err and out == ""
    assert main(["bench", "cross_atention"]) == 2
    assert "(did you mean 'cross_attention'?)" in capsys.readouterr().err
