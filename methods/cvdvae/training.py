"""What is trained: the VD-VAE prior, and CVDVAE's low-resolution encoder on top of a frozen prior."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.training.trainable import BatchNoise, Trainable, register_trainable
from methods.cvdvae.distributions import Gaussian
from methods.cvdvae.vdvae import LowResolutionConfig, TopDownBlock, Vdvae, VdvaeConfig
from methods.cvdvae.weights import is_low, load_weights


def _posterior_draw(noise: BatchNoise) -> Any:
    def draw(l: int, q: Gaussian) -> Tensor:
        return q.draw(noise.normal(*q.mean.shape[1:]))

    return draw


def _output(model: Vdvae, parameters: Tensor, noise: BatchNoise) -> Tensor:
    size, mixtures = model.config.size, model.config.mixtures
    drawn = model.mixture(parameters.float()).draw(noise.uniform(mixtures, size, size), noise.uniform(3, size, size))
    return (drawn + 1) / 2


@register_trainable("vdvae")
class VdvaeTraining(Trainable):
    """Maximise the ELBO of a VD-VAE (Child 2021); losses in bits per dimension.

    Args:
        prior: shape of the prior.
        weights: file to begin with, or None.
        kl_weight: weight of the rate in the loss. 1 gives the ELBO; a short run with less, before it, brings groups at
            high resolutions into use that a young prior leaves at their prior while its mixture describes the details.

    """

    def __init__(self, prior: VdvaeConfig, weights: str | None = None, kl_weight: float = 1.0) -> None:
        super().__init__()
        self.model = Vdvae(prior)
        self.kl_weight = kl_weight
        if weights:
            load_weights(self.model, weights)

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters, by the names of the published checkpoints."""
        return dict(self.model.named_parameters())

    def forward(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> dict[str, Tensor]:
        """Negative ELBO, its distortion and its rate."""
        distortion, rate = (t.mean() / math.log(2) for t in self.model.elbo(x, _posterior_draw(noise)))
        return {"loss": distortion + self.kl_weight * rate, "distortion": distortion, "rate": rate}

    def preview(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> Tensor:
        """Unconditional samples at temperature 0.8."""

        def choose(l: int, block: TopDownBlock, state: Tensor, prior: Gaussian) -> Tensor:
            return prior.draw(noise.normal(*prior.mean.shape[1:]), 0.8)

        return _output(self.model, self.model.decoder(choose), noise)


@register_trainable("cvdvae")
class CvdvaeTraining(Trainable):
    """Fit q_psi(z_<k | y) to the prior's own encoder (paper, eq. 13 and 14); everything else is frozen.

    Args:
        prior: shape of the prior.
        prior_weights: file of the prior.
        low: "x4", "x8" to the shape of the low-resolution encoder.
        scale: the scale factor to train for.
        normalisation: "group" averages each group's KL over its elements and sums over groups, as the authors' code;
            "dimension" sums over all elements (eq. 13), per dimension of the image.
        weights: file of the low-resolution encoder to begin with, or None.

    """

    scaled = True

    def __init__(
        self,
        prior: VdvaeConfig,
        prior_weights: str,
        low: Mapping[str, LowResolutionConfig],
        scale: int,
        normalisation: Literal["group", "dimension"] = "group",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if f"x{scale}" not in low:
            raise BenchError(f"scale={scale} has no low-resolution encoder: add method.network.low.x{scale}.")
        self.model = Vdvae(prior, low[f"x{scale}"])
        self.normalisation = normalisation
        load_weights(self.model, prior_weights, part="prior")
        if weights:
            load_weights(self.model, weights, part="low")

    def trained(self) -> dict[str, nn.Parameter]:
        """The low-resolution encoder: its bottom-up network and its branches."""
        return {name: p for name, p in self.model.named_parameters() if is_low(name)}

    def forward(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> dict[str, Tensor]:
        """KL divergence of eq. (14) with z drawn from q_phi(. | x)."""
        assert y is not None
        kls = self.model.match(x, y, _posterior_draw(noise))
        if self.normalisation == "group":
            loss = torch.stack([kl.mean() for kl in kls]).sum()
        else:
            loss = torch.stack([kl.sum((1, 2, 3)).mean() for kl in kls]).sum() / x[0].numel()
        return {"loss": loss, "kl_first": kls[0].mean(), "kl_last": kls[-1].mean()}

    def preview(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> Tensor:
        """Super-resolved images at temperature 0.8 of the prior's groups."""
        assert y is not None
        model = self.model
        features = model.encoder_y(model.normalise(y))
        k = model.k

        def choose(l: int, block: TopDownBlock, state: Tensor, prior: Gaussian) -> Tensor:
            normal = noise.normal(*prior.mean.shape[1:])
            if l >= k:
                return prior.draw(normal, 0.8)
            return block.posterior(block.enc_y, state, features[block.resolution]).draw(normal)

        return _output(model, model.decoder(choose), noise)
