"""The prior and its exact form against references, the loss against closed forms, the mapping of checkpoints."""

import hashlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from bench.config import compose, plain
from bench.errors import BenchError
from bench.training.trainable import BatchNoise
from methods.diffusion.checkpoints import from_guided_diffusion
from methods.diffusion.exact import Mixture, denoise
from methods.diffusion.prior import DiffusionPrior, Levels, even, pairs, quadratic, spread
from methods.diffusion.schedule import Schedule, cosine, linear
from methods.diffusion.training import DiffusionTraining, bound
from methods.diffusion.unet import PriorNetwork, UnetConfig, make_unet

SMALL = UnetConfig(size=32, channels=32, multipliers=(1, 2), blocks=1, attention=(16,), head_channels=16)


def test_every_prediction_gives_the_same_estimate() -> None:
    """x0 and noise of one pair, whatever the network predicts of it, on the linear and the cosine schedule."""
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    mixing = torch.full_like(x0, 0.3)
    for kept in (linear(), cosine()):
        for t in (0, 500, 990):
            signal, rest = kept[t].sqrt(), (1 - kept[t]).sqrt()
            outputs = {"noise": noise, "velocity": signal * noise - rest * x0, "clean": x0}
            for prediction, out in outputs.items():
                prior = DiffusionPrior(lambda x, steps, out=out: torch.cat([out, mixing], 1), kept, prediction)
                estimate = prior(prior.noised(x0, noise, t), t)
                torch.testing.assert_close(estimate.x0, x0, atol=1e-7, rtol=0)
                torch.testing.assert_close(estimate.noise, noise, atol=1e-7, rtol=0)
                assert estimate.mixing is not None
                assert (estimate.mixing == 0.3).all()
    assert DiffusionPrior(lambda x, t: x, linear())(x0, 3).mixing is None


def test_schedules_are_the_published_ones() -> None:
    kept = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear").alphas_cumprod
    torch.testing.assert_close(linear().float(), kept, atol=1e-6, rtol=1e-4)
    kept = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    torch.testing.assert_close(cosine().float(), kept, atol=1e-6, rtol=1e-3)


def test_levels() -> None:
    levels = Levels(linear())
    assert levels.kept(-1) == 1
    assert levels.level(-1) == 0
    assert levels.level(0) == pytest.approx(0.01, rel=1e-3)
    for t in (0, 1, 300, 999):
        assert levels.nearest(levels.level(t) * 1.0001) == t
    assert (levels.nearest(1e-6), levels.nearest(1e6)) == (0, 999)


@pytest.mark.parametrize("u", [300, 499, -1])
def test_an_ancestral_step_is_diffusers(u: int) -> None:
    """Mean and learned-range variance against DDPMScheduler, which steps by total / steps."""
    scheduler = DDPMScheduler(
        1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", variance_type="learned_range", clip_sample=False
    )
    t = 500 if u >= 0 else 0
    scheduler.previous_timestep = lambda timestep: u
    generator = torch.Generator().manual_seed(0)
    x, noise, mixing = (torch.randn(1, 3, 4, 4, generator=generator) for _ in range(3))
    prior = DiffusionPrior(lambda x, t: torch.cat([noise, mixing], 1), linear())
    fresh = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    theirs = scheduler.step(torch.cat([noise, mixing], 1), t, x, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(prior.ancestral(x, prior(x, t), t, u, fresh), theirs.prev_sample, atol=2e-4, rtol=1e-4)


def dense(mixture: Mixture, x: torch.Tensor, kept: float) -> torch.Tensor:
    """The mean of x_0 given x_t by dense matrices and torch.distributions."""
    densities, means = [], []
    identity = torch.eye(x.shape[1], dtype=x.dtype)
    for k, weight in enumerate(mixture.weights):
        basis, rest = mixture.basis[k], mixture.rest[k]
        c = basis @ torch.diag(mixture.variances[k] - rest) @ basis.T + rest * identity
        s = kept * c + (1 - kept) * identity
        m = math.sqrt(kept) * mixture.means[k]
        densities.append(weight.log() + torch.distributions.MultivariateNormal(m, s).log_prob(x))
        means.append(mixture.means[k] + math.sqrt(kept) * (x - m) @ torch.linalg.solve(s, c))
    share = torch.softmax(torch.stack(densities, 1), 1)
    return (share[..., None] * torch.stack(means, 1)).sum(1)


def make_mixture(rank: int) -> tuple[Mixture, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = 0.3 * torch.randn(3, 12, generator=generator, dtype=torch.float64)
    factors = 0.5 * torch.randn(3, 12, rank, generator=generator, dtype=torch.float64)
    std = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    return Mixture.of_factors(weights, means, factors, std), factors


@pytest.mark.parametrize("rank", [0, 1, 4])
@pytest.mark.parametrize("kept", [1e-4, 0.3, 0.999])
def test_the_exact_denoiser_is_the_dense_one(rank: int, kept: float) -> None:
    mixture, _ = make_mixture(rank)
    x = torch.randn(5, 12, dtype=torch.float64)
    torch.testing.assert_close(denoise(mixture, x, kept), dense(mixture, x, kept), atol=1e-9, rtol=1e-9)


def test_the_mixture_is_the_one_of_its_factors_in_other_units_too() -> None:
    mixture, factors = make_mixture(4)
    twice = mixture.affine(2.0, -1.0)
    c = twice.basis[1] @ torch.diag(twice.variances[1] - twice.rest[1]) @ twice.basis[1].T
    torch.testing.assert_close(c, 4 * factors[1] @ factors[1].T, atol=1e-12, rtol=0)
    torch.testing.assert_close(twice.means, 2 * mixture.means - 1)
    assert twice.rest[1].item() == pytest.approx(4 * 0.2**2)


def test_the_jacobian_of_the_exact_denoiser_is_the_posterior_covariance() -> None:
    """Of one Gaussian: d x0 / d x_t = sqrt(a) / (1 - a) Cov(x_0 | x_t) (Tweedie, second order)."""
    mixture, factors = make_mixture(4)
    one = Mixture(*(v[:1] for v in (torch.ones(1), mixture.means, mixture.basis, mixture.variances, mixture.rest)))
    kept = 0.4
    jacobian = torch.autograd.functional.jacobian(lambda x: denoise(one, x[None], kept)[0], torch.zeros(12).double())
    c = factors[0] @ factors[0].T + 0.01 * torch.eye(12, dtype=torch.float64)
    covariance = torch.linalg.inv(torch.linalg.inv(c) + kept / (1 - kept) * torch.eye(12, dtype=torch.float64))
    torch.testing.assert_close(jacobian, math.sqrt(kept) / (1 - kept) * covariance, atol=1e-9, rtol=0)


def test_respacing_is_the_published_one() -> None:
    """space_timesteps of guided-diffusion: evenly spaced from 0 to 999, rounded; DDRM's, and DiffPIR's "quad"."""
    for steps in (1000, 100, 50, 7):
        stride = 999 / (steps - 1)
        assert sorted(spread(1000, steps)) == [round(i * stride) for i in range(steps)]
    assert even(1000, 20) == list(range(950, -1, -50))
    assert even(1000, 600)[:3] == [998, 996, 995]  # begins near pure noise whatever the number of steps
    sequence = [int(v) for v in np.sqrt(np.linspace(0, 1000**2, 100))]
    sequence[-1] -= 1
    assert quadratic(1000, 100) == [999 - i for i in sequence]
    assert pairs([5, 2, 0]) == [(5, 2), (2, 0), (0, -1)]


def test_the_bound_vanishes_for_a_perfect_prediction() -> None:
    s = Schedule(linear())
    x0 = torch.rand(3, 3, 8, 8) * 1.8 - 0.9
    t = torch.tensor([5, 400, 999])
    eps = torch.randn_like(x0)
    xt = s.at("signal", t) * x0 + s.at("noise", t) * eps
    assert bound(s, x0, xt, t, eps, torch.full_like(x0, -1.0)).abs().max() < 1e-4
    assert (bound(s, x0, xt, t, eps, torch.ones_like(x0))[:1] > 1e-4).all()
    assert (bound(s, x0, xt, t, 0 * eps, torch.full_like(x0, -1.0))[:2] > 1e-4).all()


def test_the_first_step_is_a_likelihood_of_8_bit_values() -> None:
    """At t = 0 the bound is the Gaussian's mass in the bin of the observed level."""
    s = Schedule(linear())
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
    network = PriorNetwork(
        UnetConfig(
            size=32, channels=32, multipliers=(1, 1), attention=(), head_channels=16, patch=2, prediction="velocity"
        )
    )
    x0, eps = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 3, 32, 32)
    network.unet = Velocity(x0, eps, 2)
    prior = DiffusionPrior(network, linear(), "velocity")
    estimate = prior(prior.noised(x0, eps, t), t)
    torch.testing.assert_close(estimate.noise, eps, atol=1e-5, rtol=0)
    torch.testing.assert_close(estimate.x0, x0, atol=1e-5, rtol=0)


def test_the_loss_of_a_velocity_network_is_that_of_its_velocity() -> None:
    torch.manual_seed(0)
    unet = UnetConfig(size=32, channels=32, multipliers=(1, 1), attention=(), head_channels=16, prediction="velocity")
    module = DiffusionTraining(unet)
    torch.nn.init.zeros_(module.network.unet.conv_out.weight)
    torch.nn.init.zeros_(module.network.unet.conv_out.bias)
    x = torch.full((64, 3, 32, 32), 0.5)  # x_0 = 0, so that the velocity is signal * eps
    losses = module(x, None, BatchNoise(0, 64, slice(0, 64), torch.device("cpu")))
    t = (BatchNoise(0, 64, slice(0, 64), torch.device("cpu")).uniform() * 1000).long()
    kept = linear()[t]
    assert losses["mse"].item() == pytest.approx(kept.mean().item(), rel=0.02)


def test_autocast_normalises_in_float32() -> None:
    unet = PriorNetwork(SMALL).unet
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


def guided_diffusion_shapes(
    channels: int, multipliers: tuple[int, ...], blocks: int, attention: tuple[int, ...], size: int = 256
) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a file of guided-diffusion's U-Net: learned variance, residual up- and downsampling."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]

    def residual(name: str, inputs: int, outputs: int) -> None:
        layer(f"{name}.in_layers.0", inputs)
        layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
        layer(f"{name}.emb_layers.1", 2 * outputs, 4 * channels)
        layer(f"{name}.out_layers.0", outputs)
        layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.skip_connection", outputs, inputs, 1, 1)

    def attend(name: str, width: int) -> None:
        layer(f"{name}.norm", width)
        layer(f"{name}.qkv", 3 * width, width, 1)
        layer(f"{name}.proj_out", width, width, 1)

    layer("time_embed.0", 4 * channels, channels)
    layer("time_embed.2", 4 * channels, 4 * channels)
    layer("input_blocks.0.0", channels, 3, 3, 3)
    skips, width, side = [channels], channels, size
    for level, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            residual(f"input_blocks.{len(skips)}.0", width, multiplier * channels)
            width = multiplier * channels
            if side in attention:
                attend(f"input_blocks.{len(skips)}.1", width)
            skips.append(width)
        if level < len(multipliers) - 1:
            residual(f"input_blocks.{len(skips)}.0", width, width)
            skips.append(width)
            side //= 2
    residual("middle_block.0", width, width)
    attend("middle_block.1", width)
    residual("middle_block.2", width, width)
    place = 0
    for level in reversed(range(len(multipliers))):
        for i in range(blocks + 1):
            residual(f"output_blocks.{place}.0", width + skips.pop(), multipliers[level] * channels)
            width = multipliers[level] * channels
            if side in attention:
                attend(f"output_blocks.{place}.1", width)
            if level and i == blocks:
                residual(f"output_blocks.{place}.{2 if side in attention else 1}", width, width)
                side *= 2
            place += 1
    layer("out.0", width)
    layer("out.2", 6, width, 3, 3)
    return shapes


def test_the_published_imagenet_file_fits_its_network() -> None:
    """By names and shapes, without values; the hash is that of the public code's network with the README's flags."""
    values = plain(compose(None, ["+network/unet=imagenet256"]))["network"]["unet"]
    config = UnetConfig(**values)
    shapes = guided_diffusion_shapes(256, (1, 1, 2, 2, 4, 4), 2, (32, 16, 8))
    lines = sorted(f"{name} {list(shape)}" for name, shape in shapes.items())
    assert (len(lines), sum(map(math.prod, shapes.values()))) == (566, 552_814_086)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == "77e18ded5689d791c0f80de615de87c7b701e6613a73e6856ce4baeebb4a6524"
    with torch.device("meta"):
        network = PriorNetwork(config).unet
        translated = from_guided_diffusion({name: torch.empty(shape) for name, shape in shapes.items()}, config)
    assert {k: v.shape for k, v in translated.items()} == {k: v.shape for k, v in network.state_dict().items()}
