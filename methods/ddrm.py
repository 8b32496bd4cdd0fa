"""Denoising diffusion restoration models (Kawar et al., NeurIPS 2022): a step for each singular value of A.

Source: github:bahjat-kawar/ddrm, functions/denoising.py; scripts/compare_samplers.py runs it beside this.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Facts, register_method
from methods.diffusion.prior import even, pairs
from methods.diffusion.sampler import DiffusionSampler, Normal, Task


@register_method("ddrm")
class Ddrm(DiffusionSampler):
    """What A does not see is denoised, what it sees is y's as long as y is less noisy than x_t.

    Args:
        eta: share of fresh noise where y says nothing new (published: 0.85).
        eta_b: weight of y where it is less noisy than x_t (published: 1).

    """

    facts = Facts(
        title="DDRM",
        version=2,
        uses_tau=False,
        evaluations=20,
        citation="Kawar et al., NeurIPS 2022 (github:bahjat-kawar/ddrm)",
        weights_licence="MIT (shipped)",
    )

    def __init__(
        self,
        eta: Annotated[float, Field(ge=0, le=1)] = 0.85,
        eta_b: Annotated[float, Field(ge=0, le=1)] = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.eta = eta
        self.eta_b = eta_b

    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Equations 4 to 8; coefficients of V are of x_t / sqrt(alpha_bar_t), whose noise has the level `v`."""
        prior, z, spread = self.prior, task.z, task.spread
        v_t, v_of = task.svd.v_t, task.svd.v
        times = even(prior.steps, self.steps)
        keep = math.sqrt(1 - self.eta**2)

        v = prior.level(times[0])
        known = spread < v  # y says more than pure noise does
        c = torch.where(known, z, 0.0) + (v**2 - torch.where(known, spread, 0.0).square()).sqrt() * normal()
        x = prior.signal(times[0]) * v_of(c)
        for t, u in pairs(times):
            estimate = prior(x, t)
            x0, noise, fresh = v_t(estimate.x0), v_t(estimate.noise), normal()
            v = prior.level(u)
            unseen = x0 + v * (keep * noise + self.eta * fresh)
            noisier = x0 + v * (keep * (z - x0) / spread + self.eta * fresh)  # y is noisier than x_u
            rest = (v**2 - (self.eta_b * spread).square()).clamp(min=0).sqrt()
            better = (1 - self.eta_b) * x0 + self.eta_b * z + rest * fresh
            c = torch.where(task.s > 0, torch.where(v < spread, noisier, better), unseen)
            x = prior.signal(u) * v_of(c)
        return x
