"""Run methods over a dataset: claim, sample, measure, keep; resume where a former start ended."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from bench.config import RunConfig
from bench.data import Dataset, make_dataset
from bench.errors import BenchError
from bench.load import make_method
from bench.machine import environment, leave_modules_out_of_collections
from bench.metrics import metric_facts, resolve_metrics
from bench.run.cell import FAILED, Cell, CellKey
from bench.run.claims import Claims
from bench.run.computing import Computed, Computing
from bench.run.draw import say
from bench.run.rows import Frames, frames, merged, union
from bench.run.samples import ARRAY_BYTES, PNG_BYTES
from bench.run.selection import cell_keys
from bench.run.sources import changed_sources
from bench.run.store import RunDir

if TYPE_CHECKING:
    from bench.run.elsewhere import Elsewhere


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
    leave_modules_out_of_collections()
    for m in (m for m in config.methods if m.label in {k.label for k in keys}):
        make_method(m)
    dataset = make_dataset(config.dataset)
    directory = RunDir(config.out)
    if (directory.path / "sample.json").is_file():
        raise BenchError(f"{directory.path} holds samples of one's own images: use another out=DIR.")
    if config.launch.elsewhere and config.launch.gpus:  # the GPUs are the workers'
        config = config.model_copy(update={"device": "cpu"})
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
        computing: what computes here; `images` and `loaded` are its.
        keys: its cells.
        names: all metrics.
        failures: what failed so far.

    """

    def __init__(self, config: RunConfig, dataset: Dataset, directory: RunDir, keys: Collection[CellKey]) -> None:
        self.config = config
        self.directory = directory
        self.keys = tuple(keys)
        self.failures: list[dict[str, Any]] = []
        self._states: dict[CellKey, dict[int, frozenset[str]]] = {}
        self._elsewhere: Elsewhere | None = None
        self._threads = torch.get_num_threads()
        if config.launch.cpus is not None:
            torch.set_num_threads(config.launch.cpus)
        asked = config.perceptual
        kept = directory.perceptual(asked) if asked == "auto" else None
        self.names, notice = resolve_metrics(config.metrics, kept or asked)
        self.computing = Computing(config, dataset, directory, self.fail, self.names)
        self.images, self.loaded = self.computing.images, self.computing.loaded
        self.computing.kept = self._kept_images(keys, self.images.operator(config.scales[0]).size)

        loaded = self.loaded
        Claims(config, directory, self.images, self.needs_method, loaded.try_method, loaded.method).make(list(keys))
        self._states.clear()
        for key in keys:
            self._check_fillable(directory.cell(key))
        directory.set_config(config.record() | {"metrics": self.names})
        if asked == "auto" and any("perceptual" in n for n in config.metrics):
            directory.set_perceptual(asked, resolve_metrics(["perceptual"], kept or asked)[0][0])
        directory.add_environment(self._environment())
        directory.set_failures(self.failures)
        used = dict.fromkeys(m.name for m in config.methods if m.label in {k.label for k in keys})
        edited = changed_sources(directory, used, str(config.operator["name"]), self.names)
        for sentence in [*(s for s in (notice, edited) if s), *self.computing.undefined.values()]:
            say(sentence)

    def close(self) -> None:
        """End the workers, and keep what is known of the images for the next start."""
        if self._elsewhere is not None:
            self._elsewhere.close()
        torch.set_num_threads(self._threads)
        self.images.keep_seen()

    def fail(self, what: str, reason: str, image: str | None = None) -> None:
        """Record a failure, once per image where it is the image's own."""
        failure = {"what": what, "image": image, "reason": reason}
        if failure not in self.failures:
            self.failures.append(failure)
            self.directory.set_failures(self.failures)
            say(f"{what}: {image + ': ' if image else ''}{reason}")

    def _environment(self) -> dict[str, Any]:
        launch = self.config.launch
        return environment(self.config.device) | {
            "launch": {"name": launch.name, "workers": launch.workers, "threads": torch.get_num_threads()},
            "batch": self.config.batch,
            "compute": {m.label: self.loaded.compute(m.label) for m in self.config.methods},
        }

    def _check_fillable(self, cell: Cell) -> None:
        """Raise BenchError where a metric is to be added to rows whose samples are not there."""
        for name in self.computing.metric_names:
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

    def readable(self, cell: Cell, index: int) -> bool:
        """Whether the metrics that an image lacks can be computed from the samples that are kept of it."""
        lacking = set(self.computing.metric_names) - self._state(cell).get(index, frozenset())
        # statistics need no raw ones
        return self._stored(cell, index) and not any(metric_facts(n).needs_raw for n in lacking)

    def _kept_images(self, keys: Collection[CellKey], size: tuple[int, int]) -> range:
        """The images whose samples are kept: the first ones of those selected, as many as the budget allows."""
        selected = self.images.selected
        if self.config.save_samples == "all":
            return selected
        if self.config.save_samples == "none":
            return selected[:0]
        pixels = size[0] * size[1] * sum(self.loaded.samples(k.label) for k in keys)
        bytes_each = PNG_BYTES if self.computing.rounded else ARRAY_BYTES
        return selected[: self.config.save_budget // max(pixels * bytes_each, 1)]

    def missing(self, cell: Cell) -> list[list[int]]:
        """Batches of images without rows."""
        return self.images.batches(set(self.images.selected) - set(self._state(cell)))

    def incomplete(self, cell: Cell) -> list[list[int]]:
        """Batches of images with rows that lack metrics, or samples that should be kept and may be drawn again."""
        wanted = set(self.computing.computed_names)
        lacking = {i for i, known in self._state(cell).items() if not wanted <= known and self._fillable(cell, i)}
        if self.config.resample:
            kept = self.computing.kept
            lacking |= {i for i in self._state(cell) if i in kept and not self._stored(cell, i)}
        return self.images.batches(lacking)

    def _fillable(self, cell: Cell, index: int) -> bool:
        return self.config.resample or self.readable(cell, index)

    def untimed(self, cell: Cell) -> bool:
        """Whether a time is still to be measured."""
        if not self.computing.timed:
            return False
        before = cell.timing
        if before is None or before.get("compute") != self.loaded.compute(cell.key.label):
            return True
        return not before.keys() >= set(self.computing.timed)

    def needs_samples(self, cell: Cell) -> bool:
        """Whether anything is left to do that needs samples that are not kept."""
        again = any(not self.readable(cell, i) for batch in self.incomplete(cell) for i in batch)
        return bool(again or self.missing(cell))

    def needs_method(self, cell: Cell) -> bool:
        """Whether anything is left to do that needs the method itself."""
        return self.needs_samples(cell) or self.untimed(cell)

    def open_cells(self, keys: Collection[CellKey]) -> Iterator[list[Cell]]:
        """The cells of each method at each scale that lack rows or metrics; what failed before is told of."""
        for scale in self.config.scales:
            for label in (m.label for m in self.config.methods):
                cells = [self.directory.cell(k) for k in keys if (k.label, k.scale) == (label, scale)]
                open_ones = [c for c in cells if self.missing(c) or self.incomplete(c)]
                if open_ones and (label, scale) not in self.loaded.broken:
                    yield open_ones
                self._say_failed_before(cells)

    # measuring

    def measure(self, keys: Collection[CellKey]) -> None:
        """Compute all rows and times of these cells that are not there yet, here or with workers."""
        self._restore_pictures(keys)
        if self.config.launch.elsewhere:
            self._workers().measure(list(self.open_cells(keys)))
        else:
            for cells in self.open_cells(keys):
                self.computing.metrics  # noqa: B018 -- a metric that cannot be loaded is an error before all sampling
                with self.loaded.guarded(cells[0].key.label, cells[0].key.scale):
                    for cell in cells:
                        self._measure_cell(cell)
        for scale in self.config.scales:
            cells = [self.directory.cell(k) for k in keys if k.scale == scale]
            untimed = [c.key for c in cells if self.untimed(c) and (c.key.label, scale) not in self.loaded.broken]
            if untimed and self.config.launch.elsewhere:
                self._workers().time(untimed)
            elif untimed:
                self.keep_times(self.computing.time(untimed))
        self.loaded.let_go()

    def keep_times(self, found: Iterable[tuple[CellKey, Mapping[str, Any]]]) -> None:
        """Keep what has been timed."""
        for key, timing in found:
            self.directory.cell(key).set_timing(dict(timing))

    def _workers(self) -> Elsewhere:
        if self._elsewhere is None:
            from bench.run.elsewhere import Elsewhere

            self.loaded.let_go()
            self._elsewhere = Elsewhere(self)
        return self._elsewhere

    def _measure_cell(self, cell: Cell) -> None:
        if self.needs_samples(cell):
            self.loaded.sampler(cell.key.label, cell.key.scale)
        filling, missing = self.incomplete(cell), self.missing(cell)
        before = self.rows(cell) if filling else None
        total, left = sum(map(len, self.images.batches(self.images.selected))), sum(map(len, [*filling, *missing]))
        interval = 0.2 if sys.stderr.isatty() else 30.0
        with tqdm(
            total=max(total, left), initial=max(total - left, 0), desc=cell.key.folder, unit="image",
            mininterval=interval, maxinterval=interval,
        ) as bar:  # fmt: skip
            for batch in filling:
                self._fill(cell, batch, before)
                bar.update(len(batch))
            for batch in missing:
                self.keep(self.computing.measure(cell.key, batch, self.shown(cell.key.scale, batch)))
                bar.update(len(batch))
        cell.compact()

    def _fill(self, cell: Cell, batch: Sequence[int], before: Frames | None) -> None:
        """Add metrics to rows, from stored samples or from samples that are drawn again."""
        stored, drawn = self.split(cell, batch)
        if stored:
            samples, judged = {i: self.read(cell, i) for i in stored}, self.computing.judged(cell.key)
            self.merge(self.computing.fill(cell.key, self.lacking(cell, stored), samples, judged), before)
        if drawn:
            shown = self.shown(cell.key.scale, drawn)
            self.merge(self.computing.fill_again(cell.key, self.lacking(cell, drawn), drawn, shown), before)

    def rows(self, cell: Cell) -> Frames:
        """Rows of a cell, to which metrics are added."""
        return cell.read("samples"), cell.read("images")

    def split(self, cell: Cell, batch: Sequence[int]) -> tuple[list[int], list[int]]:
        """Those images of a batch whose samples can be read, and those whose samples are drawn again."""
        stored = [i for i in batch if self.readable(cell, i)]
        return stored, [i for i in batch if i not in stored]

    def lacking(self, cell: Cell, indices: Sequence[int]) -> list[str]:
        """What is computed of samples and one of these images lacks."""
        state = self._state(cell)
        return [n for n in self.computing.computed_names if any(n not in state[i] for i in indices)]

    def read(self, cell: Cell, index: int) -> Tensor:
        """The samples [n, 3, H, W] that are kept of an image."""
        operator = self.images.operator(cell.key.scale)
        return cell.samples.read(index, self.loaded.samples(cell.key.label), operator)

    # keeping

    def keep(self, done: Computed) -> None:
        """Keep what has been computed of a batch: samples and pictures, then its rows."""
        self._keep_samples(done)
        if done.images:
            cell = self.directory.cell(done.key)
            cell.add(done.images[0].index, *frames(done.key, done.images, done.n, done.values, done.known))

    def merge(self, done: Computed, before: Frames | None) -> None:
        """Keep metrics that images lacked: their rows with old and new values together."""
        self._keep_samples(done)
        if not done.images:
            return
        assert before is not None
        cell = self.directory.cell(done.key)
        state = self._state(cell)
        known = [union(state[i.index], k) for i, k in zip(done.images, done.known, strict=True)]
        new = frames(done.key, done.images, done.n, done.values, known)
        indices = [i.index for i in done.images]
        cell.add(indices[0], *merged(before, new, indices, done.values))

    def _keep_samples(self, done: Computed) -> None:
        cell, operator = self.directory.cell(done.key), self.images.operator(done.key.scale)
        for index, x in done.kept.items():
            cell.samples.write(index, x, operator, self.computing.rounded)
        for index, pictures in done.pictures.items():
            self.directory.set_image(done.key.scale, index, *pictures)

    def shown(self, scale: int, indices: Collection[int]) -> list[int]:
        """Those of the images whose samples are kept, or that a figure has shown."""
        kept = self.computing.kept
        return [i for i in indices if i in kept or self.directory.image_folder(scale, i).is_dir()]

    def _restore_pictures(self, keys: Collection[CellKey]) -> None:
        """Make pictures of images again that have samples but lost theirs."""
        for scale in (s for s in self.config.scales if self.images.operator(s).range is not None):
            samples = [self.directory.cell(k).samples for k in keys if k.scale == scale]
            names = [p.name for p in self.directory.image_folder(scale, 0).parent.glob("*")]
            shown = {int(name) for name in names if name.isdecimal()}
            shown |= set(self.computing.kept)
            lost = (i for i in sorted(shown) if i < len(self.images.dataset) and not self.directory.has_image(scale, i))
            for index in (i for i in lost if any(s.count(i) for s in samples)):
                self._show(scale, index)

    def _show(self, scale: int, index: int) -> None:
        """Keep the pictures of an image."""
        if (image := self.images.load(index, scale)) is not None:
            done = Computed(CellKey("", scale, None))
            self.computing.show(done, image)
            for pictures in done.pictures.values():
                self.directory.set_image(scale, index, *pictures)

    def _say_failed_before(self, cells: Sequence[Cell]) -> None:
        """Record metrics that failed for an image, in an earlier start, and cannot be tried again."""
        for cell in cells:
            names = {i: name for i, (name, _) in cell.contents().items()}
            for index, known in self._state(cell).items():
                for metric in self.computing.computed_names:
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
        for scale, index in dict.fromkeys((k.scale, i) for k in keys for i in indices):
            if not self.directory.has_image(scale, index):
                self._show(scale, index)
        wanted = {k: min(samples, self.loaded.samples(k.label)) for k in keys}
        lacking = [(k, i) for k, n in wanted.items() for i in indices if self.directory.cell(k).samples.count(i) < n]
        left = [(k, i) for k, i in lacking if (k.label, k.scale) not in self.loaded.broken]
        if left and self.config.launch.elsewhere:
            self._workers().draw(left, wanted)
        else:
            for key, index in left:
                if (key.label, key.scale) not in self.loaded.broken:
                    with self.loaded.guarded(key.label, key.scale):
                        self.keep_drawn(self.computing.draw(key, index, wanted[key]))
        return all(self.directory.cell(k).samples.count(i) >= wanted[k] for k, i in lacking)

    def keep_drawn(self, done: Computed) -> None:
        """Keep samples that are not measured, and which image they are of."""
        self.directory.cell(done.key).set_drawn({i.index: (i.name, i.content) for i in done.images})
        self._keep_samples(done)
