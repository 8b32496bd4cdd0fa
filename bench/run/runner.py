"""Run methods over a dataset: claim, sample, measure, keep; resume where a former start ended."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench.config import RunConfig, Shard
from bench.contract import Method, methods
from bench.data import Dataset, make_dataset
from bench.errors import BenchError
from bench.load import make_method
from bench.machine import environment, keep_freed_memory
from bench.metrics import Evaluation, Metric, load_metrics, metric_facts, resolve_metrics
from bench.metrics.statistic import Statistic, load_statistics
from bench.run import timing
from bench.run.cell import FAILED, Cell, CellKey
from bench.run.claims import Claims
from bench.run.draw import Sampler, finite_images, say
from bench.run.evaluate import not_applicable
from bench.run.images import Image, Images
from bench.run.loaded import LoadedMethods
from bench.run.rows import Frames, evaluate_images, frames, merged, union
from bench.run.samples import ARRAY_BYTES, PNG_BYTES, as_picture
from bench.run.selection import cell_keys, dataset_posterior
from bench.run.store import RunDir


def part_done(shard: Shard) -> str:
    """Say what is left to do when one part of the images is done."""
    return (
        f"Part {shard.index} of {shard.count} is done. After all parts, the same command without shard=... measures "
        "the times and writes the tables."
    )


def run(config: RunConfig) -> tuple[RunDir, bool]:
    """Measure everything that `config` asks for and is not in its run directory yet.

    Returns:
        the run directory, and whether everything succeeded. Images, metrics and methods that failed are in
        ``failures.jsonl``; the others are measured nevertheless.

    Raises:
        BenchError: nothing can be done with this configuration or directory.

    """
    keys = cell_keys(config)
    with open_run(config, keys) as session:
        session.measure(keys)
    return session.directory, not session.failures


@contextmanager
def open_run(config: RunConfig, keys: Collection[CellKey]) -> Iterator[Session]:
    """Hold a run directory and claim cells in it: all that could refuse the run does so here, before any sample.

    Raises:
        BenchError: a wrong setting, another run in the directory, or rows of something else there.

    """
    for m in (m for m in config.methods if m.label in {k.label for k in keys}):
        make_method(m)
    dataset = make_dataset(config.dataset)
    directory = RunDir(config.out, config.shard)
    with directory.lock():
        session = Session(config, dataset, directory, keys)
        try:
            yield session
        finally:
            session.close()


class Session:
    """A run that holds its directory, with all its cells claimed.

    Attributes:
        config: the run.
        directory: where everything is kept.
        images: the dataset's.
        names: all metrics; `metric_names` those that are computed from these images, `computed_names` with the
            statistics.
        kept: the images whose samples are kept.
        failures: what failed so far.

    """

    def __init__(self, config: RunConfig, dataset: Dataset, directory: RunDir, keys: Collection[CellKey]) -> None:
        self.config = config
        self.directory = directory
        self.failures: list[dict[str, Any]] = []
        self.images = Images(config, dataset, directory, self.fail)
        self.loaded = LoadedMethods(config, directory, self.images, self.fail)
        self._states: dict[CellKey, dict[int, frozenset[str]]] = {}
        operators = [self.images.operator(scale) for scale in config.scales]
        asked = config.perceptual
        kept = directory.perceptual(asked) if asked == "auto" else None
        self.names, notice = resolve_metrics(config.metrics, kept or asked)
        undefined = not_applicable(self.names, operators[0])
        measured = [n for n in self.names if metric_facts(n).domain != "timing"]
        self.metric_names = [n for n in measured if n not in undefined]
        self._statistics = load_statistics(dataset.mixture is not None) if config.statistics else {}
        self.computed_names = [*self.metric_names, *self._statistics]
        self.timed = len(measured) < len(self.names)
        self.rounded = config.quantise and operators[0].range is not None
        self.kept = self._kept_images(keys, operators[0].size)
        self._posterior = cache(lambda scale: dataset_posterior(dataset, self.images.operator(scale)))
        keep_freed_memory()
        torch.backends.cudnn.benchmark = False  # its choice of algorithm may differ from start to start
        torch.backends.cudnn.deterministic = True

        Claims(config, directory, self.images, self._needs_method, self.loaded.try_method).make(list(keys))
        self._states.clear()
        for key in keys:
            self._check_fillable(directory.cell(key))
        directory.set_config(config.record() | {"metrics": self.names})
        if asked == "auto" and any("perceptual" in n for n in config.metrics):
            directory.set_perceptual(asked, resolve_metrics(["perceptual"], kept or asked)[0][0])
        directory.add_environment(self._environment())
        directory.set_failures(self.failures)
        for sentence in [*([notice] if notice else []), *undefined.values()]:
            say(sentence)

    def close(self) -> None:
        """Keep what is known of the images for the next start."""
        self.images.keep_seen()

    def fail(self, what: str, reason: str, image: str | None = None) -> None:
        """Record a failure, once per image where it is the image's own."""
        failure = {"what": what, "image": image, "reason": reason}
        if failure not in self.failures:
            self.failures.append(failure)
            self.directory.set_failures(self.failures)
            say(f"{what}: {image + ': ' if image else ''}{reason}")

    def _environment(self) -> dict[str, Any]:
        shard = self.config.shard
        return environment(self.config.device) | {
            "part": None if shard is None else f"{shard.index}/{shard.count}",
            "compute": {m.label: self.loaded.compute(m.label) for m in self.config.methods},
        }

    def _check_fillable(self, cell: Cell) -> None:
        """Raise BenchError where a metric is to be added to rows whose samples are not there."""
        for name in self.metric_names:
            new = [i for i, known in self._state(cell).items() if not {name, name + FAILED} & known]
            raw = metric_facts(name).needs_raw
            if lost := 0 if self.config.resample else sum(raw or not self._stored(cell, i) for i in new):
                kept = "not kept as the method returned them" if raw else "not kept"
                raise BenchError(
                    f"{name} cannot be added to {cell.folder}: the samples of {lost} images are {kept}; add "
                    "resample=true, which draws them again, or leave the metric out."
                )

    # what there is to do

    def _state(self, cell: Cell) -> dict[int, frozenset[str]]:
        """What a cell had when the session began (`Cell.computed`): reading all of its parts takes time."""
        if cell.key not in self._states:
            self._states[cell.key] = cell.computed()
        return self._states[cell.key]

    def _stored(self, cell: Cell, index: int) -> bool:
        return cell.samples.count(index) >= self.loaded.samples(cell.key.label)

    def _readable(self, cell: Cell, index: int) -> bool:
        """Whether the metrics that an image lacks can be computed from the samples that are kept of it."""
        lacking = set(self.metric_names) - self._state(cell).get(index, frozenset())  # statistics need no raw ones
        return self._stored(cell, index) and not any(metric_facts(n).needs_raw for n in lacking)

    def _kept_images(self, keys: Collection[CellKey], size: tuple[int, int]) -> range:
        """The images whose samples are kept: the first ones of those selected, as many as the budget allows."""
        selected = self.images.selected
        if self.config.save_samples == "all":
            return selected
        if self.config.save_samples == "none":
            return selected[:0]
        pixels = size[0] * size[1] * sum(self.loaded.samples(k.label) for k in keys)
        return selected[: self.config.save_budget // max(pixels * (PNG_BYTES if self.rounded else ARRAY_BYTES), 1)]

    def _missing(self, cell: Cell) -> list[list[int]]:
        return self.images.batches(set(self.images.selected) - set(self._state(cell)))

    def _incomplete(self, cell: Cell) -> list[list[int]]:
        """Batches of images with rows that lack metrics, or samples that should be kept and may be drawn again."""
        wanted = set(self.computed_names)
        lacking = {i for i, known in self._state(cell).items() if not wanted <= known and self._fillable(cell, i)}
        if self.config.resample:
            lacking |= {i for i in self._state(cell) if i in self.kept and not self._stored(cell, i)}
        return self.images.batches(lacking)

    def _fillable(self, cell: Cell, index: int) -> bool:
        return self.config.resample or self._readable(cell, index)

    def _untimed(self, cell: Cell) -> bool:
        """Whether the time is still to be measured; processes that share a machine would disturb each other."""
        if not self.timed or self.config.shard is not None:
            return False
        before = cell.timing
        return before is None or before.get("compute") != self.loaded.compute(cell.key.label)

    def _needs_method(self, cell: Cell) -> bool:
        """Whether anything is left to do that needs the method itself."""
        again = any(not self._readable(cell, i) for batch in self._incomplete(cell) for i in batch)
        return bool(again or self._missing(cell) or self._untimed(cell))

    @cached_property
    def _metrics(self) -> dict[str, Metric | Statistic]:
        return {**load_metrics(self.metric_names, self.config.device), **self._statistics}

    # measuring

    def measure(self, keys: Collection[CellKey]) -> None:
        """Compute all rows and times of these cells that are not there yet."""
        if self.config.shard is None:
            self._restore_pictures(keys)
        for scale in self.config.scales:
            for label in (m.label for m in self.config.methods):
                cells = [self.directory.cell(k) for k in keys if (k.label, k.scale) == (label, scale)]
                open_ones = [c for c in cells if self._needs_method(c) or self._incomplete(c)]
                if open_ones and (label, scale) not in self.loaded.broken:
                    self._metrics  # noqa: B018 -- a metric that cannot be loaded is an error before hours of sampling
                    with self.loaded.guarded(label, scale):
                        for cell in open_ones:
                            self._measure_cell(cell)
                self._say_failed_before(cells)
        self.loaded.let_go()

    def _measure_cell(self, cell: Cell) -> None:
        sampler = self.loaded.sampler(cell.key.label, cell.key.scale) if self._needs_method(cell) else None
        filling, missing = self._incomplete(cell), self._missing(cell)
        before = (cell.read("samples"), cell.read("images")) if filling else None
        total, left = sum(map(len, self.images.batches(self.images.selected))), sum(map(len, [*filling, *missing]))
        interval = 0.2 if sys.stderr.isatty() else 30.0
        with tqdm(
            total=max(total, left), initial=max(total - left, 0), desc=cell.key.folder, unit="image",
            mininterval=interval, maxinterval=interval,
        ) as bar:  # fmt: skip
            for batch in filling:
                self._fill(cell, sampler, batch, before)
                bar.update(len(batch))
            for batch in missing:
                assert sampler is not None
                self._compute(cell, sampler, batch)
                bar.update(len(batch))
        if self.config.shard is None:
            cell.compact()
        if self._untimed(cell) and sampler is not None:
            self._time(cell, sampler.method)

    def _time(self, cell: Cell, method: Method) -> None:
        y = self.images.any_observation(cell.key.scale)
        if y is not None:
            measured = timing.measure(method, y, cell.key.tau, self.config.seed, self.config.timing)
            compute = self.loaded.compute(cell.key.label)
            cell.set_timing({**measured.record(), "compute": compute, **self.loaded.machine})

    def _compute(self, cell: Cell, sampler: Sampler, batch: Sequence[int]) -> None:
        """Sample a batch of images, keep what is to be kept, and add its rows."""
        images, samples, raw = self._sample(cell, sampler, self.images.load_all(batch, cell.key.scale))
        if images:
            values, known = self._evaluate(cell, images, samples, raw, self._metrics)
            cell.add(images[0].index, *frames(cell.key, images, samples.shape[1], values, known))

    def _sample(self, cell: Cell, sampler: Sampler, images: list[Image]) -> tuple[list[Image], Tensor, Tensor]:
        """Sample, and keep samples; without images for which the method failed.

        Returns:
            images, their samples, and these as the method returned them.

        """
        if not images:
            return [], torch.empty(0), torch.empty(0)
        raw = sampler.raw(torch.stack([i.y for i in images]), [i.name for i in images], cell.key.tau)
        samples = sampler.finished(raw)
        finite = finite_images(samples)
        for image in (i for i, good in zip(images, finite, strict=True) if not good):
            self.fail(cell.key.folder, "the method returned NaN or infinite values", image.name)
        images = [i for i, good in zip(images, finite, strict=True) if good]
        good = torch.from_numpy(finite).to(samples.device)
        samples, raw = samples[good], raw[good]
        for image, x in zip(images, samples, strict=True):
            if image.index in self.kept:
                cell.samples.write(image.index, x, sampler.method.operator, self.rounded)
                self._keep_picture(cell.key.scale, image)
        return images, samples, raw

    def _restore_pictures(self, keys: Collection[CellKey]) -> None:
        """Make pictures of images again that have samples but lost theirs."""
        for scale in (s for s in self.config.scales if self.images.operator(s).range is not None):
            samples = [self.directory.cell(k).samples for k in keys if k.scale == scale]
            names = [p.name for p in self.directory.image_folder(scale, 0).parent.glob("*")]
            shown = {int(name) for name in names if name.isdecimal()}
            shown |= set(self.images.selected[: self.config.figure_images])
            lost = (i for i in sorted(shown) if i < len(self.images.dataset) and not self.directory.has_image(scale, i))
            for index in (i for i in lost if any(s.count(i) for s in samples)):
                if (image := self.images.load(index, scale)) is not None:
                    self._keep_picture(scale, image, always=True)

    def _keep_picture(self, scale: int, image: Image, always: bool = False) -> None:
        """Keep an image for the figures, where they show it or have shown it."""
        shown = image.index < self.images.selected.start + self.config.figure_images
        shown |= always or self.directory.image_folder(scale, image.index).is_dir()
        if shown and (range := self.images.operator(scale).range) is not None:
            self.directory.set_image(scale, image.index, as_picture(image.hr, range), as_picture(image.y, range))

    def _fill(self, cell: Cell, sampler: Sampler | None, batch: Sequence[int], before: Frames | None) -> None:
        """Add metrics to rows, from stored samples or from samples that are drawn again."""
        assert before is not None
        stored = [i for i in batch if self._readable(cell, i)]
        images = self.images.load_all(stored, cell.key.scale)
        self._fill_images(cell, images, [self._read(cell, image.index) for image in images], None, before)
        drawn = self.images.load_all([i for i in batch if i not in stored], cell.key.scale)
        if drawn and sampler is not None:
            images, samples, raw = self._sample(cell, sampler, drawn)
            self._fill_images(cell, images, list(samples), raw, before)

    def _deterministic(self, cell: Cell) -> bool:
        names = {m.label: m.name for m in self.config.methods}
        return bool(methods.facts(names[cell.key.label]).deterministic)

    def _read(self, cell: Cell, index: int) -> Tensor:
        operator = self.images.operator(cell.key.scale)
        return cell.samples.read(index, self.loaded.samples(cell.key.label), operator).to(self.images.device)

    def _fill_images(
        self, cell: Cell, images: list[Image], samples: list[Tensor], raw: Tensor | None, before: Frames
    ) -> None:
        """Compute the metrics that images lack, and add their rows, old and new values together."""
        state = self._state(cell)
        names = [n for n in self.computed_names if any(n not in state[i.index] for i in images)]
        if not names:
            return
        loaded = {n: self._metrics[n] for n in names}
        values, known = self._evaluate(cell, images, torch.stack(samples), raw, loaded)
        known = [union(state[i.index], k) for i, k in zip(images, known, strict=True)]
        new = frames(cell.key, images, len(samples[0]), values, known)
        cell.add(images[0].index, *merged(before, new, [i.index for i in images], values))

    def _evaluate(
        self,
        cell: Cell,
        images: list[Image],
        samples: Tensor,
        raw: Tensor | None,
        loaded: dict[str, Metric | Statistic],
    ) -> tuple[dict[str, np.ndarray], list[set[str]]]:
        """Values of metrics, and for each image the names of those that it has (`FAILED` where one failed)."""
        e = Evaluation(
            torch.stack([i.hr for i in images]), torch.stack([i.y for i in images]), samples,
            self.images.operator(cell.key.scale), self._deterministic(cell), raw,
            self._posterior(cell.key.scale) if self._statistics else None, self.config.n,
        )  # fmt: skip
        return evaluate_images(loaded, e, images, cell.key, self.fail)

    def _say_failed_before(self, cells: Sequence[Cell]) -> None:
        """Record metrics that failed for an image, in an earlier start, and cannot be tried again."""
        for cell in cells:
            names = {i: name for i, (name, _) in cell.contents().items()}
            for index, known in self._state(cell).items():
                for metric in self.computed_names:
                    if metric + FAILED in known and not self._fillable(cell, index) and index in self.images.selected:
                        reason = f"{metric} failed in an earlier start; resample=true tries it again"
                        self.fail(cell.key.folder, reason, names[index])

    # pictures

    def draw(self, keys: Collection[CellKey], indices: Sequence[int], samples: int) -> bool:
        """Draw and keep samples of images for each key, where they are not kept yet, without measuring them.

        A sample depends on the seed, the image and the method alone (:class:`bench.contract.Noise`), so that these
        are the ones that a run measures.

        Args:
            keys: claimed cells.
            indices: of the images.
            samples: how many of each image.

        Returns:
            whether all of them are there now.

        """
        complete = True
        for key in keys:
            cell = self.directory.cell(key)
            n = min(samples, self.loaded.samples(key.label))
            for index in indices:
                shown = self.directory.has_image(key.scale, index)
                if not shown and (image := self.images.load(index, key.scale)) is not None:
                    self._keep_picture(key.scale, image, always=True)
            lacking = [i for i in indices if cell.samples.count(i) < n]
            if not lacking:
                continue
            if (key.label, key.scale) not in self.loaded.broken:
                with self.loaded.guarded(key.label, key.scale):
                    self._draw_cell(cell, lacking, n)
            complete &= all(cell.samples.count(i) >= n for i in lacking)
        return complete

    def _draw_cell(self, cell: Cell, indices: Sequence[int], n: int) -> None:
        sampler = self.loaded.sampler(cell.key.label, cell.key.scale)
        sampler = Sampler(sampler.method, cell.key.label, self.config.seed, n, self.config.quantise)
        images = self.images.load_all(indices, cell.key.scale)
        cell.set_drawn({image.index: (image.name, image.content) for image in images})
        for image in images:
            self._keep_picture(cell.key.scale, image)
            x = sampler(image.y[None], [image.name], cell.key.tau)
            if finite_images(x).all():
                cell.samples.write(image.index, x[0], sampler.method.operator, self.rounded)
            else:
                self.fail(cell.key.folder, "the method returned NaN or infinite values", image.name)
