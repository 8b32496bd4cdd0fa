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
from functools import cached_property
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Noise
from bench.errors import BenchError
from bench.network import NetworkMethod
from bench.operators import Operator, Svd
from methods.diffusion.checkpoints import NAMED, load_weights
from methods.diffusion.exact import ExactDenoiser, Mixture
from methods.diffusion.pretrained import Pretrained, is_pretrained
from methods.diffusion.prior import DiffusionPrior, Levels
from methods.diffusion.schedule import TRAIN_STEPS, linear
from methods.diffusion.unet import DiffusersNetwork, PriorNetwork, UnetConfig

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
        return self.svd.pull(x, self.z, gain)


class DiffusionSampler(NetworkMethod):
    """A posterior sampler on an unconditional diffusion prior; one prior serves every operator.

    Args:
        weights: file; a bare name is looked for among the shipped weights. Without `unet`: "hf:OWNER/NAME@COMMIT" or a
            folder, a prior in diffusers' format with its own shape, schedule and variance; or "exact", no network but
            the exact denoiser of the dataset's images, where their distribution is known. "gaussians": the network that
            was trained on those of dataset=gaussians at 32 pixels.
        steps: steps of the outer loop.
        unet: shape of the prior whose weights are a file; it does not count for the others.

    """

    prior: DiffusionPrior

    def __init__(
        self,
        weights: str,
        steps: Annotated[int, Field(ge=2, le=TRAIN_STEPS)],
        unet: UnetConfig | None = None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.config, self.weights = NAMED.get(weights, (unet, weights))
        self.steps = steps

    @cached_property
    def pretrained(self) -> Pretrained | None:
        """The prior in diffusers' format, None where it is another one; fetched when it is first asked for."""
        return Pretrained(self.weights) if is_pretrained(self.weights) and not self.needs_posterior else None

    @property
    def size(self) -> tuple[int, int] | None:
        """The prior's; any where it is exact."""
        if self.needs_posterior:
            return None
        side = self.pretrained.size if self.pretrained else self.shape.size
        return side, side

    @property
    def shape(self) -> UnetConfig:
        """Shape of the network whose weights are a file."""
        if self.config is None:
            raise BenchError(
                f"weights={self.weights} is no folder and no hf:OWNER/NAME, and a file needs the shape of its network: "
                "mend the name, or choose a prior that has a shape, as prior@methods.NAME=small64."
            )
        return self.config

    @property
    def needs_posterior(self) -> bool:
        """Where the prior is the exact one."""
        return self.weights == "exact"

    @property
    def learned_variance(self) -> bool:
        """Whether the prior has a learned variance of its steps that is to be used; a file says so in its shape."""
        if self.needs_posterior:
            return False
        return self.pretrained.learned if self.pretrained else self.shape.learned_variance

    @property
    def levels(self) -> Levels:
        """The noise levels of the prior, known before it is loaded."""
        if hasattr(self, "prior"):
            return self.prior
        if self.needs_posterior:
            return Levels(linear())
        return self.pretrained.levels if self.pretrained else Levels(self.shape.alpha_bar)

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
            exact = ExactDenoiser(mixture.to(self.device, torch.float64), linear())
            self.prior = DiffusionPrior(exact, linear(), "clean")
        elif found := self.pretrained:
            if self.steps > found.levels.steps:
                raise BenchError(f"steps={self.steps} is more than the {found.levels.steps} of {self.weights}.")
            network, self.loaded = found.load()
            self.prior = DiffusionPrior(self.ready(network), found.alpha_bar, found.prediction, found.variance)
        else:
            ours = PriorNetwork(self.shape)
            self.loaded = {"prior": load_weights(ours, self.weights)}
            shape = self.shape
            self.prior = DiffusionPrior(
                self.ready(ours), shape.alpha_bar, shape.prediction, learned=shape.learned_variance
            )

    def ready(self, network: DiffusersNetwork) -> DiffusersNetwork:
        """Place a network for sampling, with the memory for gradients that is asked for."""
        if self.compute.checkpointing:
            network.unet.enable_gradient_checkpointing()
        placed: DiffusersNetwork = self.place(network)
        return placed

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample, some rows at a time; there is no temperature."""
        rows = y.repeat_interleave(n, 0)
        x = self.by_rows(noise, lambda part, normal: self.trajectory(Task(self.operator, rows[part]), normal))
        return self.finish((x + 1) / 2, y)

    @abstractmethod
    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Sample x given y; what a sampler writes.

        Args:
            task: y of some rows, A and sigma, in the network's units.
            normal: the only source of randomness.

        Returns:
            [R, 3, H, W] in [-1, 1] or a little beyond; each row depends on itself alone.

        """
