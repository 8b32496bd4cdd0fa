"""What the trainer needs of a method: a network with a loss, and the randomness of one step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.registry import Registry


class Trainable(nn.Module, ABC):
    """A network that ``python -m bench train method=NAME`` fits.

    Its constructor takes the keys of ``method.network``, and ``scale`` if it is `scaled`.

    Register with :func:`register_trainable`. The trainer knows nothing else of a method::

        losses = trainable(x, y, noise)        # {"loss": ..., "whatever": ...}, means over the batch
    """

    scaled: ClassVar[bool] = False
    """Whether it is trained for one scale factor; without it y is None."""
    turns: tuple[str, ...] = ()
    """Losses that get a step of the optimiser each, one after the other; where there are none, "loss" gets one."""
    turn: str | None = None
    """While a step is made, the one whose turn it is: "loss" is then this one alone. Set by the trainer."""

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters to be fitted, by name; all by default. The others are frozen."""
        return dict(self.named_parameters())

    def initialise(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> None:
        """Set parameters by data, once, before the first step; every process gets the same whole batch."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> dict[str, Tensor]:
        """Compute the loss.

        Args:
            x: float32 [B, 3, H, H] in [0, 1].
            y: float32 [B, 3, h, h] in [0, 1], the 8-bit observation; None without a scale.
            noise: the only source of randomness.

        Returns:
            scalars that are means over the batch, on the device; "loss" is minimised, the others are recorded.

        """

    @abstractmethod
    def preview(self, x: Tensor, y: Tensor | None, noise: BatchNoise) -> Tensor:
        """Draw one image per image of the batch, [B, 3, H, H] in [0, 1], for the sample grids."""


class BatchNoise:
    """Randomness of one training step: drawn for the whole batch, of which this process sees its rows.

    All processes of a data-parallel run draw the same numbers, so that their number does not change the result.
    """

    def __init__(self, seed: int, batch: int, rows: slice, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._batch = batch
        self._rows = rows
        self._device = device

    def normal(self, *shape: int) -> Tensor:
        """Standard normal float32 [rows, *shape]."""
        return torch.randn(self._batch, *shape, generator=self._generator, device=self._device)[self._rows]

    def uniform(self, *shape: int) -> Tensor:
        """Uniform float32 in [0, 1), [rows, *shape]."""
        return torch.rand(self._batch, *shape, generator=self._generator, device=self._device)[self._rows]


trainables: Registry[Trainable] = Registry(
    "trainable method", package="methods", group="bench.methods", registrar="register_trainable"
)
register_trainable = trainables.register
