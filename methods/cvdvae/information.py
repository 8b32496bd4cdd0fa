"""How much low-resolution information the first k latent groups hold (paper, appendix A, eq. 15 to 18, Figure 6)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import combinations

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from bench.operators.bicubic import Bicubic
from bench.run.study import Study, register_study
from methods.cvdvae.distributions import Gaussian
from methods.cvdvae.vdvae import TopDownBlock, Vdvae, VdvaeConfig
from methods.cvdvae.weights import load_weights


@torch.no_grad()
def decode(model: Vdvae, given: Sequence[Tensor], n: int, generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
    """Draw images from p(x | z_<k) at temperature 1.

    Args:
        model: the prior.
        given: latents [zdim, r, r] of the first k groups; none for unconditional samples.
        n: number of images, which share them.
        generator: source of randomness, on the model's device.

    Returns:
        images [n, 3, H, H] in [0, 1], and the latents of all groups, [n, zdim, r, r] each.

    """
    latents: list[Tensor] = []
    device = generator.device

    def choose(l: int, block: TopDownBlock, state: Tensor, prior: Gaussian) -> Tensor:
        if l < len(given):
            z = given[l].expand(n, -1, -1, -1)
        else:
            z = prior.draw(torch.randn(n, *prior.mean.shape[1:], generator=generator, device=device))
        latents.append(z)
        return z

    mixture = model.mixture(model.decoder(choose))
    size, components = model.config.size, model.config.mixtures
    gumbel = torch.rand(n, components, size, size, generator=generator, device=device)
    logistic = torch.rand(n, 3, size, size, generator=generator, device=device)
    return (mixture.draw(gumbel, logistic) + 1) / 2, latents


def pairwise_rmse(x: Tensor) -> Tensor:
    """Mean root mean square difference over all pairs of [n, ...], a scalar."""
    pairs = [(x[i] - x[j]).square().mean().sqrt() for i, j in combinations(range(len(x)), 2)]
    return torch.stack(pairs).mean()


@register_study("uk")
class LowResolutionSpread(Study):
    """U_k^s: the mean pairwise low-resolution RMSE, in 8-bit levels, of samples that share z_<k.

    Args:
        prior: shape of the prior.
        prior_weights: file.
        scales: downscaling factors; 1 is the full resolution.
        codes: latent codes drawn from the prior (paper: 50).
        images: images per code and k (paper: 5).
        every: step between the values of k.

    """

    def __init__(
        self,
        prior: VdvaeConfig,
        prior_weights: str,
        scales: Sequence[int],
        codes: int,
        images: int,
        every: int,
    ) -> None:
        self.model = Vdvae(prior)
        load_weights(self.model, prior_weights, part="prior")
        self.model.eval().requires_grad_(False)
        self.scales, self.items, self.images, self.every = list(scales), codes, images, every

    def compute(self, item: int, seed: int, device: torch.device) -> pd.DataFrame:
        """Return columns k, scale and rmse of one latent code (eq. 18 before its sum over codes)."""
        model = self.model.to(device)
        operators = {s: Bicubic(model.config.size, s, device=device) for s in self.scales}
        generator = torch.Generator(device).manual_seed(seed * 100_003 + item)
        _, latents = decode(model, [], 1, generator)
        rows = []
        for k in range(0, len(model.decoder.blocks) + 1, self.every):
            x, _ = decode(model, [z[0] for z in latents[:k]], self.images, generator)
            for s, operator in operators.items():
                rows.append((k, s, 255 * float(pairwise_rmse(operator.forward(x)))))
        return pd.DataFrame(rows, columns=["k", "scale", "rmse"])

    def seconds(self, device: torch.device) -> float:
        """Time the images of one k."""
        model, generator = self.model.to(device), torch.Generator(device).manual_seed(0)
        begun = time.perf_counter()
        float(decode(model, [], self.images, generator)[0].sum())  # waits for the device
        return (time.perf_counter() - begun) * len(range(0, len(model.decoder.blocks) + 1, self.every))

    def plot(self, frame: pd.DataFrame, axes: Axes) -> None:
        """Draw Figure 6: one curve per scale."""
        for scale, part in frame.groupby("scale"):
            mean = part.groupby("k")["rmse"].mean()
            axes.plot(mean.index, mean.to_numpy(), marker="o", markersize=3, label=f"s = {scale}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("k, number of shared latent groups")
        axes.set_ylabel("$U_k^s$ (8-bit levels)")
        axes.legend()
