"""Two processes over gloo train what one process trains, up to rounding."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bdgf_fast.common.ranks import group

PROGRAM = Path(__file__).with_name("ranks_program.py")


def run(world: int, folder: Path) -> list:
    out = folder / f"{world}.pt"
    commands = [[sys.executable, str(PROGRAM), str(rank), str(world), str(folder / "store"), str(out)] for rank in range(world)]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [p.returncode for p in processes] == [0] * world, "\n".join(errors)
    return torch.load(out)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_ranks_train_what_one_trains(tmp_path):
    one, two = run(1, tmp_path), run(2, tmp_path)
    for a, b in zip(one[:3], two[:3], strict=True):
        for name in a:
            # a key's bias changes no softmax: its gradient is rounding, which AdamW turns into steps
            if not a[name].is_floating_point():
                assert torch.equal(a[name], b[name])  # the forests' tables
                continue
            atol = torch.full_like(a[name], 1e-4)
            if name.endswith("key_value.bias"):
                atol[: len(atol) // 2] = 3e-4
            apart = (a[name] - b[name]).abs()
            beyond = apart > atol + 1e-3 * b[name].abs()
            # so is that of single weights behind an input that hardly varies
            assert beyond.float().mean() <= 1e-4 and apart.max() < 1e-3, name
    torch.testing.assert_close(torch.tensor(one[3]), torch.tensor(two[3]), rtol=1e-3, atol=1e-5)
    assert len(set(one[3][0])) > 1  # the rates moved
    for a, b in zip(one[4], two[4], strict=True):
        assert a == pytest.approx(b, rel=1e-3)


@pytest.mark.parametrize(("device", "backend"), [("cuda", "cpu:gloo,cuda:nccl"), ("cpu", "gloo")])
def test_a_group_of_gpus_reduces_tensors_of_the_cpu_too(device, backend, monkeypatch):
    asked = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, **_: asked.append(name))
    monkeypatch.setattr(torch.distributed, "barrier", lambda: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with group(torch.device(device)):
        pass
    assert asked == [backend]
