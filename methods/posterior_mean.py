"""The mean of the posterior, where a dataset offers it: the estimate of least mean square error."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.contract import Facts, Method, Noise, register_method


@register_method("posterior_mean")
class PosteriorMean(Method):
    """E[x | y]: the highest PSNR that there is, and no diversity."""

    facts = Facts(
        title="Posterior mean",
        uses_tau=False,
        deterministic=True,
        needs_posterior=True,
        evaluations=0,
        citation="exact posterior of a Gaussian mixture (docs/truth.md)",
    )

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Repeat the mean `n` times."""
        mean = torch.stack([self.posterior.given(row).mean for row in y]).float()
        return self.operator.clip(mean)[:, None].expand(-1, n, -1, -1, -1).contiguous()
