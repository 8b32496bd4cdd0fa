"""Diffusion posterior sampling (Chung et al., ICLR 2023, algorithm 1).

Source: github:DPS2022/diffusion-posterior-sampling; scripts/compare_dps.py runs it beside this.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from bench.contract import Facts, register_method
from methods.diffusion.prior import pairs, spread
from methods.diffusion.sampler import DiffusionSampler, Normal, Task


@register_method("dps")
class Dps(DiffusionSampler):
    """Ancestral steps, each followed by a step of the gradient of the distance to y.

    Args:
        guidance: step size zeta of the gradient of the distance (published: 0.3). With fewer steps than 1000 it must be
            larger.
        guidance_schedule: "constant" (published); "noise" multiplies zeta by the standard deviation of the noise in
            x_t, so that guidance fades out at the end.
        clip: whether the predicted clean image is kept within [-1, 1] at every step (published: yes).
        coupled: the published norm over the whole batch; results then depend on the rows that compute together (the
            published code's issue 12). Off, each row has its own norm, so that a batch gives what single images give.

    """

    facts = Facts(
        title="DPS",
        version=2,
        uses_tau=False,
        evaluations=1000,
        backward_passes=1000,
        citation="Chung et al., ICLR 2023 (github:DPS2022/diffusion-posterior-sampling)",
        weights_licence="MIT (shipped); not stated (ffhq_10m)",
    )

    def __init__(
        self,
        guidance: float = 0.3,
        guidance_schedule: Literal["constant", "noise"] = "constant",
        clip: bool = True,
        coupled: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.guidance = guidance
        self.guidance_schedule = guidance_schedule
        self.clip = clip
        self.coupled = coupled

    @property
    def backward_passes(self) -> int:
        """One per step."""
        return self.steps

    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Algorithm 1; the norm is not squared."""
        prior = self.prior
        x = normal()
        for t, u in pairs(spread(prior.steps, self.steps)):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                estimate = prior(x, t)
                if self.clip:
                    estimate = estimate._replace(x0=estimate.x0.clamp(-1, 1))
                residual = (task.y - task.operator.forward(estimate.x0)).flatten(1)
                distance = residual.norm() if self.coupled else residual.norm(dim=1).sum()
                (gradient,) = torch.autograd.grad(distance, x)
            fade = 1.0 if self.guidance_schedule == "constant" else prior.noise(t)
            noise = normal() if u >= 0 else gradient  # none is added at the end
            x = (prior.ancestral(x, estimate, t, u, noise) - self.guidance * fade * gradient).detach()
        return x
