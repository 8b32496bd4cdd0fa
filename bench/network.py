"""What methods with a network share: options of computing, files of weights, pieces of the work, finishing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field

from bench.contract import Method
from bench.errors import BenchError
from bench.settings import Settings, as_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bench.contract import Noise
    from bench.operators import Operator

UNITS = (0.0, 1.0)
"""Intensities of the images that networks were trained on."""
STRAY = 1.0
"""How far from `UNITS` an observation may be where nothing bounds it, beside six standard deviations of its noise."""

__all__ = ["Compute", "NetworkMethod", "Settings", "check_scale", "pieces"]

UNTUNED = 4
"""Rows together where `rows` is "auto" and nothing has been measured."""


class Compute(Settings):
    """How a network computes; nothing of it changes results but by rounding.

    Attributes:
        rows: samples that go through the network together; "auto" takes what is fastest on this device and fits,
            measured once for a run directory.
        precision: "32", or "bf16" for the network's convolutions and products.
        channels_last: memory format of the network.
        compile: mode of torch.compile ("default"; "reduce-overhead" adds CUDA graphs), None for none.
        checkpointing: compute activations twice instead of keeping them, where a sampler needs gradients.

    """

    rows: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    precision: Annotated[Literal["32", "bf16"], BeforeValidator(as_text)] = "32"
    channels_last: bool = False
    compile: Literal["default", "reduce-overhead"] | None = None
    checkpointing: bool = False


class NetworkMethod(Method):
    """A method with networks that were trained on images in [0, 1], and whose weights are in files.

    Args:
        compute: options of computing.
        project: whether samples are made consistent with y.

    """

    loaded: Mapping[str, Path] = {}
    """Files that `load` read, by role."""

    def __init__(self, compute: Compute = Compute(), project: bool = False) -> None:  # noqa: B008 -- it is frozen
        self.compute = compute
        self.project = project
        self.rows = UNTUNED if compute.rows == "auto" else compute.rows

    def prepare(self, operator: Operator, device: torch.device | str = "cpu", posterior: Any = None) -> Self:
        """As for every method; BenchError also for an operator of another range than [0, 1] or None."""
        if operator.range not in (UNITS, None):
            low, high = operator.range
            raise BenchError(
                f"{self.facts.title} has a network for images in [0, 1], not for operator.range=[{low:g},{high:g}]: "
                "scale the images to [0, 1] and leave the range as it is."
            )
        return super().prepare(operator, device, posterior)

    def files(self) -> Mapping[str, Path]:
        """What `load` read, by role."""
        return self.loaded

    def _check_observed(self, y: Tensor) -> None:
        """Refuse also observations of another scale, which noise and images without a range would let through."""
        super()._check_observed(y)
        low, high, margin = float(y.min()), float(y.max()), STRAY + 6 * self.operator.sigma
        if low < UNITS[0] - margin or high > UNITS[1] + margin:
            raise BenchError(
                f"{self.facts.title} has a network for images in [0, 1], and y has values from {low:.3g} to "
                f"{high:.3g}: scale the images, y and sigma to [0, 1]."
            )

    def place(self, module: nn.Module, compiled: Callable[[Any, str], None] | None = None) -> Any:
        """Move a network to the device, ready for sampling, in the memory format asked for; compile it if asked.

        Args:
            module: the network.
            compiled: compiles it in a mode; None for the module as a whole.

        """
        import torch

        module.eval().requires_grad_(False).to(self.device)
        if self.compute.channels_last:
            module.to(memory_format=torch.channels_last)
        if self.compute.compile:
            if compiled is None:
                module.compile(mode=self.compute.compile)
            else:
                compiled(module, self.compute.compile)
        return module

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision asked for."""
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute.precision == "bf16")

    def pieces(self, count: int) -> Iterator[slice]:
        """Slices of `rows` rows that cover `count`."""
        return pieces(count, self.rows)

    def by_rows(self, noise: Noise, sample: Callable[[slice, Callable[[], Tensor]], Tensor]) -> Tensor:
        """Sample some rows at a time, in the precision asked for.

        Args:
            noise: of all B * n rows.
            sample: (rows, normal) -> [R, ...], of some rows; `normal()` draws standard normal [R, 3, H, W], a stream of
                its own for each row.

        Returns:
            all rows, [B * n, ...].

        """
        import torch

        with self.autocast():
            return torch.cat(
                [
                    sample(part, partial(noise.normal, 3, *self.operator.size, rows=part))
                    for part in self.pieces(len(noise.streams))
                ]
            )

    def finish(self, x: Tensor, y: Tensor) -> Tensor:
        """Samples [B * n, 3, H, W] or [B, n, 3, H, W] as float32 images in range, consistent with y if asked."""
        x = x.float()
        if x.dim() == 4:
            x = x.unflatten(0, (len(y), -1))
        return self.operator.consistent(x, y[:, None]) if self.project else self.operator.clip(x)


def pieces(count: int, size: int) -> Iterator[slice]:
    """As few slices of at most `size` rows as cover `count`, of nearly equal size."""
    number = -(-count // size)
    bounds = [round(i * count / number) for i in range(number + 1)]
    return (slice(first, last) for first, last in pairwise(bounds))


def check_scale(files: Mapping[str, Any], scale: int, method: str, key: str) -> Any:
    """Return what a setting "x4", "x8" to values has for a scale.

    Raises:
        BenchError: it has nothing.

    """
    found = files.get(f"x{scale}")
    if found is None:
        raise BenchError(
            f"{method} has no {key} for x{scale}: train it with python -m bench train method={method} scale={scale} "
            f"and give {key}.x{scale}."
        )
    return found
