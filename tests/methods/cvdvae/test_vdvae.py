import pytest
import torch

from bench.contract import Noise
from bench.errors import BenchError
from bench.weights import read_tensors
from methods.cvdvae.method import super_resolve
from methods.cvdvae.vdvae import Vdvae, VdvaeConfig, parse_blocks
from methods.cvdvae.weights import load_weights
from scripts.compare_vdvae import fill, golden, images, noise_for, ours

# github:openai/vdvae and github:jprost76/srvdvae with the weights, images and noise of scripts/compare_vdvae.py:
# `python -m scripts.compare_vdvae --vdvae ... --cvdvae ... --golden` (equal to 3e-6 relative)
REFERENCE = {
    "elbo": [4.097777366638184, 0.06407196074724197],
    "kls": [0.143657, 0.134206, 2.252993, 3.248398, 1.80844, 7.075514, 10.420414, 7.947257, 49.53353, 114.264663],
    "logits": [-0.005430916324257851, 0.06625423580408096, 0.003003942547366023],
    "match": [0.0089487, 0.0065759, 0.0072519, 0.0061135, 0.0096175, 0.0107202, 0.0069419, 0.0064507],
}


@pytest.mark.parametrize("what", REFERENCE)
def test_golden_figures_of_the_published_code(what: str) -> None:
    assert golden()[what] == pytest.approx(REFERENCE[what], rel=1e-4)


def test_block_strings() -> None:
    assert parse_blocks("8x2,8d2,4,16m8") == [(8, None), (8, None), (8, 2), (4, None), (16, 8)]
    groups = parse_blocks(VdvaeConfig().decoder)
    counts = {r: sum(1 for g, _ in groups if g == r) for r, _ in groups}
    assert counts == {1: 2, 4: 4, 8: 5, 16: 10, 32: 22, 64: 14, 128: 8, 256: 1}  # PROTOCOL's latent groups


def test_published_size_and_names() -> None:
    with torch.device("meta"):
        model = Vdvae(VdvaeConfig())
    count = sum(p.numel() for p in model.parameters())
    assert 114e6 < count < 116e6  # 115 M parameters
    names = set(model.state_dict())
    assert {"encoder.in_conv.weight", "decoder.dec_blocks.65.prior.c4.bias", "decoder.out_net.out_conv.weight"} <= names


def test_shared_work_changes_nothing() -> None:
    """super_resolve against the same computation image by image and sample by sample."""
    model = ours("small", low=True)
    y = images(8, batch=2)
    noise = Noise(0, ["a", "b"], [0, 1, 2])
    x = super_resolve(model, y, 3, 0.8, noise)
    features = model.encoder_y(model.normalise(y))
    single = Noise(0, ["b"], [2])

    def choose(l, block, state, prior):
        eps = single.normal(block.zdim, block.resolution, block.resolution)[0]
        if l < model.low.k:
            feature = features[block.resolution][1:]
            return block.posterior(block.enc_y, state, feature).draw(eps)
        return prior.draw(eps, 0.8)

    with torch.no_grad():
        mixture = model.mixture(model.decoder(choose))
        expected = mixture.draw(single.uniform(10, 32, 32)[0], single.uniform(3, 32, 32)[0])
    torch.testing.assert_close(x[1, 2], (expected[0] + 1) / 2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", ["prior", "all"])
def test_temperature_scope(scope: str) -> None:
    model = ours("small", low=True)
    y = images(8)

    def spread(tau: float) -> float:
        x = super_resolve(model, y, 4, tau, Noise(0, ["a"], range(4)), scope, output="mode")
        return float(x.var(1).mean())

    cold, hot = spread(0.01), spread(1.0)
    assert cold < hot
    # with z_<k drawn at temperature 1 the coarse groups still vary
    assert (cold < 0.01 * hot) == (scope == "all")


def test_only_the_low_resolution_encoder_has_gradients() -> None:
    from methods.cvdvae.training import is_low

    model = ours("small", low=True)
    for name, p in model.named_parameters():
        p.requires_grad_(is_low(name))
    eps = noise_for(model, 1)
    kls = model.match(images(32), images(8), lambda l, q: q.draw(eps[l]))
    torch.stack([k.mean() for k in kls]).sum().backward()
    with_gradient = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert with_gradient
    assert all(is_low(n) for n in with_gradient)
    assert len(kls) == model.low.k


@pytest.mark.parametrize("layout", ["plain", "ddp", "lightning", "safetensors"])
def test_checkpoint_formats(layout: str, tmp_path) -> None:
    from safetensors.torch import save_file

    source = ours("small", low=True)
    state = source.state_dict()
    path = tmp_path / ("a.safetensors" if layout == "safetensors" else "a.th")
    if layout == "safetensors":
        save_file({k: v.half() for k, v in state.items()}, path)
    elif layout == "lightning":  # the authors' checkpoints: prefix, buffers, and other entries
        content = {f"cvae.{k}": v for k, v in state.items()} | {
            "cvae.shift": torch.full((1, 1, 1), source.config.shift),
            "cvae.scale": torch.full((1, 1, 1), source.config.scale),
        }
        torch.save({"state_dict": content, "epoch": 3, "optimizer_states": []}, path)
    else:
        torch.save({("module." if layout == "ddp" else "") + k: v for k, v in state.items()}, path)
    target = Vdvae(source.config, source.low)
    load_weights(target, path)
    tolerance = 1e-3 if layout == "safetensors" else 0
    for name, p in target.state_dict().items():
        torch.testing.assert_close(p, state[name], atol=tolerance, rtol=tolerance)


def test_bad_checkpoints_are_one_sentence(tmp_path) -> None:
    model = ours("small", low=False)
    path = tmp_path / "a.th"
    with pytest.raises(BenchError, match="do not exist"):
        read_tensors(path)
    torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BenchError, match="truncated or no checkpoint"):
        read_tensors(path)
    state = model.state_dict()
    del state["decoder.gain"]
    torch.save(state, path)
    with pytest.raises(BenchError, match=r"has no decoder\.gain"):
        load_weights(model, path)
    state["decoder.gain"] = torch.zeros(1, 3, 1, 1)
    torch.save(state, path)
    with pytest.raises(BenchError, match=r"decoder\.gain is \[1, 3, 1, 1\], expected \[1, 24, 1, 1\]"):
        load_weights(model, path)


def test_pickles_with_code_are_refused(tmp_path) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"a": Evil()}, tmp_path / "a.th")
    with pytest.raises(BenchError, match="not loaded"):
        read_tensors(tmp_path / "a.th")


def test_training_lowers_the_elbo_of_a_small_network() -> None:
    torch.manual_seed(0)
    config = VdvaeConfig(
        size=16, decoder="1x1,4m1,8m4,16m8", encoder="16d2,8d2,4d4,1x1", width=16, no_bias_above=4, mixtures=2, bits=8
    )
    model = Vdvae(config)
    x = images(16, batch=8)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        distortion, rate = model.elbo(x, lambda l, q: q.draw(torch.randn_like(q.mean)))
        loss = (distortion + rate).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_fill_is_reproducible() -> None:
    a, b = ours("small", low=False), ours("small", low=False)
    fill(b)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_the_deviation_of_a_prior_can_be_limited() -> None:
    """A prior whose deviations grow with its state stays finite."""
    from methods.cvdvae.vdvae import TopDownBlock

    block = TopDownBlock(
        ours("small", low=False).config.model_copy(update={"max_log_std": 2.0}), 4, None, 10, low=False
    )
    torch.nn.init.constant_(block.prior.c4.bias, 50.0)
    prior, _ = block.prior_of(torch.zeros(1, block.channels, 4, 4))
    assert prior.log_std.max().item() == 2.0
    assert prior.draw(torch.ones(1, block.zdim, 4, 4)).isfinite().all()
