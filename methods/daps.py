"""Decoupled annealing posterior sampling, DAPS (Zhang et al., CVPR 2025).

Source: github:zhangbingliang2019/DAPS, sampler.py, cores/mcmc.py.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from bench.contract import Facts, register_method
from methods.diffusion.prior import pairs, polynomial
from methods.diffusion.sampler import DiffusionSampler, Normal, Task

FLOOR = 0.01 / math.sqrt(2) / 2
"""Smallest sigma that the conditional step takes, of images in [0, 1]: the published one, whatever the noise is."""


@register_method("daps")
class Daps(DiffusionSampler):
    """At each level: denoise by the ODE, draw x_0 given that and y by Langevin dynamics, noise it to the next level.

    Args:
        ode_steps: Euler steps of the ODE (published: 5).
        conditional: "langevin" (published), or "exact": its limit, drawn by the SVD of A.
        langevin_steps: published: 100.
        lr: step size of Langevin, falling to lr / 100 (published: 1e-4); never beyond where it would be unstable.
        assumed_sigma: sigma in Langevin's data term, of images in [0, 1]; None for the operator's, at least 0.0035
            (published: 0.0035, which is tau = 0.01 with the weight 2 / tau^2 in [-1, 1]).

    """

    facts = Facts(
        title="DAPS",
        uses_tau=False,
        evaluations=1000,
        citation="Zhang et al., CVPR 2025 (github:zhangbingliang2019/DAPS)",
        weights_licence="MIT (shipped)",
    )

    def __init__(
        self,
        ode_steps: Annotated[int, Field(ge=1)] = 5,
        conditional: Literal["langevin", "exact"] = "langevin",
        langevin_steps: Annotated[int, Field(ge=1)] = 100,
        lr: Annotated[float, Field(gt=0)] = 1e-4,
        assumed_sigma: Annotated[float, Field(gt=0)] | None = FLOOR,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.ode_steps = ode_steps
        self.conditional = conditional
        self.langevin_steps = langevin_steps
        self.lr = lr
        self.assumed_sigma = assumed_sigma

    @property
    def times(self) -> list[int]:
        """The steps whose noise is nearest to `steps` levels from 100 to 0.1."""
        return [self.levels.nearest(v) for v in polynomial(100, 0.1, self.steps + 1)[:-1]]

    def ode_times(self, t: int) -> list[int]:
        """From t to a level of 0.01; levels that share a step are one."""
        levels = polynomial(self.levels.level(t), 0.01, self.ode_steps + 1)[1:]
        return [t, *sorted({self.levels.nearest(v) for v in levels} - {t}, reverse=True)]

    @property
    def evaluations(self) -> int:
        """Euler steps at all levels."""
        return sum(len(self.ode_times(t)) - 1 for t in self.times)

    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Algorithm 1; images have the factor 1 in x, coefficients `c` are those of V."""
        prior, svd = self.prior, task.svd
        sigma = 2 * (max(task.sigma / 2, FLOOR) if self.assumed_sigma is None else self.assumed_sigma)
        data = (task.s / sigma).square()
        x = prior.level(self.times[0]) * normal()
        for i, (t, u) in enumerate(pairs(self.times)):
            ode = self.ode_times(t)
            for a, b in pairwise(ode):
                x = x + (prior.level(b) - prior.level(a)) * prior(prior.signal(a) * x, a).noise
            c0, hold = svd.v_t(x), prior.level(t) ** -2
            if self.conditional == "exact":
                c = (data * task.z + hold * c0) / (data + hold) + (data + hold).rsqrt() * normal()
            else:
                c, lr = c0, min(self.lr * (1 - 0.99 * i / (self.steps + 1)), 1 / (float(data.max()) + hold))
                for _ in range(self.langevin_steps):
                    c = c + lr * (data * (task.z - c) + hold * (c0 - c)) + math.sqrt(2 * lr) * normal()
            x = svd.v(c) + (prior.level(u) * normal() if u >= 0 else 0)
        return x
