"""Wall time; measured by :mod:`bench.run.timing`, not computed from images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.metrics import Evaluation, Metric, MetricFacts, register_metric

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "bench.run.timing: warm, device synchronised, loading and metrics not counted"


class _Timed(Metric):
    def __call__(self, e: Evaluation) -> Tensor:
        """Not a function of images."""
        raise BenchError("Wall time is measured by bench.run.timing, not from images.")


@register_metric("seconds")
class Seconds(_Timed):
    """Seconds for one sample at batch 1, as in the paper."""

    facts = MetricFacts("Time", "lower", "s", "timing", "> 0", f"{SOURCE}; batch 1", "Time", digits=".2g")


@register_metric("throughput")
class Throughput(_Timed):
    """Samples per second at the best batch."""

    facts = MetricFacts("Throughput", "higher", "1/s", "timing", "> 0", f"{SOURCE}; best batch", "Time", digits=".3g")
