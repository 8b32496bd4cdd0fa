"""Run the published VD-VAE and CVDVAE code beside ours, with the same random weights and the same noise.

    python -m scripts.compare_vdvae --vdvae CHECKOUT_OF_openai/vdvae --cvdvae CHECKOUT_OF_jprost76/srvdvae [--size full]

Prints the largest relative error of the latents' statistics, KL terms, logits and ELBO (VD-VAE), and of eq. (14)'s KL
terms and a super-resolved image (CVDVAE), in float32. `--samples` times both, `--golden` prints the figures that the
tests keep.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.contract import Noise
from methods.cvdvae.distributions import Gaussian
from methods.cvdvae.method import super_resolve
from methods.cvdvae.vdvae import LowResolutionConfig, TopDownBlock, Vdvae, VdvaeConfig
from scripts.side_by_side import add_device, compare_speed, error, use_device

SMALL = {
    "decoder": "1x2,4m1,4x2,8m4,8x2,16m8,32m16",
    "encoder": "32x1,32d2,16x2,16d2,8x1,8d2,4x1,4d4,1x2",
    "width": 24,
    "size": 32,
    "no_bias_above": 8,
}
LOW = {"full": ("32x17,32d2,16x7,16d2,8x5,8d2,4x5,4d4,1x4", 43, 8), "small": ("8x2,8d2,4x1,4d4,1x1", 8, 4)}


def fill(module: nn.Module, seed: int = 0) -> None:
    """Fill parameters by name with reproducible numbers whose scale keeps activations in range."""
    for i, (_, p) in enumerate(sorted(module.named_parameters())):
        generator = torch.Generator().manual_seed(seed * 100_003 + i)
        spread = 0.5 * float(np.prod(p.shape[1:])) ** -0.5 if p.ndim == 4 and p.shape[0] > 1 else 0.05
        with torch.no_grad():
            p.copy_(spread * torch.randn(p.shape, generator=generator, device="cpu"))


def ours(which: str, low: bool) -> Vdvae:
    """Our network, filled."""
    config = VdvaeConfig() if which == "full" else VdvaeConfig(**SMALL)
    blocks, k, _ = LOW[which]
    model = Vdvae(config, LowResolutionConfig(encoder=blocks, k=k, width=config.width) if low else None)
    fill(model)
    return model.eval()


def noise_for(model: Vdvae, batch: int, seed: int = 1) -> list[Tensor]:
    """Standard normal latents' noise, one tensor per group."""
    generator = torch.Generator().manual_seed(seed)
    zdim = model.config.zdim
    shapes = [(batch, zdim, b.resolution, b.resolution) for b in model.decoder.blocks]
    return [torch.randn(*s, generator=generator, device="cpu").to(torch.get_default_device()) for s in shapes]


def images(size: int, batch: int = 1) -> Tensor:
    """Smooth 8-bit images [B, 3, size, size] in [0, 1]."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(batch, 3, 8, 8, generator=generator, device="cpu").to(torch.get_default_device())
    return (nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1) * 255).round() / 255


def _modules(folder: Path, *names: str) -> list[ModuleType]:
    for name in [n for n in sys.modules if n in ("vae", "vae_helpers", "cvdvae", "utils")]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(folder))


class _Settings(dict):  # type: ignore[type-arg]
    __getattr__ = dict.get


def _settings(config: VdvaeConfig, **more: Any) -> _Settings:
    return _Settings(
        width=config.width, custom_width_str="", zdim=config.zdim, bottleneck_multiple=config.bottleneck,
        dec_blocks=config.decoder, enc_blocks=config.encoder, image_size=config.size, image_channels=3,
        num_mixtures=config.mixtures, no_bias_above=config.no_bias_above, dataset="ffhq_256",
        shift=config.shift, scale=config.scale, **more,
    )  # fmt: skip


@torch.no_grad()
def compare_vdvae(folder: Path, which: str) -> dict[str, float]:
    """Relative errors against github:openai/vdvae."""
    (reference,) = _modules(folder, "vae")
    model = ours(which, low=False)
    config = model.config
    theirs = reference.VAE(_settings(config)).eval()
    theirs.load_state_dict(model.state_dict())  # the names are the published ones
    x = images(config.size)
    eps = noise_for(model, len(x))
    statistics: list[tuple[Tensor, Tensor]] = []
    pending = iter(eps)

    def draw(mean: Tensor, log_std: Tensor) -> Tensor:
        statistics.append((mean, log_std))
        return torch.exp(log_std) * next(pending) + mean

    reference.draw_gaussian_diag_samples = draw
    inputs = ((255 * x + config.shift) * config.scale).permute(0, 2, 3, 1)
    levels = (255 * x / 8).floor() * 8
    target = ((levels - 127.5) / 127.5).permute(0, 2, 3, 1)
    activations = theirs.encoder(inputs)
    features, stats = theirs.decoder(activations)
    logits = theirs.decoder.out_net(features)
    pending = iter(eps)
    elbo = theirs(inputs, target)["elbo"]

    mine: list[Gaussian] = []

    def choose(l: int, q: Gaussian) -> Tensor:
        mine.append(q)
        return q.draw(eps[l])

    parameters, kls, _ = model.infer(x, choose)
    distortion, rate = model.elbo(x, lambda l, q: q.draw(eps[l]))
    return {
        "posterior means": max(error(q.mean, m) for q, (m, _) in zip(mine, statistics, strict=False)),
        "posterior log stds": max(error(q.log_std, s) for q, (_, s) in zip(mine, statistics, strict=False)),
        "KL terms": max(error(k, s["kl"].sum((1, 2, 3))) for k, s in zip(kls, stats, strict=True)),
        "logits": error(parameters, logits.permute(0, 3, 1, 2)),
        "ELBO": error((distortion + rate).mean(), elbo),
    }


def _both_cvdvae(folder: Path, which: str) -> tuple[ModuleType, ModuleType, nn.Module, Vdvae]:
    """Two modules of github:jprost76/srvdvae, their network and ours with the same weights."""
    reference, helpers = _modules(folder, "cvdvae", "vae_helpers")
    model = ours(which, low=True)
    blocks, k, _ = LOW[which]
    width = model.config.width
    settings = _settings(model.config, enc_blocks_y=blocks, ky=k, width_y=width, custom_width_str_y="")
    theirs = reference.CVAE(settings).eval()
    theirs.load_state_dict({**theirs.state_dict(), **model.state_dict()})
    return reference, helpers, theirs, model


@torch.no_grad()
def compare_cvdvae(folder: Path, which: str) -> dict[str, float]:
    """Relative errors against github:jprost76/srvdvae."""
    reference, helpers, theirs, model = _both_cvdvae(folder, which)
    config = model.config
    _, k, scale = LOW[which]
    x = images(config.size)
    y = images(config.size // scale)
    eps = noise_for(model, len(x))
    pending = iter(eps)
    reference.draw_gaussian_diag_samples = lambda mean, log_std: torch.exp(log_std) * next(pending) + mean
    _, kls = theirs.forward_cond_training(255 * x, 255 * y)
    mine = model.match(x, y, lambda l, q: q.draw(eps[l]))

    pending = iter(eps)
    captured: list[Tensor] = []

    def capture(parameters: Tensor, mixtures: int) -> Tensor:
        captured.append(parameters)
        return torch.zeros(1)

    helpers.sample_from_discretized_mix_logistic = capture
    theirs.forward_samples(255 * y, t=0.8, quantize=False)
    features = model.encoder_y(model.normalise(y))

    def choose(l: int, block: TopDownBlock, state: Tensor, prior: Gaussian) -> Tensor:
        if l < k:
            return block.posterior(block.enc_y, state, features[block.resolution]).draw(eps[l])
        return prior.draw(eps[l], 0.8)

    logits = model.decoder(choose)
    return {
        "KL terms of eq. (14)": max(error(m.mean((1, 2, 3)), kls[l]) for l, m in enumerate(mine)),
        "logits of a sample at tau 0.8": error(logits, captured[0].permute(0, 3, 1, 2)),
    }


@torch.no_grad()
def speed(folder: Path, which: str, n: int, repeats: int) -> str:
    """Seconds for n samples of one image: github:jprost76/srvdvae one after the other, ours with one encoding."""
    reference, helpers, theirs, model = _both_cvdvae(folder, which)
    config = model.config
    scale = LOW[which][2]
    model.to(memory_format=torch.channels_last)
    y = images(config.size // scale)

    outputs: list[Tensor] = []

    def their_output(parameters: Tensor, mixtures: int) -> Tensor:
        x = model.mixture(parameters.permute(0, 3, 1, 2)).mean()  # the same end for both, without noise
        outputs.append((x + 1) / 2)
        return x.permute(0, 2, 3, 1)

    helpers.sample_from_discretized_mix_logistic = their_output
    reference.draw_gaussian_diag_samples = lambda mean, log_std: torch.exp(log_std) * next(pending) + mean
    streams = Noise(0, ["image"], range(n), y.device)
    shapes = [(b.zdim, b.resolution, b.resolution) for b in model.decoder.blocks]
    eps = [[streams.normal(*s, rows=slice(j, j + 1)) for s in shapes] for j in range(n)]
    pending: Iterator[Tensor] = iter(())

    def public() -> Tensor:
        nonlocal pending
        outputs.clear()
        for j in range(n):
            pending = iter(eps[j])
            theirs.forward_samples(255 * y, t=0.8, quantize=False)
        return torch.cat(outputs)

    def mine() -> Tensor:
        return super_resolve(model, y, n, 0.8, Noise(0, ["image"], range(n), y.device), output="mean", rows=1)[0]

    return compare_speed(public, mine, repeats)


@torch.no_grad()
def golden() -> dict[str, list[float]]:
    """Our figures at the small size, equal to the reference's where the comparison above is."""
    model = ours("small", low=False)
    x, eps = images(32), noise_for(model, 1)
    distortion, rate = model.elbo(x, lambda l, q: q.draw(eps[l]))
    parameters, kls, _ = model.infer(x, lambda l, q: q.draw(eps[l]))
    conditional = ours("small", low=True)
    match = conditional.match(x, images(8), lambda l, q: q.draw(eps[l]))
    return {
        "elbo": [float(distortion), float(rate)],
        "kls": [float(k) for k in kls],
        "logits": [float(parameters.mean()), float(parameters.std()), float(parameters[0, 3, 7, 9])],
        "match": [float(m.mean()) for m in match],
    }


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vdvae", type=Path, help="checkout of github:openai/vdvae")
    parser.add_argument("--cvdvae", type=Path, help="checkout of github:jprost76/srvdvae")
    parser.add_argument("--size", choices=("small", "full"), default="small")
    parser.add_argument("--samples", type=int, help="also time this many samples of one image (with --cvdvae)")
    parser.add_argument("--repeats", type=int, default=3)
    add_device(parser)
    parser.add_argument("--golden", action="store_true", help="print the figures that the tests keep")
    arguments = parser.parse_args()
    use_device(arguments.device)
    for name, compare in (("vdvae", compare_vdvae), ("cvdvae", compare_cvdvae)):
        folder = getattr(arguments, name)
        if folder is not None:
            for what, value in compare(folder, arguments.size).items():
                print(f"{name} {arguments.size}: {what}: {value:.1e}")
    if arguments.samples and arguments.cvdvae:
        print(f"{arguments.samples} samples of one image, together")
        print(speed(arguments.cvdvae, arguments.size, arguments.samples, arguments.repeats))
    if arguments.golden:
        for what, figures in golden().items():
            print(what, figures)


if __name__ == "__main__":
    main()
