"""Average pairwise distance in intensities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import Evaluation, Metric, MetricFacts, register_metric

if TYPE_CHECKING:
    from torch import Tensor


@register_metric("apd_mse")
class ApdMse(Metric):
    """Mean square error between the samples of one image, over all pairs (paper, section 4.1)."""

    facts = MetricFacts(
        label="MSE",
        better="neither",
        unit="intensity^2",
        domain="pair",
        range="[0, 1]",
        source="paper, section 4.1; intensities in [0, 1], tables show x 1e4",
        group="Diversity (APD)",
        factor=1e4,
        column="_e4",
        digits=".1f",
        needs_range=False,
        bounds=(0.0, None),
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, pairs]."""
        import torch

        x = e.samples
        values = [(x[:, i] - x[:, j]).square().mean((1, 2, 3)) for i, j in e.pairs()]
        return torch.stack(values, 1) if values else e.spread_of_one[:, None]
