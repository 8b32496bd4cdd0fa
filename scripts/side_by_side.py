"""What the scripts share that run public code beside ours."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Callable

import torch
from torch import Tensor

from bench.machine import keep_freed_memory


def add_device(parser: ArgumentParser) -> None:
    """Add the option that says where both compute."""
    parser.add_argument("--device", default="cpu", help="where both compute: cpu or cuda")


def use_device(device: str) -> None:
    """Make all new tensors on a device, in float32 without TF32, so that errors are of the code."""
    torch.set_default_device(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


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
        _wait()
        wall, processor = time.perf_counter(), time.process_time()
        result = call()
        _wait()
        rows[name].append(((time.perf_counter() - wall) / units, (time.process_time() - processor) / units))
        return result

    for _ in range(repeats):
        expected = once("public", reference)
    keep_freed_memory()
    ours()  # once, so that memory has been asked for
    for _ in range(repeats):
        once("public, memory kept", reference)
        found = once("ours", ours)
    where = torch.cuda.get_device_name() if found.is_cuda else f"{torch.get_num_threads()} threads"
    lines = [f"error {error(found, expected):.1e}; {where}"]
    for name, times in rows.items():
        lines.append(f"{name}: {min(t[0] for t in times):.3f} s ({min(t[1] for t in times):.3f} s of the processor)")
    return "\n".join(lines)


def _wait() -> None:
    """Let a GPU finish what it was asked for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
