"""Further metrics and statistics of a finished run, from the samples that it kept; no method is needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.config import MeasureConfig, RunConfig, run_config
from bench.data import make_dataset
from bench.errors import BenchError, DiskError
from bench.launch.parcel import Parcel
from bench.launch.settings import LaunchConfig
from bench.machine import environment
from bench.metrics import metric_facts, resolve_metrics
from bench.run.cell import Cell
from bench.run.computing import Computed, Computing, Judged
from bench.run.draw import say
from bench.run.rows import Frames, frames, merged, union
from bench.run.sources import changed_sources
from bench.run.store import RunDir
from bench.run.worker import fill_task
from bench.run.workers import Work, Workers


def config_of(directory: RunDir, device: str, launch: LaunchConfig | None = None) -> RunConfig:
    """The configuration of a run's last start, on a device and with workers as given, none by default.

    Raises:
        BenchError: there is none, or it is of another version.

    """
    record = dict(directory.config)
    if record.get("images") is not None:
        first, end = record["images"]
        record["images"] = f"{first}:{'' if end is None else end}"
    where = (launch or LaunchConfig()).model_dump()
    return run_config({**record, "device": device, "out": str(directory.path), "launch": where})


def measure(config: MeasureConfig) -> tuple[RunDir, list[str]]:
    """Compute what a run lacks, cell by cell, from its stored samples.

    Returns:
        the run directory, and a sentence for everything that could not be computed.

    Raises:
        BenchError: no run, one without rows, another one at work in it, images that are not there, or metrics that no
            stored samples give.

    """
    directory = RunDir(config.run)
    run = config_of(directory, config.device, config.launch)
    run = run.model_copy(update={"statistics": config.statistics})
    if run.launch.elsewhere and run.launch.gpus:  # the GPUs are the workers'
        run = run.model_copy(update={"device": "cpu"})
    with directory.lock(), _threads(run.launch.cpus):
        driver = _Measuring(config, run, directory)
        if not (cells := directory.cells()):
            raise BenchError(f"Nothing has been measured in {directory.path} yet: run its command again.")
        filling = [f for cell in cells if (f := driver.filling(cell))]
        if run.launch.elsewhere and filling:
            driver.measure_elsewhere(filling)
        else:
            for one in filling:
                driver.measure(one)
        driver.close()
    return directory, driver.left


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Compute with so many threads for a while; None for as many as now."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _Filling:
    """What a cell lacks, and can be computed.

    Attributes:
        cell: the cell.
        batches: indices of images.
        judged: what metrics must know of it.
        before: its rows.
        state: what its images have.

    """

    cell: Cell
    batches: list[list[int]]
    judged: Judged
    before: Frames
    state: Mapping[int, frozenset[str]]


class _Measuring:
    """A run directory that is held, and what is to be computed in it; see :class:`bench.run.workers.Driver`."""

    def __init__(self, config: MeasureConfig, run: RunConfig, directory: RunDir) -> None:
        self.config = run
        self.directory = directory
        self.left: list[str] = []
        self._failures: list[dict[str, Any]] = []
        self._workers: list[dict[str, Any]] = []
        kept = directory.perceptual(config.perceptual)
        self.names, notice = resolve_metrics(config.metrics or run.metrics, kept or config.perceptual)
        if config.metrics is None:
            facts = {n: metric_facts(n) for n in self.names}
            self.names = [n for n in self.names if facts[n].domain != "timing" and not facts[n].needs_raw]
        for name in self.names:
            _check_stored(name)
        self.computing = Computing(run, make_dataset(run.dataset), directory, self.fail, self.names)
        edited = changed_sources(directory, (), str(run.operator["name"]), self.names)
        for sentence in [*(s for s in (notice, edited) if s), *self.computing.undefined.values()]:
            say(sentence)

    def fail(self, what: str, reason: str, image: str | None = None) -> None:
        """Record a failure."""
        failure = {"what": what, "image": image, "reason": reason}
        if failure not in self._failures:
            self._failures.append(failure)
            self.left.append(f"{what}: {image + ': ' if image else ''}{reason}")

    def filling(self, cell: Cell) -> _Filling | None:
        """What a cell lacks and its stored samples give; what they do not give is told."""
        state = cell.computed()
        lacking = [i for i, known in sorted(state.items()) if not set(self.computing.computed_names) <= known]
        if not lacking:
            return None
        n = 1 if cell.facts.get("deterministic") else int((cell.identity or {}).get("n", self.config.n))
        stored = [i for i in lacking if cell.samples.count(i) >= n]
        if lost := len(lacking) - len(stored):
            how = "the command of the run with save_samples=all resample=true draws the same ones again and keeps them"
            self.left.append(f"{cell.folder}: the samples of {lost} of {len(state)} images are not stored; {how}.")
        contents = {i: known for i, known in cell.contents().items() if i in stored}
        changed = self.computing.images.changed(contents)
        for i in changed:
            reason = "the image is no longer what it was; stale=recompute draws it anew"
            self.fail(cell.key.folder, reason, contents[i][0])
        stored = [i for i in stored if i not in changed]
        if not stored:
            return None
        batches = [stored[first : first + self.config.batch] for first in range(0, len(stored), self.config.batch)]
        judged = Judged(bool(cell.facts.get("deterministic")), int((cell.identity or {}).get("n", self.config.n)))
        return _Filling(cell, batches, judged, (cell.read("samples"), cell.read("images")), state)

    def measure(self, filling: _Filling) -> None:
        """Add what a cell lacks to its rows."""
        cell = filling.cell
        for batch in filling.batches:
            samples = self._read(filling, batch)
            names = self._lacking(filling, samples)
            self._keep(filling, self.computing.fill(cell.key, names, samples, filling.judged))
        cell.compact()

    def measure_elsewhere(self, all_filling: Sequence[_Filling]) -> None:
        """Add what cells lack to their rows, computed by workers."""
        workers = Workers(self, {})  # no method is loaded
        try:
            workers.deal([self._work(workers, f, batch) for f in all_filling for batch in f.batches])
            self._workers = workers.facts
        finally:
            workers.close()
        for filling in all_filling:
            filling.cell.compact()

    def _work(self, workers: Workers, filling: _Filling, batch: Sequence[int]) -> Work:
        def make() -> Parcel:
            samples = self._read(filling, batch)
            return fill_task(self._lacking(filling, samples), samples, filling.judged)

        return workers.work(filling.cell.key, batch, make, lambda done: self._keep(filling, done))

    def _lacking(self, filling: _Filling, indices: Iterable[int]) -> list[str]:
        """What one of these images lacks."""
        state, indices = filling.state, list(indices)
        return [n for n in self.computing.computed_names if any(n not in state[i] for i in indices)]

    def _read(self, filling: _Filling, batch: Sequence[int]) -> dict[int, Tensor]:
        """Stored samples [n, 3, H, W] by the image's index; those that are damaged are failures."""
        cell, images = filling.cell, self.computing.images
        n = 1 if filling.judged.deterministic else filling.judged.n
        found = {}
        for index in batch:
            try:
                found[index] = cell.samples.read(index, n, images.operator(cell.key.scale))
            except DiskError:
                raise
            except BenchError as error:
                self.fail(cell.key.folder, str(error), images.dataset.ids[index])
        return found

    def _keep(self, filling: _Filling, done: Computed) -> None:
        """Keep what images lacked: their rows with old and new values together."""
        if not done.images:
            return
        cell, state = filling.cell, filling.state
        known = [union(state[i.index], k) for i, k in zip(done.images, done.known, strict=True)]
        new = frames(cell.key, done.images, done.n, done.values, known)
        indices = [i.index for i in done.images]
        cell.add(indices[0], *merged(filling.before, new, indices, done.values))

    def close(self) -> None:
        """Write down what the run has now, so that tables show it."""
        self.computing.images.keep_seen()
        record = self.directory.config
        there = {name for cell in self.directory.cells() for known in cell.computed().values() for name in known}
        metrics = list(dict.fromkeys([*record["metrics"], *(n for n in self.names if n in there)]))
        has_statistics = len(self.computing.computed_names) > len(self.computing.metric_names)
        statistics = bool(record.get("statistics", True) or has_statistics)
        self.directory.set_config({**record, "metrics": metrics, "statistics": statistics})
        launch = self.config.launch
        self.directory.add_environment(environment(self.config.device) | {
            "compute": {},
            "measured": self.names,
            "batch": self.config.batch,
            "launch": {"name": launch.name, "workers": launch.workers, "threads": torch.get_num_threads()},
            "workers": self._workers,
        })  # fmt: skip
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
