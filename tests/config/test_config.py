import pytest

from bdgf_fast.config import Config


def test_round_trip_and_defaults():
    config = Config()
    assert Config.from_dict(config.to_dict()) == config
    assert config.pretrain.steps == 2400 and config.features.timesteps == [10, 100, 300] and config.model.width == 64
    assert Config.demo().check().pretrain.steps < 1000


def test_override_converts_and_leaves_the_original():
    config = Config()
    other = config.override(
        "pretrain.steps=10",
        "train.learning_rate=1",
        "model.branches=cnn,mamba",
        "pretrain.augment=false",
        "features.timesteps=[5]",
        "seed=3",
        "model.guide_cnn=none",
    )
    assert other.pretrain.steps == 10 and other.train.learning_rate == 1.0 and other.model.branches == ["cnn", "mamba"]
    assert other.pretrain.augment is False and other.features.timesteps == [5] and other.seed == 3
    assert config == Config()
    assert (
        config.override("model.branches=[cnn]").model.branches
        == config.override("model.branches=cnn").model.branches
        == ["cnn"]
    )
    assert config.override("pretrain.widths=16,32,32").pretrain.widths == [16, 32, 32]


@pytest.mark.parametrize(
    "text, words",
    [
        ("pretrain.step=3", ["pretrain.step", "steps", "batch"]),
        ("pretran.steps=3", ["pretran", "pretrain", "features"]),
        ("epochs=3", ["unknown section or key 'epochs' (did you mean 'train.epochs'?)"]),
        ("epoch=3", ["(did you mean 'train.epochs'?)"]),
        ("batch=3", ["(did you mean 'pretrain.batch' or 'train.batch' or 'predict.batch'?)"]),
        ("model.epochs=3", ["unknown key 'model.epochs' (did you mean 'train.epochs'?)"]),
        ("pretrain.steps=x", ["pretrain.steps", "whole number"]),
        ("pretrain.steps=1.5", ["pretrain.steps", "whole number"]),
        ("pretrain.steps=true", ["pretrain.steps", "whole number"]),
        ("pretrain.augment=1", ["pretrain.augment", "true or false"]),
        ("pretrain.masking=loss", ["pretrain.masking", "adaptive"]),
        ("pretrain=3", ["pretrain", "section"]),
        ("pretrain.steps.x=3", ["pretrain.steps.x"]),
        ("pretrain.steps", ["="]),
        ("data.patch=5", ["data.patch", "7"]),
        ("model.branches=[]", ["model.branches"]),
        ("predict.priors={water: 0.1, trees: 0.9}", ['such as {"water": 0.1, "trees": 0.9}; got {water: 0.1, trees: 0.9}']),
        ("pretrain.widths=16,x,32", ["pretrain.widths", "whole number", "'x'"]),
        ("model.branches=cnn,cnn", ["model.branches"]),
        ("model.heads=5", ["model.heads", "64"]),
        ("features.timesteps=[1000]", ["features.timesteps", "1000"]),
        ("features.tile=30", ["features.tile", "4"]),
        ("features.levels=4", ["features.levels", "3"]),
    ],
)
def test_mistakes_are_named(text, words):
    with pytest.raises(ValueError) as caught:
        Config().override(text)
    for word in words:
        assert word in str(caught.value)
