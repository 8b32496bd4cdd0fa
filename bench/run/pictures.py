"""Samples of chosen images for the figures, without metrics; they are those that a run would keep."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from bench.config import RunConfig
from bench.data import Dataset, make_dataset
from bench.errors import BenchError, near_matches
from bench.machine import release_memory
from bench.operators import make_operator
from bench.report.figures import saved_samples
from bench.run.draw import Sampler, observe
from bench.run.runner import make_method, save_images
from bench.run.store import CellKey, RunDir


def chosen_images(dataset: Dataset, ids: Sequence[str] | None, count: int) -> list[int]:
    """Indices of the images with these ids, or of the first `count`; BenchError for an id that is not there."""
    if ids is None:
        return list(range(min(count, len(dataset))))
    for name in ids:
        if name not in dataset.ids:
            raise BenchError(f"There is no image '{name}' in the dataset.{near_matches(name, dataset.ids)}")
    return [dataset.ids.index(name) for name in ids]


def draw_pictures(
    config: RunConfig, directory: RunDir, keys: Collection[CellKey], indices: Sequence[int], samples: int
) -> None:
    """Draw and keep `samples` samples of the images for each key, where they are not kept yet.

    A sample depends on the seed, the image and the method alone (:class:`bench.contract.Noise`), so that these are the
    ones that a run measures.

    Raises:
        BenchError: a method's weights are missing, or an image cannot be read.

    """
    dataset = make_dataset(config.dataset)
    device = torch.device(config.device)
    by_label = {m.label: m for m in config.methods}
    for label, scale in dict.fromkeys((k.label, k.scale) for k in keys):
        method = make_method(by_label[label])
        n = 1 if method.facts.deterministic else samples
        open_ones = [
            (key, index)
            for key in keys
            if (key.label, key.scale) == (label, scale)
            for index in indices
            if len(saved_samples(directory.image_folder(scale, index), key)) < n
        ]
        if not open_ones:
            continue
        operator = make_operator(config.operator, scale, dataset.size)
        exact = operator.to("cpu", torch.float64)
        method.prepare(operator, device)
        sampler = Sampler(method, label, config.seed, n, config.quantise)
        for key, index in open_ones:
            hr, y = (t.to(device) for t in observe(dataset, index, exact, config.seed))
            drawn = sampler(y[None], [dataset.ids[index]], key.tau)[0]
            save_images(directory, key, index, hr, y, drawn)
        del method
        release_memory()
