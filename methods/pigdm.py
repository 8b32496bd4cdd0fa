"""Pseudoinverse-guided diffusion models, PiGDM (Song et al., ICLR 2023).

Source of the code's form: github:NVlabs/RED-diff, algos/pgdm.py; of the full rule: the paper, equations 7 and 8.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Facts, register_method
from methods.diffusion.prior import even, pairs
from methods.diffusion.sampler import DiffusionSampler, Normal, Task


@register_method("pigdm")
class Pigdm(DiffusionSampler):
    """DDIM steps with the gradient of log p(y | x_t), where p(x_0 | x_t) is taken as N(x0, r^2 I).

    Args:
        eta: share of fresh noise (published: 1).
        rule: "paper": r^2 A A^T + sigma^2 I with r^2 = 1 - alpha_bar, and the guided noise as well; "code": A^+ without
            sigma, and the guided image alone, so that guidance grows with the number of steps.
        weight: of the guidance (published: 1).

    """

    facts = Facts(
        title="PiGDM",
        version=2,
        uses_tau=False,
        evaluations=100,
        backward_passes=100,
        citation="Song et al., ICLR 2023 (github:NVlabs/RED-diff)",
        weights_licence="MIT (shipped)",
    )

    def __init__(
        self,
        eta: Annotated[float, Field(ge=0, le=1)] = 1.0,
        rule: Literal["paper", "code"] = "paper",
        weight: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.eta = eta
        self.rule = rule
        self.weight = weight

    @property
    def backward_passes(self) -> int:
        """One per step."""
        return self.steps

    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Algorithm 1, from A^+ y with noise."""
        prior = self.prior
        times = even(prior.steps, self.steps)
        x = prior.noised(task.svd.v(task.z), normal(), times[0])
        for t, u in pairs(times):
            a, b = prior.kept(t), prior.kept(u)
            c1 = self.eta * math.sqrt((1 - b) * (1 - a / b) / (1 - a))
            c2 = math.sqrt(1 - b - c1**2)
            variance = 1 - a
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                x0, noise, _ = prior(x, t)
                # A^T (r^2 A A^T + sigma^2)^-1 (y - A x0), or A^+ (y - A x0)
                gain = task.gain(variance) / variance if self.rule == "paper" else 1.0
                pull = task.pull(x0.detach(), gain)
                (gradient,) = torch.autograd.grad((pull * x0).sum(), x)
            if self.rule == "paper":
                factor = math.sqrt(b) * (1 - a) / math.sqrt(a) - c2 * math.sqrt(1 - a)
            else:
                factor = math.sqrt(a * b)
            fresh = normal() if u >= 0 else x0
            x = (math.sqrt(b) * x0 + c1 * fresh + c2 * noise + self.weight * factor * gradient).detach()
        return x
