"""Average pairwise distance in intensities, and the time per sample."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.errors import BenchError
from bench.metrics import Evaluation, Metric, MetricFacts, register_metric


@register_metric("apd_mse")
class ApdMse(Metric):
    """Mean square error between the samples of one image, over all pairs (paper, section 4.1)."""

    facts = MetricFacts(
        label="MSE",
        better="higher",
        unit="intensity^2",
        domain="pair",
        range="[0, 1]",
        source="paper, section 4.1; intensities in [0, 1], tables show x 1e4",
        group="Diversity (APD)",
        factor=1e4,
        column="_e4",
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, pairs]."""
        x = e.samples
        values = [(x[:, i] - x[:, j]).square().mean((1, 2, 3)) for i, j in e.pairs()]
        return torch.stack(values, 1) if values else x.new_zeros(len(x), 1)


@register_metric("seconds")
class Seconds(Metric):
    """Wall time of one sample at batch 1, measured by :mod:`bench.timing`, not computed from images."""

    facts = MetricFacts(
        label="time",
        better="lower",
        unit="s",
        domain="timing",
        range="> 0",
        source="bench.timing: batch 1, warm, device synchronised, loading and metrics not counted",
        group="Time",
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """Not a function of images."""
        raise BenchError("The metric 'seconds' is measured by the runner; it cannot be computed from images.")
