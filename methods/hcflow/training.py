"""Training of HCFlow by likelihood, with the pixel and perceptual terms of HCFlow+ as options."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.metrics.perceptual import PerceptualNet, load_net
from bench.training.trainable import BatchNoise, Trainable, register_trainable
from methods.hcflow.checkpoints import load_weights
from methods.hcflow.flow import Hcflow, HcflowConfig
from methods.hcflow.method import flow_config


@register_trainable("hcflow")
class HcflowTraining(Trainable):
    """Maximise the likelihood of x and y.

    Args:
        flow: "x4", "x8" to the shape of the flow.
        scale: the scale factor to train for.
        nll_weight: weight of the negative log-likelihood in bits per dimension.
        pixel_weight: weight of the L1 distance of the image at temperature 0 (HCFlow+: 1, with a small nll_weight).
        perceptual_weight: weight of a perceptual distance of a sample at `perceptual_tau`.
        perceptual: that distance, one of :data:`bench.metrics.PERCEPTUAL`.
        perceptual_tau: its temperature (HCFlow++: 0.8).
        alternate: whether each term gets a step of the optimiser of its own, one after the other (official), in place
            of one step for their sum.
        weights: file to begin with, or None.

    """

    scaled = True

    def __init__(
        self,
        flow: Mapping[str, HcflowConfig],
        scale: int,
        nll_weight: float = 1.0,
        pixel_weight: float = 0.0,
        pixel_tau: float = 0.0,
        perceptual_weight: float = 0.0,
        perceptual: str = "stlpips_alex",
        perceptual_tau: float = 0.8,
        alternate: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.model = Hcflow(flow_config(flow, scale))
        self.nll_weight, self.pixel_weight, self.perceptual_weight = nll_weight, pixel_weight, perceptual_weight
        self.pixel_tau = pixel_tau
        self.perceptual, self.perceptual_tau = perceptual, perceptual_tau
        parts = {"nll": nll_weight, "pixel": pixel_weight, "perceptual": perceptual_weight}
        self.turns = tuple(name for name, weight in parts.items() if weight) if alternate else ()
        self.ready = weights is not None
        if weights:
            load_weights(self.model, weights)

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters, by the names of the official checkpoints."""
        return dict(self.model.named_parameters())

    @torch.no_grad()
    def initialise(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> None:
        """Set every ActNorm by the first batch (Glow's data-dependent initialisation)."""
        if self.ready:
            return
        for norm in self.model.act_norms():
            norm.pending = True
        self._log_prob(x, y, noise)

    def _log_prob(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> tuple[Tensor, Tensor]:
        assert y is not None
        return self.model.log_prob(x + noise.uniform(*x.shape[1:]) / self.model.config.quant, y)

    def _generate(self, y: Tensor, size: tuple[int, int], tau: float, noise: BatchNoise) -> Tensor:
        return self.model.generate(y, [tau * noise.normal(*shape) for shape in self.model.shapes(size)])

    def _net(self, device: torch.device) -> PerceptualNet:
        return load_net(self.perceptual, device)

    def forward(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> dict[str, Tensor]:
        """The weighted sum of the terms, or the one whose turn it is, and the terms that are used."""
        assert y is not None
        size = (x.shape[-2], x.shape[-1])
        loss, terms = x.new_zeros(()), {}
        if self.turn in (None, "nll"):
            log_prob, observed = self._log_prob(x, y, noise)
            terms["nll"] = self.model.bits_per_dimension(log_prob, x[0].numel()).mean()
            terms["lr_error"] = (observed - y).abs().mean()
            loss = loss + self.nll_weight * terms["nll"]
        if self.pixel_weight and self.turn in (None, "pixel"):
            terms["pixel"] = (self._generate(y, size, self.pixel_tau, noise).clamp(0, 1) - x).abs().mean()
            loss = loss + self.pixel_weight * terms["pixel"]
        if self.perceptual_weight and self.turn in (None, "perceptual"):
            net = self._net(x.device)
            drawn = self._generate(y, size, self.perceptual_tau, noise).clamp(0, 1)
            terms["perceptual"] = net.distance(net.embed(drawn), net.embed(x)).mean()
            loss = loss + self.perceptual_weight * terms["perceptual"]
        return {"loss": loss, **terms}

    @torch.no_grad()
    def preview(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> Tensor:
        """Samples at temperature 0.8."""
        assert y is not None
        return self._generate(y, (x.shape[-2], x.shape[-1]), 0.8, noise).clamp(0, 1)
