"""What a reproduction needs, what of it is here, and how long it will take on this device."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import Tensor

from bench import weights
from bench.config import MethodConfig, RunConfig
from bench.contract import Noise, methods
from bench.data import Dataset
from bench.errors import BenchError, ImageError
from bench.load import make_method
from bench.machine import is_out_of_memory, keep_freed_memory, release_memory
from bench.metrics import Evaluation, load_metrics
from bench.operators import Operator, operator_kind
from bench.paper.tables import Entry
from bench.run.cell import CellKey
from bench.run.draw import observe
from bench.run.evaluate import evaluate, not_applicable
from bench.run.samples import PNG_BYTES
from bench.run.selection import dataset_operator, prepared_method, selected_images, short_form
from bench.run.store import RunDir
from bench.run.timing import MOST_REPEATS, time_once

BYTES_PER_ROW = 400


@dataclass(frozen=True)
class Probe:
    """A short measurement of one method at one scale.

    Attributes:
        config: the method.
        scale: scale factor.
        seconds: for one sample of one image at batch 1, NaN where it cannot run.
        reason: why it cannot run, or None.

    """

    config: MethodConfig
    scale: int
    seconds: float
    reason: str | None = None


def needed_checkpoints(*configurations: Mapping[str, Any]) -> list[weights.Checkpoint]:
    """Known checkpoints whose files a configuration names."""
    found = [weights.by_file(text) for c in configurations for text in _strings(c)]
    return list(dict.fromkeys(c for c in found if c is not None))


def _strings(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, Sequence):
        for value in node:
            yield from _strings(value)


def probe(config: MethodConfig, scale: int, dataset: Dataset, run: RunConfig) -> Probe:
    """Prepare a method and time a sample; an iterative one with few steps, from which all are extrapolated."""
    facts = methods.facts(config.name)
    if reason := facts.refuses(operator_kind(run.operator, scale), scale, run.sigma):
        return Probe(config, scale, float("nan"), f"{reason}.")
    device = torch.device(run.device)
    keep_freed_memory()
    try:
        short = short_form(config)
        # both before loading, after which a pipeline may know of evaluations that its settings do not tell
        times = max(make_method(config).evaluations, 1) / max(make_method(short).evaluations, 1)
        method = prepared_method(run, short, dataset, scale)
        exact = dataset_operator(run, dataset, scale).to("cpu", torch.float64)
        if run.launch.elsewhere and run.launch.gpus and device.type == "cpu":  # the GPUs are not here
            return Probe(config, scale, float("nan"))
        y = _first(run, dataset, exact)[1].to(device)
        tau = run.taus[0] if facts.uses_tau else None
        seconds = min(time_once(method, y, tau, run.seed) for _ in range(2))
        return Probe(config, scale, seconds * times)
    except BenchError as error:
        return Probe(config, scale, float("nan"), str(error))
    except Exception as error:  # noqa: BLE001 -- a method's bug must not take the other methods down
        reason = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            reason = f"one sample does not fit into the memory of {device}."
        return Probe(config, scale, float("nan"), reason)
    finally:
        release_memory()


def _first(run: RunConfig, dataset: Dataset, exact: Operator) -> tuple[Tensor, Tensor]:
    """The first selected image [1, 3, H, W] that can be read, and its observation; ImageError where none can."""
    failed: ImageError | None = None
    for index in selected_images(run, dataset):
        try:
            hr, y = observe(dataset, index, exact, run.seed)
        except ImageError as error:
            failed = failed or error
        else:
            return hr[None], y[None]
    assert failed is not None
    raise failed


def metric_seconds(names: Sequence[str], scale: int, dataset: Dataset, run: RunConfig) -> float:
    """Seconds that the metrics of one image with all its samples take."""
    device = torch.device(run.device)
    operator = dataset_operator(run, dataset, scale, device)
    undefined = not_applicable(names, operator)
    loaded = load_metrics([n for n in names if n not in undefined], device)
    hr, y = (t.to(device) for t in _first(run, dataset, operator.to("cpu", torch.float64)))
    noise = Noise(0, ["probe"], range(run.n), device).normal(*hr.shape[1:])
    e = Evaluation(hr, y, operator.clip(hr[:, None] + 0.1 * noise), operator)
    evaluate(loaded, e)
    begun = time.perf_counter()
    evaluate(loaded, e)
    return time.perf_counter() - begun


@dataclass(frozen=True)
class Estimate:
    """What the cells of a run still take: seconds by cell, and bytes."""

    seconds: dict[CellKey, float]
    samples: dict[CellKey, int]
    size: int


def estimate(
    entries: Sequence[Entry], probes: Sequence[Probe], run: RunConfig, directory: RunDir, dataset: Dataset,
    metrics: Mapping[int, float],
) -> Estimate:  # fmt: skip
    """Extrapolate from the short measurements, without the images that are done.

    Args:
        entries: the lines of the tables; those left out take nothing.
        probes: one per method and scale.
        run: number of images and samples.
        directory: where results of a former start are.
        dataset: its size.
        metrics: seconds per image of the metrics, by scale.

    """
    selected = set(selected_images(run, dataset))
    speed = {(p.config.label, p.scale): p.seconds for p in probes}
    seconds, samples, size, kept = {}, {}, 0, 0
    for e in entries:
        if e.reason is not None:
            continue
        missing = len(selected - directory.cell(e.key).done())
        n = 1 if methods.facts(e.method).deterministic else run.n
        samples[e.key] = missing * n
        one = speed[e.key.label, e.key.scale]
        seconds[e.key] = missing * (n * one + metrics[e.key.scale] * (n / run.n))
        if directory.cell(e.key).timing is None:  # bench.run.timing: all repeats, then what the budget still allows
            calls = (run.timing.warmup + run.timing.repeats) * one
            more = (MOST_REPEATS + 4 * run.timing.max_batch) * one
            seconds[e.key] += calls + min(max(run.timing.budget - calls, 0.0), more)
        size += samples[e.key] * BYTES_PER_ROW
        kept += samples[e.key] * PNG_BYTES * dataset.size**2
    if run.save_samples == "auto":
        kept = min(kept, run.save_budget)
    return Estimate(seconds, samples, size + (0 if run.save_samples == "none" else kept))


def table(entries: Sequence[Entry], probes: Sequence[Probe], cost: Estimate) -> str:
    """Lay out the plan for reading."""
    speed = {(p.config.label, p.scale): p.seconds for p in probes}
    lines = []
    for e in entries:
        tau = "" if e.key.tau is None else f"{e.key.tau:g}"
        head = [f"x{e.key.scale}", e.title, tau]
        if e.reason is not None:
            lines.append([*head, "left out", "", "", ""])
            continue
        left = cost.samples[e.key]
        per_sample = f"{speed[e.key.label, e.key.scale]:.3g}"
        lines.append([*head, "to do" if left else "done", per_sample, str(left), duration(cost.seconds[e.key])])
    heads = ["scale", "method", "tau", "state", "s a sample", "samples left", "time"]
    return tabulate(lines, headers=heads, tablefmt="simple", disable_numparse=True)


def check_disk(folder: Path, size: int) -> str:
    """Say how much is needed and free; BenchError where it does not suffice."""
    there = next(p for p in [folder.absolute(), *folder.absolute().parents] if p.exists())
    free = shutil.disk_usage(there).free
    if free < size:
        raise BenchError(f"{folder} needs {size / 1e6:.0f} MB, {free / 1e6:.0f} MB are free: free some or use out=DIR.")
    return f"Disk: about {max(size / 1e6, 1):.0f} MB of results, {free / 1e9:.0f} GB free."


def duration(seconds: float) -> str:
    """Seconds for reading."""
    if math.isnan(seconds):
        return "an unknown time"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
