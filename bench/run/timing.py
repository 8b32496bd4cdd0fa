"""Wall time of sampling: batch 1 as in the paper, and the throughput at the best batch beside it.

Only ``Method.sample`` is timed, on inputs that are on the device already: loading, weights and metrics do not count.
The same search, over samples instead of images, chooses how many rows go through a network together.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bench.config import TimingConfig
from bench.contract import Method, Noise
from bench.machine import is_out_of_memory, release_memory
from bench.network import NetworkMethod
from bench.run.draw import failures_recorded

GAIN = 1.05
"""A doubled batch must raise the throughput by this factor for the search to go on."""
MOST_ROWS = 256
"""Rows together that are tried at most."""


@dataclass(frozen=True)
class Timing:
    """Measured times.

    Attributes:
        seconds: one value per repeat, for one sample of one image.
        throughput: samples per second at the best batch found.
        throughput_batch: that batch (images, one sample each).

    """

    seconds: list[float]
    throughput: float
    throughput_batch: int

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure(method: Method, y: Tensor, tau: float | None, seed: int, config: TimingConfig) -> Timing:
    """Time a prepared method on one image.

    A network takes all rows of a call together meanwhile, whatever its ``rows`` are.

    Args:
        method: prepared for y's scale.
        y: float32 [1, 3, h, w] on the device.
        tau: temperature.
        seed: seed of the noise.
        config: repeats, warm-up calls, and the budget in seconds after which nothing further is begun.

    """
    begun = time.perf_counter()

    def left() -> float:
        return config.budget - (time.perf_counter() - begun)

    with all_rows_together(method):
        for _ in range(config.warmup):
            time_once(method, y, tau, seed)
        seconds = [time_once(method, y, tau, seed)]
        while len(seconds) < config.repeats and left() > seconds[-1]:
            seconds.append(time_once(method, y, tau, seed))

        best, best_batch, last = 1 / min(seconds), 1, min(seconds)
        batch = 2
        while batch <= config.max_batch and left() > 4 * last:  # a first call at a new batch, and the one that counts
            found = _time_twice(method, y.repeat(batch, 1, 1, 1), tau, seed)
            if found is None or batch / found < GAIN * best:
                break
            best, best_batch, last = batch / found, batch, found
            batch *= 2
    release_memory()
    return Timing(seconds, best, best_batch)


def choose_rows(method: NetworkMethod, y: Tensor, tau: float | None, seed: int, most: int = MOST_ROWS) -> int:
    """Find how many rows of one draw a network should take together: 1, 2, 4, ... while it gains and fits.

    Args:
        method: prepared for y's scale.
        y: float32 [1, 3, h, w] on the device.
        tau: temperature.
        seed: seed of the noise.
        most: rows of the largest draw that there will be.

    Returns:
        the rows with the highest throughput among those tried.

    """
    best, best_rows, rows = 0.0, 1, 1
    with all_rows_together(method):
        while found := _time_twice(method, y, tau, seed, rows):
            # the largest draw needs no gain: a piece less, and none that is smaller than the others
            if rows / found < (best if rows == most else GAIN * best):
                break
            best, best_rows = rows / found, rows
            if rows >= min(most, MOST_ROWS):
                break
            rows = min(2 * rows, most, MOST_ROWS)
    release_memory()
    return best_rows


@contextmanager
def all_rows_together(method: Method) -> Iterator[None]:
    """Let a network take all rows of a draw together for a while."""
    if not isinstance(method, NetworkMethod):
        yield
        return
    before, method.rows = method.rows, sys.maxsize
    try:
        yield
    finally:
        method.rows = before


def time_once(method: Method, y: Tensor, tau: float | None, seed: int, samples: int = 1) -> float:
    """Seconds of one call for some samples of each row of y [B, 3, h, w]."""
    noise = Noise(seed, [f"timing-{i}" for i in range(len(y))], range(samples), y.device)
    _synchronise(y.device)
    begun = time.perf_counter()
    with failures_recorded():
        method.sample(y, samples, tau, noise)
    _synchronise(y.device)
    return time.perf_counter() - begun


def _time_twice(method: Method, y: Tensor, tau: float | None, seed: int, samples: int = 1) -> float | None:
    """Seconds of a second call, the first at a new size being slower; None where memory does not suffice."""
    try:
        time_once(method, y, tau, seed, samples)
        return time_once(method, y, tau, seed, samples)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    release_memory()
    return None


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
