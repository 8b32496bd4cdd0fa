"""PnP-DM, the split Gibbs sampler (Wu et al., NeurIPS 2024), with its stochastic prior step.

Exact as the coupling rho goes to 0 and the steps become many. Source: github:zihuiwu/PnP-DM-public,
pnpdm/samplers/pnp_edm.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from bench.contract import Facts, register_method
from bench.errors import BenchError
from methods.diffusion.prior import pairs, spread
from methods.diffusion.sampler import DiffusionSampler, Normal, Task


@register_method("pnpdm")
class Pnpdm(DiffusionSampler):
    """In turns: z given x and y, exactly by the SVD of A; x given z, by the reverse diffusion from the noise rho.

    At a fixed rho a sample is of the posterior whose noise has the variance sigma^2 + rho^2 A A^T.

    Args:
        inner: steps that the reverse diffusion would have from pure noise; from rho it has those below.
        rho: first coupling, of images in [0, 1] (published: 5, which is 10 in [-1, 1]).
        rho_min: last coupling (published: 0.15); below the prior's lowest level (0.005 on the linear schedule) it is
            that level.
        decay: factor of rho in a hundredth of the iterations (published: 0.9, so that a third of them are burn-in).
        variance: of the reverse diffusion's steps: "sde" (published, that of the reverse SDE's), or "learned", the
            prior's own, which leaves less noise where the steps are few; only of a prior that has learned one.

    """

    facts = Facts(
        title="PnP-DM",
        uses_tau=False,
        evaluations=1960,
        citation="Wu et al., NeurIPS 2024 (github:zihuiwu/PnP-DM-public)",
        weights_licence="MIT (shipped)",
    )

    def __init__(
        self,
        inner: Annotated[int, Field(ge=2)] = 100,
        rho: Annotated[float, Field(gt=0)] = 5.0,
        rho_min: Annotated[float, Field(gt=0)] = 0.15,
        decay: Annotated[float, Field(gt=0, le=1)] = 0.9,
        variance: Literal["sde", "learned"] = "sde",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.inner = inner
        self.rho = rho
        self.rho_min = rho_min
        self.decay = decay
        self.variance = variance

    @property
    def chains(self) -> list[list[int]]:
        """The steps of the reverse diffusion of each iteration; the level of the first one is its rho."""
        grid = spread(self.levels.steps, self.inner)
        chains = []
        for i in range(self.steps):
            rho = 2 * max(self.rho * self.decay ** (100 * i / self.steps), self.rho_min)
            first = self.levels.nearest(rho)
            chains.append([first, *(t for t in grid if t < first)])
        return chains

    @property
    def evaluations(self) -> int:
        """Steps of all iterations."""
        return sum(map(len, self.chains))

    def load(self) -> None:
        """Load the prior; one without a learned variance would take the posterior's of DDPM, which is too narrow."""
        if self.variance == "learned" and not self.learned_variance:
            raise BenchError(f"weights={self.weights} has no learned variance: use variance=sde.")
        super().load()

    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Algorithm 1, from x = 0."""
        prior, svd = self.prior, task.svd
        x = 0 * normal()
        for chain in self.chains:
            variance = prior.level(chain[0]) ** 2  # rho^2
            gain = task.gain(variance)
            c = svd.v_t(x)
            c = c + gain * (task.z - c) + (variance * (1 - gain)).sqrt() * normal()
            x = math.sqrt(prior.kept(chain[0])) * svd.v(c)
            for t, u in pairs(chain):
                estimate = prior(x, t)
                if self.variance == "sde":
                    estimate = estimate._replace(mixing=x.new_ones(()))
                x = prior.ancestral(x, estimate, t, u, normal() if u >= 0 else x)
        return x
