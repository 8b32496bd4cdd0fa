"""A study of the guidance scale: what consistency with y costs in quality and diversity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from bench.data import make_dataset
from bench.metrics import Evaluation, load_metrics
from bench.operators.bicubic import Bicubic
from bench.run.draw import Sampler, observe
from bench.run.evaluate import evaluate
from bench.run.study import Study, register_study
from bench.settings import build

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METRICS = ("psnr", "stlpips_alex", "brisque", "lr_psnr", "apd_mse")


@register_study("guidance")
class GuidanceStudy(Study):
    """Quality, consistency and diversity of DPS for several guidance scales.

    Args:
        method: the constructor's arguments of :class:`methods.dps.Dps`.
        dataset: name and arguments of a dataset.
        scale: scale factor.
        guidance: the scales to compare.
        images: number of images, the dataset's first ones.
        n: samples per image.

    """

    def __init__(
        self,
        method: Mapping[str, Any],
        dataset: Mapping[str, Any],
        scale: int,
        guidance: Sequence[float],
        images: int,
        n: int,
    ) -> None:
        self.method, self.dataset = dict(method), make_dataset(dataset)
        self.scale, self.guidance, self.items, self.n = scale, list(guidance), images, n

    def compute(self, item: int, seed: int, device: torch.device) -> pd.DataFrame:
        """Return a row per scale for one image: guidance and the metrics, means over samples."""
        from methods.dps import Dps

        operator = Bicubic(self.dataset.size, self.scale)
        metrics = load_metrics(METRICS, device)
        hr, y = (t[None].to(device) for t in observe(self.dataset, item, operator.to("cpu", torch.float64), seed))
        rows = []
        for guidance in self.guidance:
            settings = {**self.method, "guidance": guidance}
            method = build(Dps, settings, "study.method", "dps").prepare(operator, device)
            samples = Sampler(method, "dps", seed, self.n)(y, [self.dataset.ids[item]], None)
            values = evaluate(metrics, Evaluation(hr, y, samples, method.operator))
            rows.append({"guidance": guidance} | {k: float(v.mean()) for k, v in values.items()})
        return pd.DataFrame(rows)

    def plot(self, frame: pd.DataFrame, axes: Axes) -> None:
        """Draw ST-LPIPS against LR-PSNR, a point per guidance scale."""
        mean = frame.groupby("guidance").mean()
        axes.plot(mean["lr_psnr"], mean["stlpips_alex"], marker="o", markersize=4)
        for guidance, row in mean.iterrows():
            axes.annotate(
                f"{guidance:g}", (row["lr_psnr"], row["stlpips_alex"]), xytext=(4, 4), textcoords="offset points"
            )
        axes.set_xlabel("LR-PSNR (dB), consistency")
        axes.set_ylabel("ST-LPIPS (Alex), lower is better")
