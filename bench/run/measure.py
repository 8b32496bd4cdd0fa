"""Further metrics and statistics of a finished run, from the samples that it kept; no method is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from bench.config import MeasureConfig, RunConfig, run_config
from bench.data import make_dataset
from bench.errors import BenchError, DiskError
from bench.machine import environment
from bench.metrics import Evaluation, Metric, load_metrics, metric_facts, resolve_metrics
from bench.metrics.statistic import SampleStatistic, load_statistics
from bench.run.cell import Cell
from bench.run.draw import say
from bench.run.evaluate import not_applicable
from bench.run.images import Image, Images
from bench.run.rows import Frames, evaluate_images, frames, merged, union
from bench.run.selection import dataset_posterior
from bench.run.store import RunDir


def config_of(directory: RunDir, device: str) -> RunConfig:
    """The configuration of a run's last start, on a device.

    Raises:
        BenchError: there is none, or it is of another version.

    """
    record = dict(directory.config)
    if record.get("images") is not None:
        first, end = record["images"]
        record["images"] = f"{first}:{'' if end is None else end}"
    return run_config({**record, "device": device, "out": str(directory.path)})


def measure(config: MeasureConfig) -> tuple[RunDir, list[str]]:
    """Compute what a run lacks, cell by cell, from its stored samples.

    Returns:
        the run directory, and a sentence for everything that could not be computed.

    Raises:
        BenchError: no run, one without rows, another one at work in it, images that are not there, or metrics that no
            stored samples give.

    """
    directory = RunDir(config.run)
    run = config_of(directory, config.device)
    with directory.lock():
        if not (cells := directory.cells()):
            raise BenchError(f"Nothing has been measured in {directory.path} yet: run its command again.")
        work = _Measuring(config, run, directory)
        for cell in cells:
            work.measure(cell)
        work.close()
    return directory, work.left


class _Measuring:
    """A run directory that is held, and what is to be computed in it."""

    def __init__(self, config: MeasureConfig, run: RunConfig, directory: RunDir) -> None:
        self.run = run
        self.directory = directory
        self.left: list[str] = []
        self._failures: list[dict[str, Any]] = []
        kept = directory.perceptual(config.perceptual)
        names, notice = resolve_metrics(config.metrics or run.metrics, kept or config.perceptual)
        if config.metrics is None:
            names = [n for n in names if metric_facts(n).domain != "timing" and not metric_facts(n).needs_raw]
        for name in names:
            _check_stored(name)
        self.images = Images(run, make_dataset(run.dataset), directory, self._fail)
        undefined = not_applicable(names, self.images.operator(run.scales[0]))
        self.names = names
        self.metric_names = [n for n in names if n not in undefined]
        mixture = self.images.dataset.mixture
        self._statistics = load_statistics(mixture is not None) if config.statistics else {}
        self.computed_names = [*self.metric_names, *self._statistics]
        self._posterior = cache(lambda scale: dataset_posterior(self.images.dataset, self.images.operator(scale)))
        for sentence in [*([notice] if notice else []), *undefined.values()]:
            say(sentence)

    @cached_property
    def _metrics(self) -> Mapping[str, Metric | SampleStatistic]:
        return {**load_metrics(self.metric_names, self.run.device), **self._statistics}

    def _fail(self, what: str, reason: str, image: str | None = None) -> None:
        failure = {"what": what, "image": image, "reason": reason}
        if failure not in self._failures:
            self._failures.append(failure)
            self.left.append(f"{what}: {image + ': ' if image else ''}{reason}")

    def measure(self, cell: Cell) -> None:
        """Add what a cell lacks to its rows."""
        state = cell.computed()
        lacking = [i for i, known in sorted(state.items()) if not set(self.computed_names) <= known]
        if not lacking:
            return
        n = 1 if cell.facts.get("deterministic") else int((cell.identity or {}).get("n", self.run.n))
        stored = [i for i in lacking if cell.samples.count(i) >= n]
        if lost := len(lacking) - len(stored):
            how = "the command of the run with save_samples=all resample=true draws the same ones again and keeps them"
            self.left.append(f"{cell.folder}: the samples of {lost} of {len(state)} images are not stored; {how}.")
        contents = {i: known for i, known in cell.contents().items() if i in stored}
        changed = self.images.changed(contents)
        for i in changed:
            self._fail(
                cell.key.folder, "the image is no longer what it was; stale=recompute draws it anew", contents[i][0]
            )
        stored = [i for i in stored if i not in changed]
        if not stored:
            return
        before = (cell.read("samples"), cell.read("images"))
        for first in range(0, len(stored), self.run.batch):
            self._fill(cell, stored[first : first + self.run.batch], n, before, state)
        cell.compact()

    def _fill(
        self, cell: Cell, batch: Sequence[int], n: int, before: Frames, state: Mapping[int, frozenset[str]]
    ) -> None:
        images, samples = self._read(cell, batch, n)
        if not images:
            return
        names = [n for n in self.computed_names if any(n not in state[i.index] for i in images)]
        scale = cell.key.scale
        e = Evaluation(
            torch.stack([i.hr for i in images]), torch.stack([i.y for i in images]), torch.stack(samples),
            self.images.operator(scale), bool(cell.facts.get("deterministic")), None,
            self._posterior(scale) if self._statistics else None, int((cell.identity or {}).get("n", self.run.n)),
        )  # fmt: skip
        values, known = evaluate_images({n: self._metrics[n] for n in names}, e, images, cell.key, self._fail)
        all_known = [union(state[i.index], k) for i, k in zip(images, known, strict=True)]
        new = frames(cell.key, images, len(samples[0]), values, all_known)
        cell.add(images[0].index, *merged(before, new, [i.index for i in images], values))

    def _read(self, cell: Cell, batch: Sequence[int], n: int) -> tuple[list[Image], list[Tensor]]:
        """Images of a batch with their stored samples; those that are damaged are failures."""
        images, samples = [], []
        for image in self.images.load_all(batch, cell.key.scale):
            try:
                x = cell.samples.read(image.index, n, self.images.operator(cell.key.scale))
            except DiskError:
                raise
            except BenchError as error:
                self._fail(cell.key.folder, str(error), image.name)
                continue
            images.append(image)
            samples.append(x.to(self.images.device))
        return images, samples

    def close(self) -> None:
        """Write down what the run has now, so that tables show it."""
        self.images.keep_seen()
        record = self.directory.config
        there = {name for cell in self.directory.cells() for known in cell.computed().values() for name in known}
        metrics = list(dict.fromkeys([*record["metrics"], *(n for n in self.names if n in there)]))
        statistics = bool(record.get("statistics", True) or self._statistics)
        self.directory.set_config({**record, "metrics": metrics, "statistics": statistics})
        self.directory.add_environment(environment(self.run.device) | {"compute": {}, "measured": self.names})
        before = self.directory.failures
        self.directory.set_failures([*before, *(f for f in self._failures if f not in before)])


def _check_stored(name: str) -> None:
    """Raise BenchError for a metric that stored samples cannot give."""
    facts = metric_facts(name)
    if facts.domain == "timing":
        raise BenchError(f"{name} is measured while a method samples, not from stored samples: run measures it.")
    if facts.needs_raw:
        raise BenchError(
            f"{name} is of samples as the method returned them, which are not stored: add it to the command of the "
            "run, with resample=true."
        )
