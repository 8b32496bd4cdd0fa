"""What most methods do around their networks: check options, find a scale's file, go through rows in pieces, finish."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from torch import Tensor

from bench.degradation import Degradation
from bench.errors import BenchError


def check_option(name: str, value: object, options: Collection[object]) -> None:
    """Raise BenchError for a value that is not one of the options."""
    if value not in options:
        raise BenchError(f"{name}={value} is not one of {', '.join(map(str, options))}.")


def check_range(name: str, value: int, low: int, high: int | None = None) -> None:
    """Raise BenchError for a number outside of `low` to `high` (None: no upper bound)."""
    if value < low or (high is not None and value > high):
        allowed = f"must be at least {low}" if high is None else f"is outside of {low} to {high}"
        raise BenchError(f"{name}={value} {allowed}.")


def check_size(degradation: Degradation, size: int) -> None:
    """Raise BenchError where a network makes images of another size than the dataset has."""
    if degradation.size != size:
        raise BenchError(
            f"This network makes images of {size} pixels, the dataset has {degradation.size}: "
            f"add dataset.size={size}, or use another network."
        )


def file_of_scale(files: Mapping[str, str | None], scale: int, method: str, key: str = "weights") -> str:
    """Return the file that a setting "x4", "x8" to file names for a scale; BenchError where it names none."""
    file = files.get(f"x{scale}")
    if file is None:
        raise BenchError(
            f"{method} has no weights for x{scale}: train them with python -m bench train method={method} "
            f"scale={scale} and give the file as {key}.x{scale}."
        )
    return file


def pieces(count: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows that cover `count`."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def finish(x: Tensor, y: Tensor, degradation: Degradation, project: bool) -> Tensor:
    """Samples [B, n, 3, H, H] as images in [0, 1], consistent with y [B, 3, h, h] if `project`."""
    return degradation.consistent(x, y[:, None]) if project else x.clamp(0, 1)
