"""Exact samples of the posterior, where a dataset offers it: what the best method would give."""

from __future__ import annotations

from torch import Tensor

from bench.contract import Facts, Method, Noise, register_method


@register_method("oracle")
class Oracle(Method):
    """Samples of p(x | y): the ceiling of every table."""

    facts = Facts(
        title="Oracle",
        uses_tau=False,
        needs_posterior=True,
        evaluations=0,
        citation="exact posterior of a Gaussian mixture (docs/truth.md)",
    )

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample exactly."""
        return self.operator.clip(self.posterior.sample(y, noise).float())
