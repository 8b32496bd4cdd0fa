"""BRISQUE as piq defines it, with the support vector figures of the LIVE release, so that it works offline.

Mittal, Moorthy & Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP 2012. The authors of
the paper measured with piq; our values equal ``piq.brisque`` on the same figures (tests/metrics/test_brisque.py), and
differ from the MATLAB release as docs/metrics.md tells. Other packages differ by tens of points (piq issue 353,
IQA-PyTorch issue 98), so BRISQUE values are comparable within one implementation only.

``brisque_live.npz`` holds the model of the LIVE BRISQUE software release; see ``brisque_live.LICENSE.txt``.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import as_file, files
from typing import TYPE_CHECKING

import numpy as np

from bench.metrics import Evaluation, Metric, MetricFacts, register_metric

if TYPE_CHECKING:
    from torch import Tensor

LEAST_SIZE = 32
"""Below, more than one in 1000 textured photographs has no value, and at 16 pixels one in 23 (docs/metrics.md)."""
SHIFTS = ((0, 1), (1, 0), (1, 1), (-1, 1))


@cache
def _shapes() -> tuple[np.ndarray, np.ndarray]:
    """Candidate shapes and log ratio Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a)) of the generalised Gaussian."""
    from scipy.special import gammaln

    shape = np.arange(0.2, 10.001, 0.001)
    return shape, np.exp(2 * gammaln(2 / shape) - gammaln(1 / shape) - gammaln(3 / shape))


@cache
def _model() -> dict[str, np.ndarray]:
    with as_file(files("bench.metrics") / "brisque_live.npz") as path, np.load(path, allow_pickle=False) as data:
        return {k: data[k] for k in data.files}


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(array).to(like)


def _nearest(ratio: Tensor, table: np.ndarray, shape: np.ndarray) -> Tensor:
    """Shape whose table entry is nearest to each ratio [M]."""
    return _tensor(shape, ratio)[(ratio[:, None] - _tensor(table, ratio)).abs().argmin(1)]


def _scene_statistics(luma: Tensor) -> Tensor:
    """The 18 features [M, 18] of one scale from luma [M, 1, H, W] in [0, 255]."""
    import torch
    import torch.nn.functional as F

    tap = torch.exp(-torch.arange(-3, 4).to(luma).square() / (2 * (7 / 6) ** 2))
    window = (tap[:, None] * tap / (tap[:, None] * tap).sum())[None, None]
    mean = F.conv2d(luma, window, padding=3)
    deviation = (F.conv2d(luma.square(), window, padding=3) - mean.square()).abs().sqrt()
    x = ((luma - mean) / (deviation + 1))[:, 0]
    shape, table = _shapes()
    variance = x.square().mean((1, 2))
    features = [_nearest(variance / x.abs().mean((1, 2)).square(), 1 / table, shape), variance]
    for shift in SHIFTS:
        pair = x * torch.roll(x, shift, (1, 2))
        left, right = ((pair.square() * side).sum((1, 2)).div(side.sum((1, 2))).sqrt() for side in (pair < 0, pair > 0))
        skew = left / right
        ratio = pair.abs().mean((1, 2)).square() / pair.square().mean((1, 2))
        ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
        alpha = _nearest(ratio, table, shape)
        eta = (right - left) * torch.exp(
            torch.lgamma(2 / alpha) - (torch.lgamma(1 / alpha) + torch.lgamma(3 / alpha)) / 2
        )
        features += [alpha, eta, left.square(), right.square()]
    return torch.stack(features, 1)


def score_features(features: Tensor) -> Tensor:
    """Support vector regression [M] of the 36 raw features [M, 36]."""
    import torch

    model = _model()
    low, high = _tensor(model["feature_range"], features).T
    scaled = 2 * (features - low) / (high - low) - 1
    squared = (scaled[:, None] - _tensor(model["support_vectors"], features)).square().sum(2)
    kernel = torch.exp(-float(model["gamma"]) * squared)
    return kernel @ _tensor(model["coefficients"], features) - float(model["rho"])


def brisque(x: Tensor) -> Tensor:
    """BRISQUE [M] of images [M, 3, H, W] in [0, 1]; NaN for an image without any texture (a constant one).

    Computed in float64 so that the table look-ups inside do not depend on rounding (float32 on devices without it).
    """
    import torch

    from bench.operators.bicubic import resize_matrix

    x = x.float() if x.device.type == "mps" else x.double()
    luma = (255 * x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True).round()
    features = []
    for _ in range(2):
        features.append(_scene_statistics(luma))
        rows, columns = (_tensor(resize_matrix(side, side // 2), luma) for side in luma.shape[-2:])
        luma = rows @ luma @ columns.T
    stacked = torch.cat(features, 1)
    return torch.where(stacked.isfinite().all(1), score_features(stacked.nan_to_num()), torch.nan)


@register_metric("brisque")
class Brisque(Metric):
    """Blind image quality, no reference."""

    facts = MetricFacts(
        label="BRISQUE",
        better="lower",
        unit="",
        domain="sample",
        range="about 0 to 100, unbounded",
        source="piq's definition with the LIVE release's figures",
        group="Visual quality",
        least_size=LEAST_SIZE,
    )

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, n]."""
        return e.per_sample(brisque(e.flat)).float()
