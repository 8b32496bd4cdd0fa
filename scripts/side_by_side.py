"""What the scripts share that run public code beside ours."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch import Tensor


def error(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def alternate(reference: Callable[[], Tensor], ours: Callable[[], Tensor], repeats: int) -> tuple[float, float, float]:
    """Run both in turn; return the error of ours, and the fewest seconds of the reference and of ours."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        results = []
        for call, times in zip((reference, ours), seconds, strict=True):
            begun = time.perf_counter()
            results.append(call())
            times.append(time.perf_counter() - begun)
    return error(results[1], results[0]), min(seconds[0]), min(seconds[1])
