"""What zero-shot posterior samplers share: one prior, y in the network's units, the SVD of A, noise for each row.

A sampler is one file, one class::

    @register_method("mine")
    class Mine(DiffusionSampler):
        facts = Facts(title="Mine", uses_tau=False)

        def trajectory(self, task, normal):       # rows of y -> x in [-1, 1]
            ...
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cached_property, partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Noise
from bench.network import NetworkMethod
from bench.operators import Operator, Svd
from methods.diffusion.checkpoints import NAMED, load_weights
from methods.diffusion.exact import ExactDenoiser, Mixture
from methods.diffusion.prior import DiffusionPrior, Levels
from methods.diffusion.schedule import TRAIN_STEPS, linear
from methods.diffusion.unet import PriorNetwork, UnetConfig

LINEAR = Levels(linear())
"""Of all priors that are known so far."""

Normal = Callable[[], Tensor]
"""Draws standard normal [R, 3, H, W], a stream of its own for each row."""


class Task:
    """y = A x + sigma n for some rows, in the network's units: x in [-1, 1], sigma twice the operator's.

    Coefficients are those of A = U diag(s) V^T, laid out as images.

    Args:
        operator: A and sigma for images in [0, 1].
        y: observations [R, 3, h, w] of images in [0, 1].

    """

    def __init__(self, operator: Operator, y: Tensor) -> None:
        self.operator = operator
        self.y = 2 * y - operator.forward(y.new_ones(*operator.size))  # A (2 x - 1)
        self.sigma = 2 * operator.sigma

    @cached_property
    def svd(self) -> Svd:
        """The decomposition of A."""
        return self.operator.svd()

    @property
    def s(self) -> Tensor:
        """Singular values [H, W], 0 where A sees nothing."""
        return self.svd.s

    @cached_property
    def z(self) -> Tensor:
        """Coefficients of A^+ y, [R, 3, H, W]: what y says of those of x, 0 where A sees nothing."""
        return torch.where(self.s > 0, self.svd.u_t(self.y) / self.s, 0.0)

    @cached_property
    def spread(self) -> Tensor:
        """Standard deviation sigma / s of `z` [H, W]; infinite where A sees nothing."""
        return torch.where(self.s > 0, self.sigma / self.s, torch.inf)

    def gain(self, variance: float) -> Tensor:
        """Share [H, W] of y against an estimate of x of this variance: variance / (variance + sigma^2 / s^2)."""
        return torch.where(self.s > 0, variance / (variance + self.spread.square()), 0.0)

    def pull(self, x: Tensor, gain: Tensor | float) -> Tensor:
        """From x towards y, by a gain for each coefficient [H, W]; a gain of 1 is A^+ (y - A x)."""
        return self.svd.v(torch.where(self.s > 0, gain * (self.z - self.svd.v_t(x)), 0.0))


class DiffusionSampler(NetworkMethod):
    """A posterior sampler on an unconditional diffusion prior; one prior serves every operator.

    Args:
        unet: shape of the prior.
        weights: file; a bare name is looked for among the shipped weights. "exact": no network but the exact denoiser
            of the dataset's images, where their distribution is known. "gaussians": the network that was trained on
            those of dataset=gaussians at 32 pixels. `unet` does not count for these two.
        steps: steps of the outer loop.

    """

    prior: DiffusionPrior

    def __init__(
        self, unet: UnetConfig, weights: str, steps: Annotated[int, Field(ge=2, le=TRAIN_STEPS)], **common: Any
    ) -> None:
        super().__init__(**common)
        self.config, self.weights = NAMED.get(weights, (unet, weights))
        self.steps = steps

    @property
    def size(self) -> tuple[int, int] | None:
        """The prior's; any where it is exact."""
        return None if self.needs_posterior else (self.config.size, self.config.size)

    @property
    def needs_posterior(self) -> bool:
        """Where the prior is the exact one."""
        return self.weights == "exact"

    @property
    def levels(self) -> Levels:
        """The noise levels of the prior, known before it is loaded."""
        return getattr(self, "prior", LINEAR)

    @property
    def evaluations(self) -> int:
        """One per step."""
        return self.steps

    def load(self) -> None:
        """Build the network and load its weights, or take the exact denoiser."""
        if self.needs_posterior:
            known = self.posterior.mixture  # of images in [0, 1]
            columns = known.factors.flatten(2).mT
            mixture = Mixture.of_factors(known.weights, known.means.flatten(1), columns, known.stds).affine(2.0, -1.0)
            network = ExactDenoiser(mixture.to(self.device, torch.float64), linear())
            self.prior = DiffusionPrior(network, linear(), "clean")
            return
        unet = PriorNetwork(self.config)
        self.loaded = {"prior": load_weights(unet, self.weights)}
        if self.compute.checkpointing:
            unet.unet.enable_gradient_checkpointing()
        self.prior = DiffusionPrior(self.place(unet), linear(), self.config.prediction)

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample, some rows at a time; there is no temperature."""
        rows = y.repeat_interleave(n, 0)
        parts = []
        with self.autocast():
            for part in self.pieces(len(rows)):
                normal = partial(noise.normal, 3, *self.operator.size, rows=part)
                parts.append(self.trajectory(Task(self.operator, rows[part]), normal))
        return self.finish((torch.cat(parts) + 1) / 2, y)

    @abstractmethod
    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Sample x given y; what a sampler writes.

        Args:
            task: y of some rows, A and sigma, in the network's units.
            normal: the only source of randomness.

        Returns:
            [R, 3, H, W] in [-1, 1] or a little beyond; each row depends on itself alone.

        """
