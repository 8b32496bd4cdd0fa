"""Wall time of sampling: batch 1 as in the paper, and the throughput at the best batch beside it.

Only ``Method.sample`` is timed, on inputs that are on the device already: loading, weights and metrics do not count.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from bench.config import TimingConfig
from bench.contract import Method, Noise
from bench.machine import is_out_of_memory, release_memory

GAIN = 1.05
"""A doubled batch must raise the throughput by this factor for the search to go on."""


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

    for _ in range(config.warmup):
        time_once(method, y, tau, seed)
    seconds = [time_once(method, y, tau, seed)]
    while len(seconds) < config.repeats and left() > seconds[-1]:
        seconds.append(time_once(method, y, tau, seed))

    best, best_batch, last = 1 / min(seconds), 1, min(seconds)
    batch = 2
    while batch <= config.max_batch and left() > 4 * last:  # a first call at a new batch, and the one that counts
        try:
            inputs = y.repeat(batch, 1, 1, 1)
            time_once(method, inputs, tau, seed)
            last = time_once(method, inputs, tau, seed)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        if batch / last < GAIN * best:
            break
        best, best_batch = batch / last, batch
        batch *= 2
    release_memory()
    return Timing(seconds, best, best_batch)


def time_once(method: Method, y: Tensor, tau: float | None, seed: int) -> float:
    """Seconds of one call for one sample of each row of y [B, 3, h, w]."""
    noise = Noise(seed, [f"timing-{i}" for i in range(len(y))], [0], y.device)
    _synchronise(y.device)
    begun = time.perf_counter()
    method.sample(y, 1, tau, noise)
    _synchronise(y.device)
    return time.perf_counter() - begun


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
