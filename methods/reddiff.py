"""RED-diff (Mardani et al. 2023, arXiv 2305.04391): an image is optimised under a denoiser's regularisation.

It seeks one mode: a control for collapsed diversity. Source: github:NVlabs/RED-diff, algos/reddiff.py.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from bench.contract import Facts, register_method
from methods.diffusion.prior import even
from methods.diffusion.sampler import DiffusionSampler, Normal, Task


@register_method("reddiff")
class Reddiff(DiffusionSampler):
    """One step of Adam per noise level, from the noisiest down; sigma has no part in it.

    Args:
        lr: step size of Adam (published: 0.1).
        regularisation: lambda, the weight of the denoiser's term (published: 0.25).

    """

    facts = Facts(
        title="RED-diff",
        version=2,
        uses_tau=False,
        evaluations=100,
        citation="Mardani et al. 2023, arXiv 2305.04391 (github:NVlabs/RED-diff)",
        weights_licence="MIT (shipped)",
    )

    def __init__(
        self,
        lr: Annotated[float, Field(gt=0)] = 0.1,
        regularisation: Annotated[float, Field(ge=0)] = 0.25,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.lr = lr
        self.regularisation = regularisation

    def trajectory(self, task: Task, normal: Normal) -> Tensor:
        """Algorithm 1 with lambda sqrt((1 - alpha_bar) / alpha_bar), from A^+ y.

        The data term is a mean over y's values and the denoiser's one over x's, as published: at x4 the denoiser's
        weight is 16 times smaller against sums.
        """
        prior, operator = self.prior, task.operator
        mu = task.svd.v(task.z)
        adam = torch.optim.Adam([mu], lr=self.lr, betas=(0.9, 0.99))  # of each value alone: rows stay independent
        for t in even(prior.steps, self.steps):
            noise = normal()
            error = prior(prior.noised(mu, noise, t), t).noise - noise
            data = operator.adjoint(operator.forward(mu) - task.y) / task.y[0].numel()
            mu.grad = data + self.regularisation * prior.level(t) * error / mu[0].numel()
            adam.step()
        return mu
