"""What is computed of a run: samples, metrics and times. Nothing is kept here, so that it may be on any machine."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.config import RunConfig
from bench.contract import methods
from bench.data import Dataset
from bench.machine import is_out_of_memory, keep_freed_memory
from bench.metrics import Evaluation, Metric, load_metrics, metric_facts
from bench.metrics.statistic import SampleStatistic, load_statistics
from bench.run import timing
from bench.run.cell import CellKey
from bench.run.draw import Sampler, finite_images
from bench.run.evaluate import not_applicable
from bench.run.images import Image, Images
from bench.run.loaded import LoadedMethods
from bench.run.memory import Memory
from bench.run.rows import Known, evaluate_images
from bench.run.samples import as_picture
from bench.run.selection import dataset_posterior

NOT_FINITE = "the method returned NaN or infinite values"


@dataclass
class Computed:
    """What has been computed of some images of a cell.

    Attributes:
        key: the cell.
        images: those that could be used.
        values: metric to [B, n], [B, pairs] or [B]; of a statistic B arrays of its figures.
        known: for each image the metrics that it has (`FAILED` behind the name where one failed).
        n: samples of each.
        kept: samples that are to be kept, by the image's index, [n, 3, H, W] in the operator's range.
        pictures: uint8 [H, W, 3] and [h, w, 3] of images that figures show, by index.

    """

    key: CellKey
    images: list[Known] = field(default_factory=list)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    known: list[set[str]] = field(default_factory=list)
    n: int = 0
    kept: dict[int, Tensor] = field(default_factory=dict)
    pictures: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def only(self, wanted: Sequence[bool]) -> Computed:
        """The same of some of its images."""
        images = [i for i, yes in zip(self.images, wanted, strict=True) if yes]
        indices = {i.index for i in images}
        return Computed(
            self.key,
            images,
            {name: values[np.array(wanted)] for name, values in self.values.items()},
            [k for k, yes in zip(self.known, wanted, strict=True) if yes] if self.known else [],
            self.n,
            {i: x for i, x in self.kept.items() if i in indices},
            {i: p for i, p in self.pictures.items() if i in indices},
        )


@dataclass(frozen=True)
class Judged:
    """What metrics must know of the samples of a cell beside themselves.

    Attributes:
        deterministic: whether the method gives one and the same sample.
        n: samples that an image was asked for.

    """

    deterministic: bool
    n: int


class Computing:
    """The methods, images and metrics of a run in one process.

    Args:
        config: the run.
        dataset: its images.
        memory: what is remembered.
        fail: told what failed, why, and of which image (None for all).
        names: metrics by their own names.

    Attributes:
        images: the dataset's.
        metric_names: the metrics that are computed from these images; `computed_names` with the statistics.
        undefined: metrics that are not defined for these images, and a sentence for each.
        timed: the metrics that are times.
        rounded: whether samples have 8 bits.
        kept: the images whose samples are to be kept.

    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        memory: Memory,
        fail: Callable[..., None],
        names: Sequence[str],
    ) -> None:
        self.config = config
        self._fail = fail
        self.images = Images(config, dataset, memory, fail)
        self.loaded = LoadedMethods(config, memory, self.images, fail)
        operator = self.images.operator(config.scales[0])
        self.undefined = not_applicable(names, operator)
        measured = [n for n in names if metric_facts(n).domain != "timing"]
        self.timed = [n for n in names if n not in measured]
        self.metric_names = [n for n in measured if n not in self.undefined]
        self._statistics = load_statistics(dataset.mixture is not None) if config.statistics else {}
        self.computed_names = [*self.metric_names, *self._statistics]
        self.rounded = config.quantise and operator.range is not None
        self.kept = self.images.selected[:0]
        self._posterior = cache(lambda scale: dataset_posterior(dataset, self.images.operator(scale)))
        keep_freed_memory()
        torch.backends.cudnn.benchmark = False  # its choice of algorithm may differ from start to start
        torch.backends.cudnn.deterministic = True

    @cached_property
    def metrics(self) -> dict[str, Metric | SampleStatistic]:
        """All that is computed of samples, loaded; BenchError where one cannot be."""
        return {**load_metrics(self.metric_names, self.config.device), **self._statistics}

    def measure(self, key: CellKey, indices: Sequence[int], shown: Collection[int]) -> Computed:
        """Sample a batch of images and compute its metrics.

        Args:
            key: the cell.
            indices: of the images.
            shown: those whose pictures are wanted.

        """
        self.metrics  # noqa: B018 -- a metric that cannot be loaded is an error before hours of sampling
        done = Computed(key)
        images, samples, raw = self._sample(done, self.images.load_all(indices, key.scale), shown, self.kept)
        if images:
            self._evaluate(done, images, samples, raw, self.metrics, self.judged(key))
        return done

    def judged(self, key: CellKey) -> Judged:
        """What metrics must know of a cell of this run."""
        names = {m.label: m.name for m in self.config.methods}
        return Judged(bool(methods.facts(names[key.label]).deterministic), self.config.n)

    def fill(self, key: CellKey, names: Sequence[str], stored: Mapping[int, Tensor], judged: Judged) -> Computed:
        """Compute some metrics of samples [n, 3, H, W] that are kept, by the image's index; no method is needed."""
        done = Computed(key)
        images = self.images.load_all(sorted(stored), key.scale)
        if images and names:
            samples = torch.stack([stored[i.index] for i in images]).to(self.images.device)
            self._evaluate(done, images, samples, None, {n: self.metrics[n] for n in names}, judged)
        return done

    def fill_again(
        self, key: CellKey, names: Sequence[str], indices: Sequence[int], shown: Collection[int]
    ) -> Computed:
        """Compute some metrics of samples that are drawn again."""
        done = Computed(key)
        images, samples, raw = self._sample(done, self.images.load_all(indices, key.scale), shown, self.kept)
        if images and names:
            self._evaluate(done, images, samples, raw, {n: self.metrics[n] for n in names}, self.judged(key))
        return done

    def draw(self, key: CellKey, index: int, n: int) -> Computed:
        """Draw some samples of one image to be kept, with its pictures, and measure nothing."""
        done = Computed(key, n=n)
        image = self.images.load(index, key.scale)
        if image is None:
            return done
        sampler = self.loaded.sampler(key.label, key.scale)
        sampler = Sampler(sampler.method, key.label, self.config.seed, n, self.config.quantise)
        x = sampler(image.y[None], [image.name], key.tau)
        done.images = [_known(image)]
        self.show(done, image)
        if finite_images(x).all():
            done.kept[index] = x[0]
        else:
            self._fail(key.folder, NOT_FINITE, image.name)
        return done

    def time(self, keys: Sequence[CellKey]) -> list[tuple[CellKey, dict[str, Any]]]:
        """Time cells of one scale in turns, as many as fit into memory; then the others, alone what fails beside.

        Returns:
            for each cell that could be timed its times, what they were measured beside, and on what machine.

        """
        keys = [k for k in keys if (k.label, k.scale) not in self.loaded.broken]
        y = self.images.any_observation(keys[0].scale) if keys else None
        if y is None:
            return []
        methods_at = self.loaded.several(list(dict.fromkeys(k.label for k in keys)), keys[0].scale)
        together = [k for k in keys if k.label in methods_at]
        subjects = [timing.Subject(methods_at[k.label], y, k.tau) for k in together]
        done, alone = [], []
        for key, found in zip(together, timing.measure(subjects, self.config.seed, self.config.timing), strict=True):
            if isinstance(found, timing.Timing):
                facts = {"compute": self.loaded.compute(key.label), **self.loaded.machine}
                done.append((key, {**found.record(), "together": sorted(k.folder for k in together), **facts}))
            elif is_out_of_memory(found) and len(methods_at) > 1:
                alone.append(key)
            else:
                with self.loaded.guarded(key.label, key.scale):
                    raise found
        del methods_at, subjects
        for key in alone:
            done += self.time([key])
        return done + self.time([k for k in keys if k not in together])

    def show(self, done: Computed, image: Image) -> None:
        """Add the pictures of an image, where images have a range."""
        if (range := self.images.operator(done.key.scale).range) is not None:
            done.pictures[image.index] = as_picture(image.hr, range), as_picture(image.y, range)

    def _sample(
        self, done: Computed, images: list[Image], shown: Collection[int], kept: Collection[int]
    ) -> tuple[list[Image], Tensor, Tensor]:
        """Sample; without images for which the method failed.

        Returns:
            images, their samples, and these as the method returned them.

        """
        if not images:
            return [], torch.empty(0), torch.empty(0)
        key = done.key
        sampler = self.loaded.sampler(key.label, key.scale)
        raw = sampler.raw(torch.stack([i.y for i in images]), [i.name for i in images], key.tau)
        samples = sampler.finished(raw)
        finite = finite_images(samples)
        for image in (i for i, good in zip(images, finite, strict=True) if not good):
            self._fail(key.folder, NOT_FINITE, image.name)
        images = [i for i, good in zip(images, finite, strict=True) if good]
        good = torch.from_numpy(finite).to(samples.device)
        samples, raw = samples[good], raw[good]
        for image, x in zip(images, samples, strict=True):
            if image.index in kept:
                done.kept[image.index] = x
                if image.index in shown:
                    self.show(done, image)
        return images, samples, raw

    def _evaluate(
        self,
        done: Computed,
        images: list[Image],
        samples: Tensor,
        raw: Tensor | None,
        loaded: Mapping[str, Metric | SampleStatistic],
        judged: Judged,
    ) -> None:
        """Compute values of metrics, and for each image the names of those that it has (`FAILED` where one failed)."""
        key = done.key
        e = Evaluation(
            torch.stack([i.hr for i in images]), torch.stack([i.y for i in images]), samples,
            self.images.operator(key.scale), judged.deterministic, raw,
            self._posterior(key.scale) if self._statistics else None, judged.n,
        )  # fmt: skip
        done.values, known = evaluate_images(loaded, e, images, key, self._fail)
        done.images, done.known, done.n = [_known(i) for i in images], known, samples.shape[1]


def _known(image: Image) -> Known:
    return Known(image.index, image.name, image.content)
