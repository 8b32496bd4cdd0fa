"""Rows of a cell from images and the values of their metrics, and new values beside those that are there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from bench.metrics import Evaluation, Metric
from bench.metrics.statistic import SampleStatistic
from bench.run.cell import FAILED, CellKey
from bench.run.evaluate import columns, evaluate

Frames = tuple[pd.DataFrame, pd.DataFrame]
"""Rows per sample, and rows per image."""


@dataclass(frozen=True)
class Known:
    """An image as rows tell it."""

    index: int
    name: str
    content: str


class _Named(Protocol):
    """What rows tell of an image."""

    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def content(self) -> str: ...


def evaluate_images(
    loaded: Mapping[str, Metric | SampleStatistic],
    e: Evaluation,
    images: Sequence[_Named],
    key: CellKey,
    fail: Callable[..., None],
) -> tuple[dict[str, np.ndarray], list[set[str]]]:
    """Values of metrics of a batch, and for each image the names of those that it has (`FAILED` where one failed).

    Args:
        loaded: metrics and statistics.
        e: of these images.
        images: the batch.
        key: of the cell, for the messages of `fail`.
        fail: told what failed, why, and the name of the image.

    """
    known = [set(loaded) for _ in images]

    def failed(name: str, row: int, error: Exception) -> None:
        known[row] ^= {name, name + FAILED}
        fail(key.folder, f"{name} failed: {type(error).__name__}: {error}", images[row].name)

    return evaluate(loaded, e, failed), known


def frames(
    key: CellKey,
    images: Sequence[_Named],
    n: int,
    values: Mapping[str, np.ndarray],
    known: Sequence[Collection[str]],
) -> Frames:
    """Rows of a batch.

    Args:
        key: of the cell.
        images: the batch.
        n: samples of each.
        values: by metric, as `evaluate` returns them.
        known: for each image, the names of the metrics that it has.

    """
    of_samples, of_images = columns(values)
    rows = pd.DataFrame(
        {
            "method": key.label,
            "scale": key.scale,
            "tau": np.nan if key.tau is None else key.tau,
            "index": [i.index for i in images],
            "image": [i.name for i in images],
        }
    )
    samples = rows.loc[rows.index.repeat(n)].reset_index(drop=True)
    samples["sample"] = list(range(n)) * len(images)
    samples["metrics"] = np.repeat([" ".join(sorted(k)) for k in known], n)
    rows["content"] = [i.content for i in images]
    return pd.concat([samples, of_samples], axis=1), pd.concat([rows, of_images], axis=1)


def merged(before: Frames, new: Frames, indices: Sequence[int], names: Collection[str]) -> Frames:
    """Rows of some images with new values of the metrics `names`, old ones as they are."""
    found = []
    for old, rows in zip(before, new, strict=True):
        kept = old[old["index"].isin(indices)].reset_index(drop=True)
        found.append(kept.assign(**{n: rows[n] for n in (*names, "metrics") if n in rows}))
    return found[0], found[1]


def union(before: Collection[str], new: Collection[str]) -> set[str]:
    """Metrics of both; one that has been tried again is what it is now."""
    tried = {name.removesuffix(FAILED) for name in new}
    return {name for name in before if name.removesuffix(FAILED) not in tried} | set(new)
