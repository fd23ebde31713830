import pytest
import torch
from safetensors.torch import save_file

from bdgf_fast.common.optimisation import Optimisation, warm_cosine
from bdgf_fast.errors import UserError
from bdgf_fast.files import checkpoint as ckpt

TENSORS = {
    "a": torch.randn(3, 4),
    "b.c": torch.arange(5),
    "empty": torch.empty(0, 2),
    "scalar": torch.tensor(2.5),
    "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
}


def test_round_trip_leaves_no_other_file(tmp_path):
    path = tmp_path / "new" / "x.safetensors"
    ckpt.save(path, "train", TENSORS, {"step": 3, "x": [0.1, None]})
    ckpt.save(path, "train", TENSORS, {"step": 4, "x": [0.1, None]})
    tensors, meta = ckpt.load(path, "train")
    assert meta == {"step": 4, "x": [0.1, None]}
    assert tensors.keys() == TENSORS.keys() and all(torch.equal(tensors[k], v) for k, v in TENSORS.items())
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize(
    "damage", ["truncate", "truncate_header", "empty", "text", "flip", "foreign", "kind", "missing"]
)
def test_damage_is_one_clear_sentence(tmp_path, damage):
    path = tmp_path / "x.safetensors"
    ckpt.save(path, "train", TENSORS, {})
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[-9] ^= 1
    changes = {
        "truncate": data[:-10],
        "truncate_header": data[:20],
        "empty": b"",
        "text": b"not a checkpoint, but some text",
        "flip": bytes(flipped),
    }
    if damage in changes:
        path.write_bytes(changes[damage])
    elif damage == "foreign":
        save_file({"w": torch.zeros(2)}, str(path))
    elif damage == "missing":
        path.unlink()
    with pytest.raises(UserError) as caught:
        ckpt.load(path, "pretrain" if damage == "kind" else "train")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write the checkpoint"):
        ckpt.save(tmp_path / "file" / "x.safetensors", "train", TENSORS, {})


def test_require_same_run_names_the_value():
    with pytest.raises(UserError, match=r"config\.steps = 3, this run has 4"):
        ckpt.require_same_run("f", {"config": {"steps": 3}, "seed": 0}, {"config": {"steps": 4}, "seed": 0})
    ckpt.require_same_run("f", {"a": {"b": [1]}}, {"a": {"b": [1]}})


def test_optimiser_state_goes_on_exactly():
    def run(model, steps, optimisation):
        for step in steps:
            torch.manual_seed(step)
            optimisation.step(model(torch.randn(8, 3)).square().mean(), step)

    def new():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, Optimisation(model, 1e-2, 0.1, 0.1, 10, 0.9, 1.0)

    a, whole = new()
    run(a, range(10), whole)
    b, first = new()
    run(b, range(6), first)
    c, second = new()
    second.load(first.tensors())
    run(c, range(6, 10), second)
    assert all(torch.equal(x, second.tensors()[k]) for k, x in whole.tensors().items())
    assert not torch.equal(a.weight, b.weight)


def test_learning_rate():
    assert warm_cosine(0, 100, 0.1) == pytest.approx(0.1) and warm_cosine(9, 100, 0.1) == 1.0
    assert warm_cosine(55, 100, 0.1) == pytest.approx(0.5) and 0 < warm_cosine(99, 100, 0.1) < 0.001
