"""Wall time; measured by :mod:`bench.run.timing`, not computed from images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.metrics import Evaluation, Metric, MetricFacts, register_metric

if TYPE_CHECKING:
    from torch import Tensor

SOURCE = "bench.run.timing: methods in turns, warm, device synchronised, loading, noise and metrics not counted"


class _Timed(Metric):
    def __call__(self, e: Evaluation) -> Tensor:
        """Not a function of images."""
        raise BenchError("Wall time is measured by bench.run.timing, not from images.")


@register_metric("seconds")
class Seconds(_Timed):
    """Seconds for one sample at batch 1, as in the paper, without its noise."""

    facts = MetricFacts("Time", "lower", "s", "timing", "> 0", f"{SOURCE}; batch 1, median", "Time", digits=".2g")


@register_metric("noise_seconds")
class NoiseSeconds(_Timed):
    """Seconds for drawing the noise of that sample on the CPU, and its way to the device."""

    facts = MetricFacts(
        "Noise", "lower", "s", "timing", ">= 0", "bench.run.timing: drawn before the clock of `seconds` starts, median",
        "Time", digits=".2g",
    )  # fmt: skip


@register_metric("throughput")
class Throughput(_Timed):
    """Samples per second at the best batch."""

    facts = MetricFacts("Throughput", "higher", "1/s", "timing", "> 0", f"{SOURCE}; best batch", "Time", digits=".3g")
