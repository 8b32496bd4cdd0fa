"""Compute metrics: each alone, so that one that fails costs its own values and no others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from bench.errors import OutOfMemoryError
from bench.machine import is_out_of_memory, release_memory
from bench.metrics import Evaluation, Metric, metric_facts, too_small
from bench.metrics.statistic import SampleStatistic
from bench.operators import Operator

Failed = Callable[[str, int, Exception], None]
"""What to do when a metric (name) fails for an image (row of the batch)."""


def not_applicable(names: Sequence[str], operator: Operator) -> dict[str, str]:
    """Those of the metrics that are not defined for images of an operator's size and range, and a sentence for each."""
    found = {}
    for name in names:
        facts = metric_facts(name)
        if facts.domain == "timing":
            continue
        reason = too_small(name, min(operator.size))
        if reason is None and facts.needs_range and operator.range != (0.0, 1.0):
            reason = f"{name} is n/a: it is defined for images in [0, 1] only."
        if reason is not None:
            found[name] = reason
    return found


def evaluate(
    loaded: Mapping[str, Metric | SampleStatistic], e: Evaluation, failed: Failed | None = None
) -> dict[str, np.ndarray]:
    """Compute metrics of a batch; half the images at a time where memory runs out.

    Args:
        loaded: the metrics and statistics.
        e: images and samples.
        failed: told of every metric that fails for an image, whose values are then NaN; None to let it raise.

    Returns:
        metric name to values [B, n], [B, pairs] or [B]; of a statistic [B] arrays of its figures.

    Raises:
        OutOfMemoryError: the metrics of one image do not fit.

    """
    # TF32, a GPU's default for convolutions, keeps 10 bits: too few for the local variances of SSIM
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.no_grad(), exact:
        return {name: _values(name, metric, e, 0, failed) for name, metric in loaded.items()}


def _values(
    name: str, metric: Metric | SampleStatistic, e: Evaluation, first: int, failed: Failed | None
) -> np.ndarray:
    """Values of one metric; `first` is the row of the batch that is e's first."""
    try:
        values: np.ndarray = metric(e).double().cpu().numpy()
        return _figures(values) if isinstance(metric, SampleStatistic) else values
    except Exception as error:
        memory = is_out_of_memory(error)
        if not memory and failed is None:
            raise
        if len(e.hr) == 1 and memory:
            raise OutOfMemoryError("The metrics of one image do not fit into memory: use a smaller n=...") from None
        if len(e.hr) == 1:
            assert failed is not None
            failed(name, first, error)
            return (
                _figures(np.full((1, 1), np.nan))
                if isinstance(metric, SampleStatistic)
                else np.full(_shape(name, e), np.nan)
            )
    # the traceback held the tensors: memory is released after the block
    e.release()
    release_memory()
    half = len(e.hr) // 2
    return np.concatenate(
        [_values(name, metric, e.part(s), first + (s.start or 0), failed) for s in (slice(half), slice(half, None))]
    )


def _figures(values: np.ndarray) -> np.ndarray:
    """[B, K] as B arrays, which fit into one column."""
    found = np.empty(len(values), dtype=object)
    found[:] = list(values)
    return found


def _shape(name: str, e: Evaluation) -> tuple[int, ...]:
    images, n = e.samples.shape[:2]
    return {"sample": (images, n), "pair": (images, max(n * (n - 1) // 2, 1))}.get(metric_facts(name).domain, (images,))


def columns(values: Mapping[str, np.ndarray]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Values as columns of rows per sample, [B * n], and per image, [B]; pairs are averaged within their image."""
    samples, images = {}, {}
    for name, value in values.items():
        domain = "image" if value.dtype == object else metric_facts(name).domain
        if domain == "sample":
            samples[name] = value.reshape(-1)
        else:
            images[name] = value.mean(1) if domain == "pair" else value
    return pd.DataFrame(samples), pd.DataFrame(images)
