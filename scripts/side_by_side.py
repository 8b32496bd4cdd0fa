"""What the scripts share that run public code beside ours."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from bench.machine import keep_freed_memory


def error(a: Tensor, b: Tensor) -> float:
    """Largest difference relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max())


def compare_speed(reference: Callable[[], Tensor], ours: Callable[[], Tensor], repeats: int, units: int = 1) -> str:
    """Time both in one process: the reference as it comes, then, with the memory that ours keeps, both in turn.

    Args:
        reference: the public code.
        ours: the same task.
        repeats: calls of each; the fewest seconds count.
        units: steps or samples in one call.

    Returns:
        lines with the error of ours and the seconds per unit: wall time, and processor time of all threads in brackets.

    """
    rows: dict[str, list[tuple[float, float]]] = {"public": [], "public, memory kept": [], "ours": []}

    def once(name: str, call: Callable[[], Tensor]) -> Tensor:
        wall, processor = time.perf_counter(), time.process_time()
        result = call()
        rows[name].append(((time.perf_counter() - wall) / units, (time.process_time() - processor) / units))
        return result

    for _ in range(repeats):
        expected = once("public", reference)
    keep_freed_memory()
    ours()  # once, so that memory has been asked for
    for _ in range(repeats):
        once("public, memory kept", reference)
        found = once("ours", ours)
    lines = [f"error {error(found, expected):.1e}; {torch.get_num_threads()} threads"]
    for name, times in rows.items():
        lines.append(f"{name}: {min(t[0] for t in times):.3f} s ({min(t[1] for t in times):.3f} s of the processor)")
    return "\n".join(lines)
