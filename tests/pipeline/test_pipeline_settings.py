"""Where a command's configuration comes from: defaults, a preset, --config and --set, and its seed."""

import pytest

from bdgf_fast.cli import main
from bdgf_fast.cli.commands import settings
from bdgf_fast.cli.parser import parser
from bdgf_fast.config import Config
from bdgf_fast.errors import UserError


def chosen(*arguments, base=None):
    return settings(base or Config(), parser().parse_args(["run", "synthetic", "--out", "x", *map(str, arguments)]))


def test_a_file_comes_before_single_values_and_after_the_preset(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("\ufeffseed = 3\n[train]\nepochs = 4\nbatch = 16\n[features]\npath = 'maps.npy'\n", encoding="utf-8")
    config = chosen("--config", file, "--set", "train.batch=8", base=Config.demo())
    assert (config.train.epochs, config.train.batch, config.seed) == (4, 8, 3)
    assert config.model.dropout == Config.demo().model.dropout != Config().model.dropout
    assert config.features.path == [str(tmp_path / "maps.npy")]
    assert chosen("--config", file, "--seed", 5).seed == 5


def test_the_seed_is_said_once():
    assert chosen("--set", "seed=7").seed == chosen("--seed", 7).seed == chosen("--seed", 7, "--set", "seed=7").seed == 7
    assert chosen().seed == 0
    with pytest.raises(UserError, match=r"--set seed=7 and --seed 5 differ; give one of them"):
        chosen("--set", "seed=7", "--seed", 5)
    with pytest.raises(UserError, match="--seeds names the seeds"):
        chosen("--set", "seed=7", "--seeds", 1, 2)


@pytest.mark.parametrize("command", ["run", "pretrain", "study"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[train]\nepoch = 3", "--config: unknown key 'train.epoch' (did you mean 'epochs'?)"),
        ("[train", "mine.toml is not valid TOML"),
        ("[pretrain]\nmasking = none", "; text needs quotes"),
        (None, "mine.toml cannot be read: No such file"),
        ("train = 3", "--config: 'train' is a section"),
        ('name = "x"\n[[modality]]\nname = "x"\npath = "x.npy"\n', "mine.toml describes a scene; name it as SCENE"),
        ('dataset = "augsburg"\n', "mine.toml describes a scene; name it as SCENE"),
        (b"\x93NUMPY", "mine.toml is not a text file; name a TOML file of settings"),
        ("[train]\nepochs = 'many'", "train.epochs takes a whole number"),
    ],
)
def test_a_bad_file_is_one_sentence(command, text, said, tmp_path, capsys):
    file = tmp_path / "mine.toml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main([command, "synthetic", "--out", str(tmp_path / "out"), "--config", str(file)]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()
