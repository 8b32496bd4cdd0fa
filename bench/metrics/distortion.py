"""Distortion to the ground truth and consistency with the observation, by piq, which the authors used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics import Evaluation, Metric, MetricFacts, register_metric

if TYPE_CHECKING:
    from torch import Tensor

    from bench.operators import Operator


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [M] of images [M, C, H, W] for a peak of 1, as piq computes it, of any intensities."""
    return -10 * ((x - y).square().mean((1, 2, 3)) + 1e-8).log10()


def consistency_psnr(low: Tensor, y: Tensor, operator: Operator) -> Tensor:
    """`psnr` [M] of A x beside y, both [M, C, h, w], over what the operator observes: a hidden pixel is 0 in both."""
    share = operator.observed / (y.shape[-2] * y.shape[-1])
    return -10 * ((low - y).square().mean((1, 2, 3)) / share + 1e-8).log10()


@register_metric("psnr")
class Psnr(Metric):
    """Peak signal-to-noise ratio over the three colour channels."""

    facts = MetricFacts(
        label="PSNR",
        better="higher",
        unit="dB",
        domain="sample",
        range="[0, 80]; piq adds 1e-8 to the mean square error",
        source="as piq.psnr on RGB, peak 1",
        group="Distortion",
        needs_range=False,
        bounds=(None, 80.0),
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, n] in dB."""
        return e.per_sample(psnr(e.flat, e.hr_repeated))


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
        source="as piq.psnr between y and A x, over the pixels that are seen",
        group="Consistency",
        needs_range=False,
        of_residual=True,
        bounds=(None, 80.0),
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, n] in dB."""
        low = e.operator.forward(e.flat)
        if not e.operator.sigma:  # y has been clipped, and the kernel overshoots
            low = e.operator.clip(low)
        return e.per_sample(consistency_psnr(low, e.y.repeat_interleave(e.samples.shape[1], 0), e.operator))


@register_metric("lr_psnr_exact")
class LrPsnrExact(Metric):
    """PSNR between the observation and the downscaled sample as the method returned it: not rounded, not clipped."""

    facts = MetricFacts(
        label="LR-PSNR, unrounded",
        better="higher",
        unit="dB",
        domain="sample",
        range="[0, 80]; piq adds 1e-8 to the mean square error",
        source="as piq.psnr between y and A x, of samples before the harness clips and rounds them",
        group="Consistency",
        needs_range=False,
        needs_raw=True,
        of_residual=True,
        bounds=(None, 80.0),
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, n] in dB."""
        raw = e.samples if e.raw is None else e.raw
        low = e.operator.forward(raw.flatten(0, 1))
        return e.per_sample(consistency_psnr(low, e.y.repeat_interleave(raw.shape[1], 0), e.operator))
