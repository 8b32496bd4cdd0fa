"""Training of SR3 by continuous noise levels (Chen et al. 2021, as used by Saharia et al. 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from bench.training.trainable import BatchNoise, Trainable, register_trainable
from methods.sr3.checkpoints import load_weights
from methods.sr3.condition import Condition, upsample
from methods.sr3.sampler import TRAIN_STEPS, moves_of, sample, signal_levels
from methods.sr3.unet import Sr3Config, Sr3Unet

PREVIEW_STEPS = 50


@torch.no_grad()
def orthogonal(module: nn.Module) -> None:
    """Begin a layer with an orthogonal matrix, outputs x everything else, and a bias of zero."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@register_trainable("sr3")
class Sr3Training(Trainable):
    """Predict the noise at a noise level that is uniform between those of two neighbouring steps.

    Args:
        unet: shape of the network.
        scale: the scale factor to train for.
        loss: "l1" (published) or "l2".
        reduction: "mean" over all elements, as the public implementation (which divides its sum by their number), or
            their "sum".
        initialisation: "orthogonal" matrices and biases of zero for all layers with weights but the normalisations
            (public implementation), or the "default" ones of PyTorch.
        condition: enlargement of y that the network sees, "exact", or "pil" (8 bits; public implementation). The method
            must sample with the one that its weights were trained with.
        weights: file to begin with, or None.

    """

    scaled = True

    def __init__(
        self,
        unet: Sr3Config,
        scale: int,
        loss: Literal["l1", "l2"] = "l1",
        reduction: Literal["sum", "mean"] = "mean",
        initialisation: Literal["default", "orthogonal"] = "default",
        condition: Condition = "exact",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.network = Sr3Unet(unet)
        self.scale, self.loss, self.reduction = scale, loss, reduction
        self.enlargement: Condition = condition
        self.register_buffer("levels", signal_levels().float(), persistent=False)
        if weights:
            load_weights(self.network, weights)
        elif initialisation == "orthogonal":
            self.network.apply(orthogonal)

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters, by the names of the public checkpoints without their prefix."""
        return dict(self.network.named_parameters())

    def condition(self, y: Tensor) -> Tensor:
        """Bicubic upsample of y in [-1, 1], of the kind that was chosen."""
        height, width = y.shape[-2:]
        return upsample(y, (height * self.scale, width * self.scale), self.enlargement)

    def forward(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> dict[str, Tensor]:
        """Error of the predicted noise, or of the velocity where the network predicts that."""
        assert y is not None
        levels = self.levels
        assert isinstance(levels, Tensor)
        t = (noise.uniform() * TRAIN_STEPS).long()
        level = torch.lerp(levels[t], levels[t + 1], noise.uniform())
        eps = noise.normal(*x.shape[1:])
        signal = level[:, None, None, None]
        xt = signal * (2 * x - 1) + (1 - signal.square()).sqrt() * eps
        error = self.network(xt, self.condition(y), level) - eps
        if self.network.config.prediction == "velocity":
            error = error / signal
        elementwise = error.abs() if self.loss == "l1" else error.square()
        return {"loss": elementwise.mean() if self.reduction == "mean" else elementwise.flatten(1).sum(1).mean()}

    @torch.no_grad()
    def preview(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> Tensor:
        """Super-resolved images in 50 deterministic steps."""
        assert y is not None
        moves = moves_of(PREVIEW_STEPS)
        drawn = sample(self.network, moves, self.condition(y), lambda: noise.normal(*x.shape[1:]), "ddim")
        return ((drawn + 1) / 2).clamp(0, 1)
