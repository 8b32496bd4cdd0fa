"""The sampler against a posterior that is known, the loss against closed forms, the mapping against its own reading."""

import math
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from bench.errors import BenchError
from bench.operators.bicubic import Bicubic
from bench.training.trainable import BatchNoise
from methods.diffusion.checkpoints import from_guided_diffusion
from methods.diffusion.schedule import Schedule, make_scheduler
from methods.diffusion.training import DiffusionTraining, bound
from methods.diffusion.unet import Prior, UnetConfig, make_unet
from methods.dps import posterior_sample

SMALL = UnetConfig(size=32, channels=32, multipliers=(1, 2), blocks=1, attention=(16,), head_channels=16)


class ExactPrior(torch.nn.Module):
    """The exact noise prediction and reverse variance for white Gaussian images of standard deviation `std`."""

    def __init__(self, std: float, scheduler: DDPMScheduler) -> None:
        super().__init__()
        self.std, self.scheduler = std, scheduler

    def forward(self, x, t):
        kept = self.scheduler.alphas_cumprod[t].double()
        previous = self.scheduler.previous_timestep(t)
        before = (
            self.scheduler.alphas_cumprod[previous].double() if previous >= 0 else torch.ones((), dtype=torch.float64)
        )
        eps = (1 - kept).sqrt() / (kept * self.std**2 + 1 - kept) * x
        beta = 1 - kept / before
        low = (1 - before) / (1 - kept) * beta
        of_x0 = self.std**2 * (1 - kept) / (kept * self.std**2 + 1 - kept)  # Var(x_0 | x_t)
        variance = low + (before.sqrt() * beta / (1 - kept)) ** 2 * of_x0
        mixing = 2 * torch.log(variance / low) / torch.log(beta / low) - 1 if low > 0 else torch.tensor(-1.0)
        return torch.cat([eps.float(), torch.full_like(x, float(mixing))], 1)


def generators(n: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(n)]


def test_without_guidance_the_exact_prior_gives_the_data_distribution() -> None:
    d = Bicubic(16, 4)
    start = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scheduler = make_scheduler(250)
    prior = ExactPrior(0.25, scheduler)
    x = posterior_sample(prior, scheduler, torch.zeros(64, 3, 4, 4), d, start, generators(64), guidance=0.0)
    assert x.std().item() == pytest.approx(0.25, rel=0.05)
    assert x.mean().abs() < 0.01


def test_guidance_pulls_towards_consistency_and_keeps_the_null_space() -> None:
    """White images have a known posterior: D+ y in the range of D+, the prior outside of it."""
    d = Bicubic(16, 4)
    truth = 0.25 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    y = (d.forward(truth) + 1) / 2
    start = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scheduler = make_scheduler(250)
    args = (ExactPrior(0.25, scheduler), scheduler, y.expand(32, -1, -1, -1), d, start)
    free = posterior_sample(*args, generators(32), guidance=0.0)
    guided = posterior_sample(*args, generators(32), guidance=0.5)
    target = 2 * y - 1
    assert (d.forward(guided) - target).square().mean() < 0.25 * (d.forward(free) - target).square().mean()
    outside = guided - d.pinv(d.forward(guided))
    assert outside.var(0).mean().sqrt().item() == pytest.approx(0.25 * math.sqrt(15 / 16), rel=0.1)


def test_a_batch_gives_what_single_images_give() -> None:
    torch.manual_seed(0)
    prior = Prior(SMALL).eval()
    d = Bicubic(32, 4)
    y = torch.rand(2, 3, 8, 8)
    start = torch.randn(2, 3, 32, 32)
    scheduler = make_scheduler(4)
    both = posterior_sample(prior, scheduler, y, d, start, generators(2), 0.3)
    second = posterior_sample(prior, scheduler, y[1:], d, start[1:], generators(2)[1:], 0.3)
    torch.testing.assert_close(both[1:], second, atol=1e-3, rtol=0)
    coupled = posterior_sample(prior, scheduler, y, d, start, generators(2), 0.3, coupled=True)
    assert (coupled - both).abs().max() > 1e-2  # the published behaviour differs in a batch


def test_respacing_is_the_published_one() -> None:
    """space_timesteps of guided-diffusion: evenly spaced from 0 to 999, rounded."""
    for steps in (1000, 100, 50, 7):
        stride = 999 / (steps - 1)
        expected = [round(i * stride) for i in range(steps)]
        assert sorted(make_scheduler(steps).timesteps.tolist()) == expected


def test_the_bound_vanishes_for_a_perfect_prediction() -> None:
    s = Schedule()
    x0 = torch.rand(3, 3, 8, 8) * 1.8 - 0.9
    t = torch.tensor([5, 400, 999])
    eps = torch.randn_like(x0)
    xt = s.at("signal", t) * x0 + s.at("noise", t) * eps
    assert bound(s, x0, xt, t, eps, torch.full_like(x0, -1.0)).abs().max() < 1e-4
    assert (bound(s, x0, xt, t, eps, torch.ones_like(x0))[:1] > 1e-4).all()
    assert (bound(s, x0, xt, t, 0 * eps, torch.full_like(x0, -1.0))[:2] > 1e-4).all()


def test_the_first_step_is_a_likelihood_of_8_bit_values() -> None:
    """At t = 0 the bound is the Gaussian's mass in the bin of the observed level."""
    s = Schedule()
    x0 = torch.full((1, 3, 2, 2), 10 / 127.5 - 1)
    t = torch.tensor([0])
    eps = torch.zeros_like(x0)
    xt = s.at("signal", t) * x0
    std = math.exp(0.5 * float(s.log_posterior[0]))
    mass = math.erf(1 / 255 / std / math.sqrt(2))
    bits = bound(s, x0, xt, t, eps, torch.full_like(x0, -1.0)).item()
    assert bits == pytest.approx(-math.log2(mass), abs=1e-3)


def test_training_loss_is_finite_and_has_gradients() -> None:
    torch.manual_seed(0)
    module = DiffusionTraining(SMALL)
    losses = module(torch.rand(2, 3, 32, 32), None, BatchNoise(0, 2, slice(0, 2), torch.device("cpu")))
    losses["loss"].backward()
    assert losses["mse"].item() == pytest.approx(1, abs=0.5)  # an untrained network predicts nothing
    gradients = [p.grad for p in module.trained().values()]
    assert all(g is not None and g.isfinite().all() for g in gradients)


class Velocity(torch.nn.Module):
    """Stands for diffusers' network: the exact velocity (Salimans & Ho 2022, appendix D) of one pair (x_0, noise)."""

    def __init__(self, x0: torch.Tensor, eps: torch.Tensor, patch: int) -> None:
        super().__init__()
        self.x0, self.eps, self.patch = x0, eps, patch

    def forward(self, x, t):
        kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[t].float()
        v = kept.sqrt() * self.eps - (1 - kept).sqrt() * self.x0
        out = torch.cat([v, torch.zeros_like(v)], 1)
        assert x.shape[-1] == out.shape[-1] // self.patch
        return SimpleNamespace(sample=torch.nn.functional.pixel_unshuffle(out, self.patch))


@pytest.mark.parametrize("t", [3, 500, 999])
def test_a_velocity_network_predicts_the_noise(t: int) -> None:
    prior = Prior(
        UnetConfig(
            size=32, channels=32, multipliers=(1, 1), attention=(), head_channels=16, patch=2, prediction="velocity"
        )
    )
    x0, eps = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 3, 32, 32)
    prior.unet = Velocity(x0, eps, 2)
    kept = make_scheduler(50).alphas_cumprod[t]
    predicted = prior(kept.sqrt() * x0 + (1 - kept).sqrt() * eps, torch.tensor(t))
    torch.testing.assert_close(predicted[:, :3], eps, atol=1e-5, rtol=0)


def test_the_loss_of_a_velocity_network_is_that_of_its_velocity() -> None:
    torch.manual_seed(0)
    unet = UnetConfig(size=32, channels=32, multipliers=(1, 1), attention=(), head_channels=16, prediction="velocity")
    module = DiffusionTraining(unet)
    torch.nn.init.zeros_(module.prior.unet.conv_out.weight)
    torch.nn.init.zeros_(module.prior.unet.conv_out.bias)
    x = torch.full((64, 3, 32, 32), 0.5)  # x_0 = 0, so that the velocity is signal * eps
    losses = module(x, None, BatchNoise(0, 64, slice(0, 64), torch.device("cpu")))
    t = (BatchNoise(0, 64, slice(0, 64), torch.device("cpu")).uniform() * 1000).long()
    kept = make_scheduler(50).alphas_cumprod[t]
    assert losses["mse"].item() == pytest.approx(kept.mean().item(), rel=0.02)


def test_autocast_normalises_in_float32() -> None:
    unet = make_unet(SMALL)
    dtypes: dict[type, set[torch.dtype]] = {torch.nn.GroupNorm: set(), torch.nn.Conv2d: set()}
    for module in unet.modules():
        if type(module) in dtypes:
            module.register_forward_hook(lambda m, _, out: dtypes[type(m)].add(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        unet(torch.randn(1, 3, 32, 32), 500)
    assert dtypes == {torch.nn.GroupNorm: {torch.float32}, torch.nn.Conv2d: {torch.bfloat16}}


def test_a_mismatching_checkpoint_is_one_sentence() -> None:
    with pytest.raises(BenchError, match=r"has no input_blocks\.0\.0\.weight"):
        from_guided_diffusion({}, SMALL)


def test_published_size() -> None:
    with torch.device("meta"):
        unet = make_unet(UnetConfig())
    assert sum(p.numel() for p in unet.parameters()) == pytest.approx(93.6e6, rel=0.01)
