"""Run methods over a dataset: sample, measure, store; resume where a former start ended."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from bench.config import FROZEN, MethodConfig, RunConfig, Shard
from bench.contract import Method, methods
from bench.data import Dataset, make_dataset
from bench.errors import BenchError, ImageError, OutOfMemoryError
from bench.files import sha256, write_atomic, write_json, write_png
from bench.machine import environment, is_out_of_memory, keep_freed_memory, release_memory
from bench.metrics import Evaluation, Metric, load_metrics, metric_facts, resolve_metrics
from bench.operators import Operator, make_operator, operator_kind, to_uint8
from bench.run import timing
from bench.run.draw import Sampler, finite_images, observe, say
from bench.run.store import Cell, CellKey, RunDir
from bench.settings import build


def part_done(shard: Shard) -> str:
    """Say what is left to do when one part of the images is done."""
    return (
        f"Part {shard.index} of {shard.count} is done. After all parts, the same command without shard=... measures "
        "the times and writes the tables."
    )


def make_method(config: MethodConfig) -> Method:
    """Build a method from its settings; BenchError for unknown names or settings."""
    return build(methods.get(config.name), config.parameters, f"methods.{config.label}", config.name)


def cell_keys(config: RunConfig) -> list[CellKey]:
    """Everything a run measures, by scale, method and temperature; BenchError for a scale a method cannot do."""
    keys = []
    for scale in config.scales:
        kind = operator_kind(config.operator, scale)
        for m in config.methods:
            facts = methods.facts(m.name)
            if reason := facts.refuses(kind, scale, config.sigma):
                raise BenchError(f"{reason}. Change the setting, or leave {m.label} out of methods=[...].")
            keys += [CellKey(m.label, scale, tau) for tau in (config.taus if facts.uses_tau else (None,))]
    return keys


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
        evaluate(loaded, Evaluation(e.hr[s], e.y[s], e.samples[s], e.operator, e.deterministic))
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
        make_operator(config.operator, scale, dataset.size)
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
        operator = make_operator(state.config.operator, scale, state.dataset.size, device)
        method.prepare(operator, device)
        weights = {role: sha256(path) for role, path in method.files().items()}
        sampler = Sampler(method, config.label, state.config.seed, state.config.n, state.config.quantise)
        for cell in open_cells:
            cell.claim("weights.json", weights)
            facts = asdict(method.facts) | {"method": config.name, "evaluations": method.evaluations}
            write_json(cell.folder / "facts.json", facts)
            _run_cell(state, cell, sampler)
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


def _run_cell(state: _Run, cell: Cell, sampler: Sampler) -> None:
    exact = sampler.method.operator.to("cpu", torch.float64)
    batches = _missing(state, cell.done())
    total = sum(map(len, _missing(state, set())))
    interval = 0.2 if sys.stderr.isatty() else 30.0
    with tqdm(
        total=total, initial=total - sum(map(len, batches)), desc=cell.key.folder, unit="image",
        mininterval=interval, maxinterval=interval,
    ) as bar:  # fmt: skip
        for batch in batches:
            _run_batch(state, cell, sampler, exact, batch)
            bar.update(len(batch))
    if state.config.shard is None:
        cell.compact()
    if _untimed(state, cell):
        y = next(_observations(state, exact), None)
        if y is not None:
            y = y[None].to(sampler.method.device)
            measured = timing.measure(sampler.method, y, cell.key.tau, state.config.seed, state.config.timing)
            cell.set_timing(measured.record())


def _observations(state: _Run, exact: Operator) -> Iterator[Tensor]:
    for index in range(state.count):
        try:
            yield observe(state.dataset, index, exact, state.config.seed)[1]
        except ImageError:
            continue


def _run_batch(state: _Run, cell: Cell, sampler: Sampler, exact: Operator, batch: list[int]) -> None:
    loaded = []
    for index in batch:
        try:
            loaded.append((index, *observe(state.dataset, index, exact, state.config.seed)))
        except ImageError as error:
            state.fail(str(state.config.dataset["name"]), str(error), state.dataset.ids[index])
    if not loaded:
        return
    indices = [index for index, _, _ in loaded]
    device = sampler.method.device
    hr = torch.stack([x for _, x, _ in loaded]).to(device)
    y = torch.stack([x for _, _, x in loaded]).to(device)
    samples = sampler(y, [state.dataset.ids[i] for i in indices], cell.key.tau)
    finite = finite_images(samples)
    for index in np.asarray(indices)[~finite]:
        state.fail(cell.key.folder, "the method returned NaN or infinite values", state.dataset.ids[index])
    if not finite.any():
        return
    keep = torch.from_numpy(finite).to(device)
    indices = [i for i, good in zip(indices, finite, strict=True) if good]
    hr, y, samples = hr[keep], y[keep], samples[keep]
    e = Evaluation(hr, y, samples, sampler.method.operator, sampler.method.facts.deterministic)
    values = evaluate(state.metrics, e)
    for row, index in enumerate(indices):
        if index < state.config.figure_images:
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
