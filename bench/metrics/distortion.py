"""Distortion to the ground truth and consistency with the observation, by piq, which the authors used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import Evaluation, Metric, MetricFacts, register_metric

if TYPE_CHECKING:
    from torch import Tensor


@register_metric("psnr")
class Psnr(Metric):
    """Peak signal-to-noise ratio over the three colour channels."""

    facts = MetricFacts(
        label="PSNR",
        better="higher",
        unit="dB",
        domain="sample",
        range="[0, 80]; piq adds 1e-8 to the mean square error",
        source="piq.psnr on RGB in [0, 1]",
        group="Distortion",
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, n] in dB."""
        import piq

        return e.per_sample(piq.psnr(e.flat, e.hr_repeated, data_range=1.0, reduction="none"))


@register_metric("ssim")
class Ssim(Metric):
    """Structural similarity (Wang et al. 2004), Gaussian window of 11 pixels."""

    facts = MetricFacts(
        label="SSIM",
        better="higher",
        unit="",
        domain="sample",
        range="[-1, 1]",
        source="piq.ssim, window 11, sigma 1.5, mean over RGB",
        group="Distortion",
        digits=".3f",
        least_size=11,  # of the window
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, n]."""
        import piq

        return e.per_sample(piq.ssim(e.flat, e.hr_repeated, data_range=1.0, reduction="none"))


@register_metric("lr_psnr")
class LrPsnr(Metric):
    """PSNR between the observation and the downscaled sample (not rounded)."""

    facts = MetricFacts(
        label="LR-PSNR",
        better="higher",
        unit="dB",
        domain="sample",
        range="[0, 80]; piq adds 1e-8 to the mean square error",
        source="piq.psnr between y and D x",
        group="Consistency",
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, n] in dB."""
        import piq

        low = e.operator.forward(e.flat).clamp(0, 1)  # the kernel may overshoot [0, 1], which piq refuses
        y = e.y.repeat_interleave(e.samples.shape[1], 0)
        return e.per_sample(piq.psnr(low, y, data_range=1.0, reduction="none"))
