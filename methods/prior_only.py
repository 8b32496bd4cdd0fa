"""Samples of the prior, whatever y is: the floor of every table."""

from __future__ import annotations

from torch import Tensor

from bench.contract import Facts, Method, Noise, register_method


@register_method("prior_only")
class PriorOnly(Method):
    """Samples of p(x): as diverse as can be and right about nothing."""

    facts = Facts(
        title="Prior only",
        uses_tau=False,
        needs_posterior=True,
        evaluations=0,
        citation="prior of a Gaussian mixture (docs/truth.md)",
    )

    def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Sample the prior."""
        return self.operator.clip(self.posterior.mixture.sample(noise).float())
