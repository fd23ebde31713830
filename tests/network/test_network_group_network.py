import pytest
import torch

from bdgf_fast.backends import use_backend
from bdgf_fast.network.group_network import GroupNetwork
from bdgf_fast.network.losses import group_loss

ALL = ["fusion", "gate", "channel_attention", "cross_attention", "none"]


def make(config, guides=(8,), groups=(4,), **changes) -> GroupNetwork:
    config = config.override(*(f"model.{k}={v}" for k, v in changes.items()))
    torch.manual_seed(0)
    return GroupNetwork(groups, guides, 3, config.model)


def inputs(n=5, size=7, guides=(8,)):
    torch.manual_seed(1)
    return torch.randn(n, 4, size, size), [torch.randn(n, c, size, size) for c in guides], torch.arange(n) % 3


@pytest.mark.parametrize("guide", ALL)
def test_every_branch_takes_every_guidance_and_gradients_flow(config, guide):
    net = make(config, guide_cnn=guide, guide_mamba=guide, guide_transformer=guide)
    x, guides, y = inputs()
    guides[0].requires_grad_()
    out = net(x, guides)
    losses = [group_loss(part.logits, part.features, part.log_fused, y, config.train, 1.0)[0] for part in out.parts()]
    torch.stack(losses).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert (guide == "none") == (guides[0].grad is None)


@pytest.mark.parametrize("size", [7, 8, 11, 16])
@pytest.mark.parametrize("guides", [(8,), (8, 6), (8, 6, 4)])
def test_sizes_and_levels(config, size, guides):
    if size > 11 and guides != (8,):
        pytest.skip("one level suffices for the largest size")
    out = make(config, guides)(*inputs(2, size, guides)[:2])
    assert all(z.shape == (2, 3) for z in out.logits) and out.log_fused.exp().sum(1).allclose(torch.ones(2))


@pytest.mark.parametrize("branches", [["cnn"], ["mamba"], ["transformer"], ["transformer", "cnn"]])
def test_fewer_branches(config, branches):
    config.model.branches = branches
    x, guides, y = inputs()
    out = make(config, twins="false")(x, guides)
    assert len(out.logits) == len(branches)
    loss, parts = group_loss(out.logits, out.features, out.log_fused, y, config.train, 1.0)
    assert ("similarity" in parts) == (len(branches) > 1) and loss.isfinite()


@torch.no_grad()
def test_balance_gives_every_modality_the_same_variance(config):
    x, guides, _ = inputs()
    balanced = make(config, groups=(3, 1), balance="true").double().eval()
    plain = make(config, groups=(3, 1)).double().eval()
    factor = balanced.scale.flatten()
    assert factor[:3].unique().numel() == 1 and factor[:3].square().sum().allclose(factor[3:].square().sum())
    assert factor.square().sum().allclose(torch.tensor(4.0, dtype=torch.float64))
    x, guides = x.double(), [g.double() for g in guides]
    with use_backend("reference"):
        wanted = balanced(x, guides).log_fused
        assert not plain(x, guides).log_fused.allclose(wanted)
        for branch in plain.branches:  # the same weights otherwise, since both were made from one seed
            branch.stem.weight.mul_(factor.view(1, -1, 1, 1))
        assert plain(x, guides).log_fused.allclose(wanted)


@pytest.mark.parametrize("fusion", ["mean", "logits", "learned"])
def test_a_sample_does_not_depend_on_its_batch(config, fusion):
    net = make(config, fusion=fusion, guide_mamba="channel_attention").double().eval()
    x, guides, _ = inputs()
    x, guides = x.double(), [g.double() for g in guides]
    with use_backend("reference"):
        whole = net(x, guides).log_fused
        alone = torch.cat([net(x[i : i + 1], [g[i : i + 1] for g in guides]).log_fused for i in range(5)])
    torch.testing.assert_close(whole, alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("directions", [1, 2, 4])
def test_directions(config, directions):
    net = make(config, directions=directions, branches="mamba")
    x, guides, _ = inputs()
    assert net(x, guides).logits[0].isfinite().all()


def test_the_mean_is_of_probabilities(config):
    net = make(config, twins="false")
    x, guides, _ = inputs()
    out = net(x, guides)
    torch.testing.assert_close(out.log_fused.exp(), torch.stack([z.softmax(1) for z in out.logits]).mean(0))


@pytest.mark.parametrize("backend", ["cpu", "triton"])
@pytest.mark.parametrize("guide_mamba", ["gate", "channel_attention"])
def test_steps_on_another_backend_have_the_same_losses(config, backend, guide_mamba):
    from bdgf_fast import backends

    wanted = ("selective_scan_2d", "group_channel_gate", "group_channel_attention", "cross_attention")
    if not any(backend in backends.available(op) for op in wanted):
        pytest.skip(f"no kernel of the {backend} backend runs here")

    def losses(name):
        net, values = make(config, guide_mamba=guide_mamba), []
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        x, guides, y = inputs()
        with use_backend(name):
            for _ in range(4):
                out = net(x, guides)
                loss, _ = group_loss(out.logits, out.features, out.log_fused, y, config.train, 1.0)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                values.append(loss.item())
        return values

    assert losses(backend) == pytest.approx(losses("reference"), rel=1e-4)


def test_the_heads_see_standardised_statistics_of_the_training_patches(config):
    net = make(config)
    x, guides, _ = inputs(50)
    net.fit(x, guides)
    seen = net.standardise(net._pooled(x, guides))
    assert seen.shape == (50, 3 * (4 + 8))
    torch.testing.assert_close(seen.mean(0), torch.zeros(36), atol=0.1, rtol=0)  # but for what is clipped
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(36), atol=0.1, rtol=0)
    assert net.standardise(net._pooled(1e3 + x, guides)).abs().max() == 4
    plain = make(config, statistics="false")
    plain.fit(x, guides)
    assert plain.standardise is None and plain(x, guides).log_fused.isfinite().all()


def test_no_guide_reaches_a_branch_without_guidance(config):
    net = make(config, guide_cnn="none", twins="false").eval()
    x, guides, _ = inputs()
    net.fit(x, guides)
    one, two = net(x, guides), net(x, [g + 1 for g in guides])
    changed = dict(zip(net.kinds, [not torch.equal(a, b) for a, b in zip(one.logits, two.logits, strict=True)], strict=True))
    assert changed == {"cnn": False, "mamba": True, "transformer": True}


def test_training_leaves_inputs_of_the_heads_out(config):
    net = make(config, dropout=0.5)
    x, guides, _ = inputs()
    assert not torch.equal(net(x, guides).log_fused, net(x, guides).log_fused)
    net.eval()
    assert torch.equal(net(x, guides).log_fused, net(x, guides).log_fused)


def test_twins_see_no_guide_and_count_in_the_fusion(config):
    net = make(config, guide_mamba="none", twins="true").eval()
    assert net.kinds == ("cnn", "mamba", "transformer", "unguided cnn", "unguided transformer")
    x, guides, _ = inputs()
    net.fit(x, guides)
    one, two = net(x, guides), net(x, [g + 1 for g in guides])
    assert [torch.equal(a, b) for a, b in zip(one.logits, two.logits, strict=True)] == [False, True, False, True, True]
    guided, twins = one.parts()
    assert len(guided.logits) == 3 and len(twins.logits) == 2
    torch.testing.assert_close(one.log_fused.exp(), (guided.log_fused.exp() + twins.log_fused.exp()) / 2)
    torch.testing.assert_close(twins.log_fused.exp(), torch.stack([z.softmax(1) for z in one.logits[3:]]).mean(0))
    assert make(config, guides=()).kinds == make(config, twins="false").kinds == ("cnn", "mamba", "transformer")
