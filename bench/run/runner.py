"""Run methods over a dataset: sample, measure, store; resume where a former start ended."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from bench.config import FROZEN, MethodConfig, RunConfig
from bench.contract import Method, Noise, methods
from bench.data import Dataset, make_dataset
from bench.degradation import Degradation, quantise, to_uint8
from bench.errors import BenchError, ImageError, OutOfMemoryError, near_matches
from bench.files import write_atomic, write_json, write_png
from bench.machine import environment, file_hashes, is_out_of_memory, keep_freed_memory, release_memory
from bench.metrics import Evaluation, Metric, load_metrics, metric_facts, resolve_metrics
from bench.run import timing
from bench.run.store import Cell, CellKey, RunDir
from bench.values import Shard

TOLERANCE = 1e-5
"""How far outside of [0, 1] a sample may be by rounding."""


def say(text: str) -> None:
    """Print a line of progress on stderr, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


def part_done(shard: Shard) -> str:
    """Say what is left to do when one part of the images is done."""
    return (
        f"Part {shard.index} of {shard.count} is done. After all parts, the same command without shard=... measures "
        "the times and writes the tables."
    )


def make_method(config: MethodConfig) -> Method:
    """Build a method from its parameters; BenchError for unknown names or parameters."""
    cls = methods.get(config.name)
    known = list(inspect.signature(cls).parameters)
    for key in config.parameters:
        if key not in known:
            raise BenchError(
                f"methods.{config.label}.{key} is no parameter of {config.name}.{near_matches(key, known)}"
                + ("" if known else " It has none.")
            )
    return cls(**config.parameters)


def cell_keys(config: RunConfig) -> list[CellKey]:
    """Everything a run measures, by scale, method and temperature; BenchError for a scale a method cannot do."""
    keys = []
    for scale in config.scales:
        for m in config.methods:
            facts = methods.get(m.name).facts
            if facts.scales is not None and scale not in facts.scales:
                raise BenchError(
                    f"{m.name} does scale {' and '.join(map(str, facts.scales))}, not {scale}: "
                    "change scale=... or leave it out of methods=[...]."
                )
            keys += [CellKey(m.label, scale, tau) for tau in (config.taus if facts.uses_tau else (None,))]
    return keys


class Sampler:
    """Draw samples of a prepared method, in smaller pieces once memory has run out."""

    def __init__(self, method: Method, label: str, degradation: Degradation, seed: int, n: int) -> None:
        self.method = method
        self.label = label
        self.size = degradation.size
        self.seed = seed
        self.samples = list(range(1 if method.facts.deterministic else n))
        self.max_images = sys.maxsize
        self.max_samples = len(self.samples)

    def __call__(self, y: Tensor, ids: Sequence[str], tau: float | None) -> Tensor:
        """[B, 3, h, w] to [B, n, 3, H, H]; the pieces do not change the result (`Noise`).

        Raises:
            OutOfMemoryError: a single sample does not fit.
            BenchError: the method broke the contract.

        """
        rows = []
        for i in range(0, len(y), step := min(self.max_images, len(y))):
            columns = []
            for j in range(0, len(self.samples), self.max_samples):
                drawn = self._attempt(y[i : i + step], ids[i : i + step], self.samples[j : j + self.max_samples], tau)
                if drawn is None:
                    return self(y, ids, tau)
                columns.append(drawn)
            rows.append(torch.cat(columns, 1))
        return torch.cat(rows)

    def _attempt(self, y: Tensor, ids: Sequence[str], samples: list[int], tau: float | None) -> Tensor | None:
        try:
            drawn = self.method.sample(y, len(samples), tau, Noise(self.seed, ids, samples, y.device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            drawn = None  # the traceback holds the tensors: leave the block before memory is released
        if drawn is not None:
            self._check(drawn, y, len(samples))
            return drawn
        release_memory()
        if len(y) > 1:
            self.max_images = len(y) // 2
        elif len(samples) > 1:
            self.max_samples = len(samples) // 2
        else:
            raise OutOfMemoryError(
                f"{self.label} needs more memory than {y.device} has for one sample: use a device with more memory."
            )
        images = min(self.max_images, len(y))
        say(f"{self.label}: out of memory, going on with {images} images and {self.max_samples} samples at a time.")
        return None

    def _check(self, drawn: Tensor, y: Tensor, n: int) -> None:
        expected = (len(y), n, 3, self.size, self.size)
        problem = None
        low, high = drawn.aminmax()
        if tuple(drawn.shape) != expected:
            problem = f"returned the shape {list(drawn.shape)}, expected {list(expected)}"
        elif drawn.dtype != torch.float32:
            problem = f"returned {drawn.dtype}, expected torch.float32"
        elif low < -TOLERANCE or high > 1 + TOLERANCE:  # false for NaN, which is looked for image by image
            problem = f"returned values from {low:.3g} to {high:.3g}, expected 0 to 1"
        if problem:
            raise BenchError(f"{self.label} {problem}: python -m bench check method={self.label} tells more.")


def observe(dataset: Dataset, index: int, degradation: Degradation) -> tuple[Tensor, Tensor]:
    """Load one image: (HR [3, H, H], y [3, h, h]), float32 in [0, 1] on the CPU.

    The observation is computed in float64 for each image alone and rounded to 8 bits, so that it is the same on every
    machine. `degradation` is the float64 operator.
    """
    hr = torch.from_numpy(dataset.load(index)).permute(2, 0, 1).double() / 255
    return hr.float(), degradation.observe(hr).float()


def evaluate(loaded: dict[str, Metric], e: Evaluation) -> dict[str, np.ndarray]:
    """Metric name to values [B, n], [B, pairs] or [B]; half the images at a time where memory runs out."""
    # TF32, a GPU's default for convolutions, keeps 10 bits: too few for the local variances of SSIM
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    try:
        with torch.no_grad(), exact:
            return {name: metric(e).double().cpu().numpy() for name, metric in loaded.items()}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(e.hr) == 1:
            raise OutOfMemoryError("The metrics of one image do not fit into memory: use a smaller n=...") from None
    release_memory()
    half = len(e.hr) // 2
    parts = [
        evaluate(loaded, Evaluation(e.hr[s], e.y[s], e.samples[s], e.degradation, e.deterministic))
        for s in (slice(half), slice(half, None))
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in loaded}


@dataclass
class _Run:
    """What all cells of a run share."""

    config: RunConfig
    dataset: Dataset
    count: int
    directory: RunDir
    metrics: dict[str, Metric]
    timed: bool
    failures: list[dict[str, Any]]

    def fail(self, what: str, reason: str, image: str | None = None) -> None:
        """Record a failure, once per image where it is the image's own."""
        failure = {"what": what, "image": image, "reason": reason}
        if failure not in self.failures:
            self.failures.append(failure)
            self.directory.set_failures(self.failures)
            say(f"{what}: {image + ': ' if image else ''}{reason}")


def run(config: RunConfig, only: Collection[CellKey] | None = None) -> tuple[RunDir, bool]:
    """Measure everything that `config` asks for and is not in its run directory yet.

    Args:
        config: the run.
        only: the cells to measure now; None for all.

    Returns:
        the run directory, and whether everything succeeded. Images and methods that failed are in ``failures.jsonl``;
        the others are measured nevertheless.

    Raises:
        BenchError: nothing can be done with this configuration or directory.

    """
    keys = cell_keys(config) if only is None else only
    for m in (m for m in config.methods if m.label in {k.label for k in keys}):
        make_method(m)  # a wrong parameter is an error before anything is computed
    dataset = make_dataset(config.dataset)
    for scale in config.scales:
        Degradation(scale, dataset.size)
    names, notice = resolve_metrics(config.metrics, config.perceptual)
    if notice:
        say(notice)
    limit = config.limit or dataset.facts.default_limit
    directory = RunDir(config.out, config.shard)
    with directory.lock():
        directory.open(config.record() | {"metrics": names}, FROZEN)
        directory.add_environment(environment(config.device))
        directory.set_failures([])
        keep_freed_memory()
        torch.backends.cudnn.benchmark = False  # its choice of algorithm may differ from start to start
        torch.backends.cudnn.deterministic = True
        state = _Run(
            config=config,
            dataset=dataset,
            count=min(limit or len(dataset), len(dataset)),
            directory=directory,
            metrics=load_metrics(names, config.device),
            timed=any(metric_facts(n).domain == "timing" for n in names),
            failures=[],
        )
        for scale in config.scales:
            for m in config.methods:
                if of_method := [k for k in keys if k.label == m.label and k.scale == scale]:
                    _run_method(state, m, scale, of_method)
    return directory, not state.failures


def _run_method(state: _Run, config: MethodConfig, scale: int, keys: list[CellKey]) -> None:
    cells = [state.directory.cell(k) for k in keys]
    for cell in cells:
        cell.claim("cell.json", _identity(state.config, config, cell.key))
    open_cells = [c for c in cells if _missing(state, c.done()) or _untimed(state, c)]
    if not open_cells:
        return
    device = torch.device(state.config.device)
    method = make_method(config)
    try:
        degradation = Degradation(scale, state.dataset.size, device)
        method.prepare(degradation, device)
        weights = file_hashes(method.weights())
        sampler = Sampler(method, config.label, degradation, state.config.seed, state.config.n)
        for cell in open_cells:
            cell.claim("weights.json", weights)
            facts = asdict(method.facts) | {"method": config.name, "evaluations": method.evaluations}
            write_json(cell.folder / "facts.json", facts)
            _run_cell(state, cell, sampler, degradation)
    except BenchError as error:
        state.fail(f"{config.label} x{scale}", str(error))
    except (KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:  # noqa: BLE001 -- a method's bug must not take the other methods down
        report = state.directory.path / "errors" / f"{config.label}_x{scale}.txt"
        write_atomic(report, traceback.format_exc())
        state.fail(f"{config.label} x{scale}", f"{type(error).__name__}: {error} (traceback in {report})")
    finally:
        del method
        release_memory()


def _identity(run_config: RunConfig, config: MethodConfig, key: CellKey) -> dict[str, Any]:
    """All that a cell's rows depend on."""
    record = run_config.record()
    return {"method": config.name, "parameters": dict(config.parameters), "scale": key.scale, "tau": key.tau} | {
        k: record[k] for k in ("dataset", "n", "seed", "quantise")
    }


def _missing(state: _Run, done: set[int]) -> list[list[int]]:
    """Batches of this process's images that have no rows yet."""
    size, shard = state.config.batch, state.config.shard
    mine = range(0, state.count, size)
    if shard is not None:
        mine = mine[shard.index :: shard.count]
    batches = [[i for i in range(first, min(first + size, state.count)) if i not in done] for first in mine]
    return [batch for batch in batches if batch]


def _untimed(state: _Run, cell: Cell) -> bool:
    """Whether the time is still to be measured; processes that share a machine would disturb each other."""
    return state.timed and state.config.shard is None and cell.timing is None


def _run_cell(state: _Run, cell: Cell, sampler: Sampler, degradation: Degradation) -> None:
    exact = Degradation(degradation.scale, degradation.size, dtype=torch.float64)
    batches = _missing(state, cell.done())
    total = sum(map(len, _missing(state, set())))
    interval = 0.2 if sys.stderr.isatty() else 30.0
    with tqdm(
        total=total, initial=total - sum(map(len, batches)), desc=cell.key.folder, unit="image",
        mininterval=interval, maxinterval=interval,
    ) as bar:  # fmt: skip
        for batch in batches:
            _run_batch(state, cell, sampler, degradation, exact, batch)
            bar.update(len(batch))
    if state.config.shard is None:
        cell.compact()
    if _untimed(state, cell):
        y = next(_observations(state, exact), None)
        if y is not None:
            y = y[None].to(degradation.device)
            measured = timing.measure(sampler.method, y, cell.key.tau, state.config.seed, state.config.timing)
            cell.set_timing(measured.record())


def _observations(state: _Run, exact: Degradation) -> Iterator[Tensor]:
    for index in range(state.count):
        try:
            yield observe(state.dataset, index, exact)[1]
        except ImageError:
            continue


def _run_batch(
    state: _Run, cell: Cell, sampler: Sampler, degradation: Degradation, exact: Degradation, batch: list[int]
) -> None:
    loaded = []
    for index in batch:
        try:
            loaded.append((index, *observe(state.dataset, index, exact)))
        except ImageError as error:
            state.fail(str(state.config.dataset["name"]), str(error), state.dataset.ids[index])
    if not loaded:
        return
    indices = [index for index, _, _ in loaded]
    hr = torch.stack([x for _, x, _ in loaded]).to(degradation.device)
    y = torch.stack([x for _, _, x in loaded]).to(degradation.device)
    with torch.no_grad():
        samples = sampler(y, [state.dataset.ids[i] for i in indices], cell.key.tau)
    finite = samples.isfinite().flatten(1).all(1).cpu().numpy()
    for index in np.asarray(indices)[~finite]:
        state.fail(cell.key.folder, "the method returned NaN or infinite values", state.dataset.ids[index])
    if not finite.any():
        return
    keep = torch.from_numpy(finite).to(samples.device)
    indices = [i for i, good in zip(indices, finite, strict=True) if good]
    hr, y, samples = hr[keep], y[keep], samples[keep].clamp(0, 1)
    if state.config.quantise:
        samples = quantise(samples)
    e = Evaluation(hr, y, samples, degradation, sampler.method.facts.deterministic)
    values = evaluate(state.metrics, e)
    for row, index in enumerate(indices):
        if index < state.config.save_images:
            save_images(state.directory, cell.key, index, hr[row], y[row], samples[row])
    ids = [state.dataset.ids[i] for i in indices]
    cell.add(indices[0], *_rows(cell.key, indices, ids, samples.shape[1], values))


def _rows(
    key: CellKey, indices: list[int], ids: list[str], n: int, values: dict[str, np.ndarray]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows per sample and rows per image; pairs are averaged within their image."""
    tau = np.nan if key.tau is None else key.tau
    samples = pd.DataFrame(
        {"index": np.repeat(indices, n), "image": np.repeat(ids, n), "sample": list(range(n)) * len(ids)}
    )
    images = pd.DataFrame({"index": indices, "image": ids})
    for frame in (samples, images):
        frame.insert(0, "method", key.label)
        frame.insert(1, "scale", key.scale)
        frame.insert(2, "tau", tau)
    for name, value in values.items():
        domain = metric_facts(name).domain
        if domain == "sample":
            samples[name] = value.reshape(-1)
        else:
            images[name] = value.mean(1) if domain == "pair" else value
    return samples, images


def save_images(directory: RunDir, key: CellKey, index: int, hr: Tensor, y: Tensor, samples: Tensor) -> None:
    """Keep one image's HR [3, H, H], LR [3, h, h] and samples [n, 3, H, H] as PNG files."""
    folder = directory.image_folder(key.scale, index)
    named = {"hr": hr, "lr": y} | {f"{key.label}{key.tau_suffix}_{j}": x for j, x in enumerate(samples)}
    for name, x in named.items():
        path = folder / f"{name}.png"
        if not path.exists() or name not in ("hr", "lr"):
            write_png(path, to_uint8(x).permute(1, 2, 0).cpu().numpy())
