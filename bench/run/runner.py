"""Run methods over a dataset: claim, sample, measure, keep; resume where a former start ended."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from bench.config import RunConfig
from bench.contract import Facts, Method, methods
from bench.data import Dataset, content_of, make_dataset
from bench.errors import BenchError, ImageError
from bench.files import write_atomic
from bench.machine import device_name, environment, keep_freed_memory, release_memory
from bench.metrics import Evaluation, Metric, load_metrics, metric_facts, resolve_metrics
from bench.network import NetworkMethod
from bench.operators import Operator
from bench.run import claims, timing
from bench.run.cell import FAILED, Cell, CellKey
from bench.run.draw import Sampler, finite_images, observe_pixels, say
from bench.run.evaluate import columns, evaluate, not_applicable
from bench.run.samples import ARRAY_BYTES, PNG_BYTES, as_picture
from bench.run.selection import (
    cell_keys,
    dataset_operator,
    make_method,
    prepared_method,
    selected_images,
    short_form,
)
from bench.run.store import RunDir
from bench.values import Shard

Frames = tuple[pd.DataFrame, pd.DataFrame]
"""Rows per sample, and rows per image."""
HOW = "add stale=recompute, which sets the old rows aside and computes anew, or use another out=DIR"


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


@dataclass(frozen=True)
class _Image:
    """An image of the dataset with its observation, on the device."""

    index: int
    name: str
    content: str
    hr: Tensor
    y: Tensor


class Session:
    """A run that holds its directory, with all its cells claimed.

    Attributes:
        config: the run.
        dataset: its images.
        directory: where everything is kept.
        failures: what failed so far.

    """

    def __init__(self, config: RunConfig, dataset: Dataset, directory: RunDir, keys: Collection[CellKey]) -> None:
        self.config = config
        self.dataset = dataset
        self.directory = directory
        self.failures: list[dict[str, Any]] = []
        self.selected = selected_images(config, dataset)
        self.device = torch.device(config.device)
        self.by_label = {m.label: m for m in config.methods}
        self.operator: Callable[[int], Operator] = cache(
            lambda scale: dataset_operator(config, dataset, scale, self.device)
        )
        self.exact: Callable[[int], Operator] = cache(lambda scale: self.operator(scale).to("cpu", torch.float64))
        self._broken: set[tuple[str, int]] = set()
        self._states: dict[CellKey, dict[int, frozenset[str]]] = {}
        self._prepared: tuple[str, int, Method] | None = None
        self._samplers: dict[Method, Sampler] = {}
        self._cheap = type(dataset).fingerprint is not Dataset.fingerprint
        self._seen = directory.seen() if self._cheap else {}
        self._expected: dict[int, tuple[str, str]] = {}

        for scale in config.scales:
            self.operator(scale)
        asked = config.perceptual
        kept = directory.perceptual(asked) if asked == "auto" else None
        self.names, notice = resolve_metrics(config.metrics, kept or asked)
        keep_freed_memory()
        torch.backends.cudnn.benchmark = False  # its choice of algorithm may differ from start to start
        torch.backends.cudnn.deterministic = True
        self.not_applicable = not_applicable(self.names, self.operator(config.scales[0]))
        self.computed_names = [
            n for n in self.names if n not in self.not_applicable and metric_facts(n).domain != "timing"
        ]
        self.timed = any(metric_facts(n).domain == "timing" for n in self.names)
        self._claim(list(keys))
        directory.set_config(config.record() | {"metrics": self.names})
        if asked == "auto" and any("perceptual" in n for n in config.metrics):
            directory.set_perceptual(asked, resolve_metrics(["perceptual"], kept or asked)[0][0])
        directory.add_environment(self._environment())
        directory.set_failures(self.failures)
        for sentence in [*([notice] if notice else []), *self.not_applicable.values()]:
            say(sentence)

    def close(self) -> None:
        """Keep what is known of the images for the next start."""
        if self._cheap and self._seen != self.directory.seen():
            self.directory.set_seen(self._seen)

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
            "compute": {m.label: claims.compute_of(m) for m in self.config.methods},
        }

    # claiming: nothing is sampled, and nothing written before everything has been compared

    def _claim(self, keys: list[CellKey]) -> None:
        """Compare all that the rows of these cells depend on with what it is now; then claim the cells."""
        self.kept = self._kept_images(keys)
        now = {k: claims.identity(self.config, self.by_label[k.label], k) for k in keys}
        claimed = self.directory.claimed()
        if self.config.shard is None:
            for cell in claimed:
                cell.compact()
        others = [c for c in claimed if c.key not in now]
        stale = {cell.key for cell, _ in self._compare(now, others)} | {
            c.key for c in self._changed_images(now, others)
        }
        stored = self._prepare_all(now, stale)
        with self.directory.claiming():  # another part may have claimed meanwhile
            for cell, reasons in self._compare(now, others):
                say(f"{cell.folder}: {'; '.join(reasons)}: the old rows are in {cell.supersede().name}.")
            for cell, indices in self._changed_images(now, others).items():
                say(f"{cell.folder}: {len(indices)} images changed: their rows are in {cell.supersede(indices).name}.")
            for key, (facts, files) in stored.items():
                self.directory.cell(key).claim(now[key], facts, files)
        self._states.clear()
        for cell in self._cells(now):
            if cell.identity is not None:
                self._check_fillable(cell)

    def _cells(self, keys: Collection[CellKey]) -> list[Cell]:
        return [self.directory.cell(k) for k in keys]

    def _compare(self, now: dict[CellKey, dict[str, Any]], others: Sequence[Cell]) -> list[tuple[Cell, list[str]]]:
        """Cells whose rows are of something else, and what; BenchError where that is to be refused."""
        stale = []
        for cell in [*self._cells(now), *others]:
            before = cell.identity
            if before is None:
                if cell.done():
                    stale.append((cell, ["nothing tells what its rows depend on (cell.json is gone)"]))
                continue
            wanted = now.get(cell.key)
            if wanted is None:
                shared = {k: v for k, v in next(iter(now.values())).items() if k in claims.SHARED} if now else {}
                reasons = claims.differences(before, shared, claims.SHARED if now else ())
            else:
                reasons = claims.differences(before, {"weights": before.get("weights"), **wanted})
            if reasons:
                stale.append((cell, reasons))
        if stale and self.config.stale == "refuse":
            cell, reasons = stale[0]
            more = f" (and {len(stale) - 1} more)" if len(stale) > 1 else ""
            raise BenchError(f"{cell.folder}{more} holds rows of something else: {'; '.join(reasons)}: {HOW}.")
        if self.config.stale == "refuse":
            for cell, indices in self._changed_images(now, others).items():
                name = cell.contents()[indices[0]][0]
                more = f" (and {len(indices) - 1} more)" if len(indices) > 1 else ""
                raise BenchError(
                    f"{cell.folder} holds rows of another image: {name}{more} is no longer what it was: {HOW}."
                )
        return stale

    def _changed_images(self, now: dict[CellKey, dict[str, Any]], others: Sequence[Cell]) -> dict[Cell, list[int]]:
        """Images, by cell, whose rows are of another content than the dataset has now."""
        changed: dict[Cell, list[int]] = {}
        for cell in [*self._cells(now), *others]:
            if cell.identity is None:
                continue
            for index, (name, content) in cell.contents().items():
                if (name, content) != self._image_now(index):
                    changed.setdefault(cell, []).append(index)
                else:
                    self._expected[index] = (name, content)
        return changed

    def _image_now(self, index: int) -> tuple[str, str | None]:
        """Name and content of an image; it is read only where its file is not the one that was last seen."""
        if index >= len(self.dataset):
            return "", None
        name = self.dataset.ids[index]
        if not self._cheap:
            return name, claims.content_now(self.dataset, index)
        fingerprint = self.dataset.fingerprint([index])
        seen = self._seen.get(index)
        if seen is None or seen[0] != fingerprint:
            content = claims.content_now(self.dataset, index)
            if content is None:
                return name, None
            seen = self._seen[index] = (fingerprint, content)
        return name, seen[1]

    def _prepare_all(
        self, now: dict[CellKey, dict[str, Any]], stale: Collection[CellKey]
    ) -> dict[CellKey, tuple[dict[str, Any], dict[str, Any]]]:
        """Load every method that has something to do, hash its files, and complete the identities with them.

        The last one is the first that will sample: it stays loaded.

        Returns:
            facts and files of the cells that can be claimed.

        """
        stored: dict[CellKey, tuple[dict[str, Any], dict[str, Any]]] = {}
        groups: dict[tuple[str, int], list[CellKey]] = {}
        for key in now:
            groups.setdefault((key.label, key.scale), []).append(key)
        order = sorted(groups, key=lambda g: (self.config.scales.index(g[1]), list(self.by_label).index(g[0])))
        for label, scale in reversed(order):
            keys = groups[label, scale]
            if all(self._is_finished(key, stale) for key in keys):
                for key in keys:
                    now[key]["weights"] = claims.recorded_hashes(self.directory.cell(key))
                continue
            with self._guarded(label, scale):
                method = self.method(label, scale)
                files = dict(method.files())
                weights = claims.hashes(files)
                facts = asdict(method.facts) | {
                    "method": self.by_label[label].name,
                    "evaluations": method.evaluations,
                }
                for key in keys:
                    now[key]["weights"] = weights
                    stored[key] = (claims.plain(facts), claims.file_states(files))
        return stored

    def _is_finished(self, key: CellKey, stale: Collection[CellKey]) -> bool:
        """Whether a cell needs its method no more, not even to compute its rows anew."""
        cell = self.directory.cell(key)
        identity = cell.identity
        if identity is None or key in stale or self._needs_method(cell):
            return False
        return self.config.stale == "refuse" or claims.recorded_hashes(cell) == identity["weights"]

    def _check_fillable(self, cell: Cell) -> None:
        """Raise BenchError where a metric is to be added to rows whose samples are not there."""
        if self.config.resample:
            return
        for name in self.computed_names:
            lost = [
                i for i, known in self._state(cell).items()
                if not {name, name + FAILED} & known and not self._stored(cell, i)
            ]  # fmt: skip
            if lost:
                raise BenchError(
                    f"{name} cannot be added to {cell.folder}: the samples of {len(lost)} images are not kept; add "
                    "resample=true, which draws them again, or leave the metric out."
                )

    # what there is to do

    def _state(self, cell: Cell) -> dict[int, frozenset[str]]:
        """What a cell had when the session began (`Cell.computed`): reading all of its parts takes time."""
        if cell.key not in self._states:
            self._states[cell.key] = cell.computed()
        return self._states[cell.key]

    def _facts(self, cell: Cell) -> Facts:
        facts: Facts = methods.facts(self.by_label[cell.key.label].name)
        return facts

    def _n(self, label: str) -> int:
        return 1 if methods.facts(self.by_label[label].name).deterministic else self.config.n

    def _stored(self, cell: Cell, index: int) -> bool:
        return cell.samples.count(index) >= self._n(cell.key.label)

    def _kept_images(self, keys: Sequence[CellKey]) -> range:
        """The images whose samples are kept: the first ones of those selected, as many as the budget allows."""
        if self.config.save_samples == "all":
            return self.selected
        if self.config.save_samples == "none":
            return self.selected[:0]
        pixel = PNG_BYTES if self._rounded else ARRAY_BYTES
        height, width = self.operator(self.config.scales[0]).size
        size = sum(self._n(k.label) for k in keys) * height * width * pixel
        return self.selected[: self.config.save_budget // max(size, 1)]

    @property
    def _rounded(self) -> bool:
        """Whether samples have 8 bits."""
        return self.config.quantise and self.operator(self.config.scales[0]).range is not None

    def _batches(self, indices: Collection[int]) -> list[list[int]]:
        """Those of this process's images that are among `indices`, in batches."""
        size, shard = self.config.batch, self.config.shard
        mine = range(self.selected.start, self.selected.stop, size)
        if shard is not None:
            mine = mine[shard.index :: shard.count]
        wanted = set(indices)
        batches = [[i for i in range(first, min(first + size, self.selected.stop)) if i in wanted] for first in mine]
        return [batch for batch in batches if batch]

    def _missing(self, cell: Cell) -> list[list[int]]:
        return self._batches(set(self.selected) - set(self._state(cell)))

    def _incomplete(self, cell: Cell) -> list[list[int]]:
        """Batches of images with rows that lack metrics, or samples that should be kept and may be drawn again."""
        wanted = set(self.computed_names)
        lacking = {i for i, known in self._state(cell).items() if not wanted <= known and self._fillable(cell, i)}
        if self.config.resample:
            lacking |= {i for i in self._state(cell) if i in self.kept and not self._stored(cell, i)}
        return self._batches(lacking)

    def _fillable(self, cell: Cell, index: int) -> bool:
        return self.config.resample or self._stored(cell, index)

    def _untimed(self, cell: Cell) -> bool:
        """Whether the time is still to be measured; processes that share a machine would disturb each other."""
        if not self.timed or self.config.shard is not None:
            return False
        before = cell.timing
        return before is None or before["compute"] != claims.compute_of(self.by_label[cell.key.label])

    def _needs_method(self, cell: Cell) -> bool:
        """Whether anything is left to do that needs the method itself."""
        again = any(not self._stored(cell, i) for batch in self._incomplete(cell) for i in batch)
        return bool(again or self._missing(cell) or self._untimed(cell))

    # methods

    @contextmanager
    def _guarded(self, label: str, scale: int) -> Iterator[None]:
        """Turn whatever a method raises into a failure of this method at this scale."""
        try:
            yield
            return
        except BenchError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 -- a method's bug must not take the other methods down
            report = self.directory.path / "errors" / f"{CellKey(label, scale, None).folder}.txt"
            write_atomic(report, traceback.format_exc())
            reason = f"{type(error).__name__}: {error} (traceback in {report})"
        self._broken.add((label, scale))
        self._let_go()
        self.fail(f"{label} x{scale}", reason)

    def _let_go(self) -> None:
        """Give the memory of the loaded method back."""
        self._prepared = None
        self._samplers.clear()
        release_memory()

    def method(self, label: str, scale: int) -> Method:
        """The method, loaded; the one that was loaded before is let go."""
        if self._prepared is None or self._prepared[:2] != (label, scale):
            self._let_go()
            self._prepared = (label, scale, prepared_method(self.config, self.by_label[label], self.dataset, scale))
        return self._prepared[2]

    def _sampler(self, label: str, scale: int) -> Sampler:
        method = self.method(label, scale)
        if method not in self._samplers:
            if isinstance(method, NetworkMethod) and method.compute.rows == "auto":
                method.rows = self._rows_together(method, label, scale)
            config = self.config
            self._samplers[method] = Sampler(method, label, config.seed, config.n, config.quantise)
        return self._samplers[method]

    def _rows_together(self, method: NetworkMethod, label: str, scale: int) -> int:
        """Rows together for a network: chosen once for a directory, on a short form of an iterative method."""
        m = self.by_label[label]
        of = {"label": label, "scale": scale, "compute": claims.compute_of(m), **self._machine}
        rows = self.directory.rows_together(of)
        if rows is None:
            y = self._any_observation(scale)
            if y is None:
                return method.rows
            short = short_form(m)
            timed = method if short is m else prepared_method(self.config, short, self.dataset, scale)
            assert isinstance(timed, NetworkMethod)
            most = self._n(label) * self.config.batch
            rows = timing.choose_rows(timed, y[None], self.config.taus[0], self.config.seed, most)
            self.directory.set_rows_together(of, rows)
        return rows

    @cached_property
    def _machine(self) -> dict[str, Any]:
        """What speed depends on besides the method."""
        return {"device": device_name(self.config.device), "threads": torch.get_num_threads()}

    @cached_property
    def _metrics(self) -> dict[str, Metric]:
        return load_metrics(self.computed_names, self.config.device)

    # images

    def _image(self, index: int, scale: int) -> _Image | None:
        """Load and observe an image; None, and a failure, where it cannot be used."""
        name = self.dataset.ids[index]
        where = str(self.config.dataset["name"])
        try:
            fingerprint = self.dataset.fingerprint([index]) if self._cheap else ""
            pixels = self.dataset.load(index)
            content = content_of(pixels)
            if self._expected.setdefault(index, (name, content)) != (name, content):
                self.fail(where, "the image was replaced while the run went on; start the same command again", name)
                return None
            self._seen[index] = (fingerprint, content)
            hr, y = observe_pixels(pixels, name, self.exact(scale), self.config.seed)
        except ImageError as error:
            self.fail(where, str(error), name)
            return None
        return _Image(index, name, content, hr.to(self.device), y.to(self.device))

    def _images(self, batch: Sequence[int], scale: int) -> list[_Image]:
        return [image for i in batch if (image := self._image(i, scale)) is not None]

    def _any_observation(self, scale: int) -> Tensor | None:
        return next((image.y for i in self.selected if (image := self._image(i, scale)) is not None), None)

    # measuring

    def measure(self, keys: Collection[CellKey]) -> None:
        """Compute all rows and times of these cells that are not there yet."""
        for scale in self.config.scales:
            for label in self.by_label:
                cells = self._cells([k for k in keys if (k.label, k.scale) == (label, scale)])
                open_ones = [c for c in cells if self._needs_method(c) or self._incomplete(c)]
                if open_ones and (label, scale) not in self._broken:
                    self._metrics  # noqa: B018 -- a metric that cannot be loaded is an error before hours of sampling
                    with self._guarded(label, scale):
                        for cell in open_ones:
                            self._measure_cell(cell)
                self._say_failed_before(cells)
        self._let_go()

    def _measure_cell(self, cell: Cell) -> None:
        sampler = self._sampler(cell.key.label, cell.key.scale) if self._needs_method(cell) else None
        filling, missing = self._incomplete(cell), self._missing(cell)
        before = (cell.read("samples"), cell.read("images")) if filling else None
        total, left = sum(map(len, self._batches(self.selected))), sum(map(len, [*filling, *missing]))
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
        y = self._any_observation(cell.key.scale)
        if y is not None:
            measured = timing.measure(method, y[None], cell.key.tau, self.config.seed, self.config.timing)
            compute = claims.compute_of(self.by_label[cell.key.label])
            cell.set_timing({**measured.record(), "compute": compute, **self._machine})

    def _compute(self, cell: Cell, sampler: Sampler, batch: Sequence[int]) -> None:
        """Sample a batch of images, keep what is to be kept, and add its rows."""
        images, samples = self._sample(cell, sampler, self._images(batch, cell.key.scale))
        if images:
            values, known = self._evaluate(cell, images, samples, self._metrics)
            cell.add(images[0].index, *_frames(cell.key, images, samples.shape[1], values, known))

    def _sample(self, cell: Cell, sampler: Sampler, images: list[_Image]) -> tuple[list[_Image], Tensor]:
        """Sample, and keep samples; without images for which the method failed."""
        if not images:
            return [], torch.empty(0)
        samples = sampler(torch.stack([i.y for i in images]), [i.name for i in images], cell.key.tau)
        finite = finite_images(samples)
        for image in (i for i, good in zip(images, finite, strict=True) if not good):
            self.fail(cell.key.folder, "the method returned NaN or infinite values", image.name)
        images = [i for i, good in zip(images, finite, strict=True) if good]
        samples = samples[torch.from_numpy(finite).to(samples.device)]
        for image, x in zip(images, samples, strict=True):
            if image.index in self.kept:
                cell.samples.write(image.index, x, sampler.method.operator, self._rounded)
                if image.index < self.selected.start + self.config.figure_images:
                    self._keep_picture(cell.key.scale, image)
        return images, samples

    def _keep_picture(self, scale: int, image: _Image) -> None:
        if (range := self.operator(scale).range) is not None:
            self.directory.set_image(scale, image.index, as_picture(image.hr, range), as_picture(image.y, range))

    def _fill(self, cell: Cell, sampler: Sampler | None, batch: Sequence[int], before: Frames | None) -> None:
        """Add metrics to rows, from stored samples or from samples that are drawn again."""
        assert before is not None
        stored = [i for i in batch if self._stored(cell, i)]
        images = self._images(stored, cell.key.scale)
        self._fill_images(cell, images, [self._read(cell, image.index) for image in images], before)
        drawn = self._images([i for i in batch if i not in stored], cell.key.scale)
        if drawn and sampler is not None:
            images, samples = self._sample(cell, sampler, drawn)
            self._fill_images(cell, images, list(samples), before)

    def _read(self, cell: Cell, index: int) -> Tensor:
        operator = self.operator(cell.key.scale)
        return cell.samples.read(index, self._n(cell.key.label), operator).to(self.device)

    def _fill_images(self, cell: Cell, images: list[_Image], samples: list[Tensor], before: Frames) -> None:
        """Compute the metrics that images lack, and add their rows, old and new values together."""
        state = self._state(cell)
        names = [n for n in self.computed_names if any(n not in state[i.index] for i in images)]
        if not names:
            return
        values, known = self._evaluate(cell, images, torch.stack(samples), {n: self._metrics[n] for n in names})
        known = [_union(state[i.index], k) for i, k in zip(images, known, strict=True)]
        indices = [i.index for i in images]
        merged = []
        for old, new in zip(before, _frames(cell.key, images, len(samples[0]), values, known), strict=True):
            kept = old[old["index"].isin(indices)].reset_index(drop=True)
            merged.append(kept.assign(**{n: new[n] for n in (*values, "metrics") if n in new}))
        cell.add(indices[0], *merged)

    def _evaluate(
        self, cell: Cell, images: list[_Image], samples: Tensor, loaded: dict[str, Metric]
    ) -> tuple[dict[str, np.ndarray], list[set[str]]]:
        """Values of metrics, and for each image the names of those that it has (`FAILED` where one failed)."""
        known = [set(loaded) for _ in images]

        def failed(name: str, row: int, error: Exception) -> None:
            known[row] ^= {name, name + FAILED}
            self.fail(cell.key.folder, f"{name} failed: {type(error).__name__}: {error}", images[row].name)

        e = Evaluation(
            torch.stack([i.hr for i in images]), torch.stack([i.y for i in images]), samples,
            self.operator(cell.key.scale), self._facts(cell).deterministic,
        )  # fmt: skip
        return evaluate(loaded, e, failed), known

    def _say_failed_before(self, cells: Sequence[Cell]) -> None:
        """Record metrics that failed for an image, in an earlier start, and cannot be tried again."""
        for cell in cells:
            names = {i: name for i, (name, _) in cell.contents().items()}
            for index, known in self._state(cell).items():
                for metric in self.computed_names:
                    if metric + FAILED in known and not self._fillable(cell, index) and index in self.selected:
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
            n = 1 if self._facts(cell).deterministic else samples
            for index in indices:
                shown = self.directory.image_folder(key.scale, index) / "lr.png"
                if not shown.is_file() and (image := self._image(index, key.scale)) is not None:
                    self._keep_picture(key.scale, image)
            lacking = [i for i in indices if cell.samples.count(i) < n]
            if not lacking:
                continue
            if (key.label, key.scale) not in self._broken:
                with self._guarded(key.label, key.scale):
                    self._draw_cell(cell, lacking, n)
            complete &= all(cell.samples.count(i) >= n for i in lacking)
        return complete

    def _draw_cell(self, cell: Cell, indices: Sequence[int], n: int) -> None:
        sampler = self._sampler(cell.key.label, cell.key.scale)
        sampler = Sampler(sampler.method, cell.key.label, self.config.seed, n, self.config.quantise)
        for image in self._images(indices, cell.key.scale):
            x = sampler(image.y[None], [image.name], cell.key.tau)
            if finite_images(x).all():
                cell.samples.write(image.index, x[0], sampler.method.operator, self._rounded)
            else:
                self.fail(cell.key.folder, "the method returned NaN or infinite values", image.name)


def _frames(
    key: CellKey, images: Sequence[_Image], n: int, values: dict[str, np.ndarray], known: Sequence[set[str]]
) -> Frames:
    """Rows per sample and rows per image."""
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


def _union(before: Collection[str], new: Collection[str]) -> set[str]:
    """Metrics of both; one that has been tried again is what it is now."""
    tried = {name.removesuffix(FAILED) for name in new}
    return {name for name in before if name.removesuffix(FAILED) not in tried} | set(new)
