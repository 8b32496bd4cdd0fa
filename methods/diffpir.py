"""DiffPIR (Zhu et al., CVPRW 2023): the predicted image is fitted to y by a proximal step, then noised again.

Source: github:yuanzhi-zhu/DiffPIR, main_ddpir_sisr.py, utils/utils_sisr.py.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from bench.contract import Facts, register_method
from methods.diffusion.prior import pairs, quadratic
from methods.diffusion.sampler import DiffusionSampler, Normal, Task

FLOOR = 0.001
"""The published code's smallest sigma, of images in [0, 1]."""


@register_method("diffpir")
class Diffpir(DiffusionSampler):
    """x' = argmin |y - A x|^2 + rho |x - x0|^2, rho = lambda sigma^2 / level^2, by the SVD of A.

    Args:
        regularisation: lambda, the weight of the prior (published: 1).
        zeta: share of the variance of fresh noise (published: 0.25).
        clip: whether the predicted image is kept within [-1, 1] (published: yes).
        as_coded: sigma of images in [0, 1] beside the level of images in [-1, 1], which makes rho four times smaller;
            sigma at least 0.001; and no last step: its prediction is not used, the noise of level 0.01 stays.

    """

    facts = Facts(
        title="DiffPIR",
        version=2,
        uses_tau=False,
        evaluations=100,
        citation="Zhu et al., CVPRW 2023 (github:yuanzhi-zhu/DiffPIR)",
        weights_licence="MIT (shipped)",
    )

    def __init__(
        self,
        regularisation: Annotated[float, Field(gt=0)] = 1.0,
        zeta: Annotated[float, Field(ge=0, le=1)] = 0.25,
        clip: bool = True,
        as_coded: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.regularisation = regularisation
        self.zeta = zeta
        self.clip = clip
        self.as_coded = as_coded

    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Algorithm 1, from A^+ y with noise."""
        prior = self.prior
        sigma = max(task.sigma / 2, FLOOR) if self.as_coded else task.sigma
        times = quadratic(prior.steps, self.steps)
        x = prior.noised(task.svd.v(task.z), normal(), times[0])
        for t, u in pairs(times):
            x0 = prior(x, t).x0
            if self.clip:
                x0 = x0.clamp(-1, 1)
            if u < 0 and self.as_coded:
                return x
            rho = self.regularisation * (sigma / prior.level(t)) ** 2
            x0 = x0 + task.pull(x0, task.s.square() / (task.s.square() + rho))
            if u < 0:
                return x0
            noise = (x - prior.signal(t) * x0) / prior.noise(t)
            x = prior.noised(x0, math.sqrt(1 - self.zeta) * noise + math.sqrt(self.zeta) * normal(), u)
        raise AssertionError("the last step returns")
