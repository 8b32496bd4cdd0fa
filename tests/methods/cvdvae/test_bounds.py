"""Bounds of deviations and log-scales: images for any y, gradients for any state, and none where they are off."""

import pytest
import torch
from torch import Tensor

from bench.config import method_config
from bench.contract import Noise
from bench.load import make_method
from bench.operators.bicubic import Bicubic
from methods.cvdvae.distributions import Gaussian, LogisticMixture
from methods.cvdvae.method import super_resolve
from methods.cvdvae.vdvae import Vdvae, VdvaeConfig
from scripts.compare_vdvae import ours

BOUNDS = {"min_log_std": -8.0, "max_log_std": 2.0, "max_log_scale": 0.0}


def observations(size: int) -> Tensor:
    """What no camera sees: black, white, grey, one colour, a checkerboard, uniform noise, black and white noise."""
    noise = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    squares = ((torch.arange(size)[:, None] + torch.arange(size)) % 2).float().expand(3, size, size)
    colour = torch.tensor([1.0, 0.0, 0.5])[:, None, None].expand(3, size, size)
    flat = [torch.full((3, size, size), v) for v in (0.0, 1.0, 0.37)]
    return torch.stack([*flat, colour, squares, noise[0], noise[1].round()])


def large(bounded: bool, factor: float) -> Vdvae:
    """A small network with weights that are `factor` times too large."""
    filled = ours("small", low=True)
    model = Vdvae(filled.config.model_copy(update=BOUNDS) if bounded else filled.config, filled.low)
    model.load_state_dict({name: factor * p for name, p in filled.state_dict().items()})
    return model.eval()


def drawn(model: Vdvae, y: Tensor) -> Tensor:
    ids = [str(i) for i in range(len(y))]
    return super_resolve(model, y, 3, 1.0, Noise(0, ids, range(3)))


@pytest.mark.parametrize("factor", [3.0, 4.0])
def test_large_weights_give_finite_images(factor: float) -> None:
    y = observations(8)
    assert not drawn(large(False, factor), y).isfinite().all()  # or this would test nothing
    x = drawn(large(True, factor), y)
    assert x.isfinite().all()
    assert x.min() >= 0
    assert x.max() <= 1


def test_large_weights_give_finite_losses_and_gradients() -> None:
    model = large(True, 3.0)
    x = observations(32)
    distortion, rate = model.elbo(x, lambda l, q: q.draw(torch.ones_like(q.mean)))
    (distortion + rate).mean().backward()
    assert distortion.isfinite().all()
    assert rate.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("scale", [4, 8])
def test_shipped_weights_give_finite_images(scale: int) -> None:
    method = make_method(method_config("cvdvae")).prepare(Bicubic(64, scale))
    y = observations(64 // scale)
    x = method.sample(y, 3, 1.0, Noise(0, [str(i) for i in range(len(y))], range(3)))
    assert x.isfinite().all()


def test_the_published_network_has_no_bounds() -> None:
    config = VdvaeConfig()
    assert (config.min_log_std, config.max_log_std, config.max_log_scale) == (None, None, None)
    parameters = 50 * torch.randn(1, 8, 2, 2)
    mean, log_std = Gaussian.from_parameters(parameters)
    assert torch.equal(torch.cat([mean, log_std], 1), parameters)
    assert LogisticMixture(parameters[:, :1].expand(1, 30, 2, 2)).log_scales.min() >= -7  # as in the published code


def test_bounds_hold_in_every_branch() -> None:
    model = large(True, 4.0)
    y = observations(8)
    features, low = model.features(observations(32)), model.encoder_y(model.normalise(y))
    seen = []

    def choose(l, block, state, prior):
        seen.append(prior)
        seen.append(q := block.posterior(block.enc, state, features[block.resolution]))
        if l < model.low.k:
            seen.append(q := block.posterior(block.enc_y, state, low[block.resolution]))
        return q.draw(torch.zeros_like(q.mean))

    with torch.no_grad():
        scales = model.mixture(model.decoder(choose)).log_scales
    stds = torch.cat([g.log_std.flatten() for g in seen])
    assert (stds.min().item(), stds.max().item()) == (-8.0, 2.0)
    assert scales.max() <= 0


def test_kl_is_computed_in_float32_under_autocast() -> None:
    """Of two close distributions, whose KL is lost where the parameters are rounded after every operation."""
    model = ours("small", low=True)
    x = observations(32)[3:5]
    y = observations(8)[3:5]
    eps = [torch.zeros(1)] * len(model.decoder.blocks)
    with torch.no_grad():
        exact = [k.double() for k in model.match(x, y, lambda l, q: q.draw(eps[l]))]
        with torch.autocast("cpu", torch.bfloat16):
            found = model.match(x, y, lambda l, q: q.draw(eps[l]))
            _, kls, _ = model.infer(x, lambda l, q: q.draw(eps[l]))
    assert {k.dtype for k in [*found, *kls]} == {torch.float32}
    assert all((k >= 0).all() for k in found)  # bf16 gives negative ones
    for a, b in zip(found, exact, strict=True):
        assert a.mean().item() == pytest.approx(b.mean().item(), rel=0.1, abs=1e-4)
