"""The public contract of a super-resolution method: all that a plugin needs to import.

A method is one class with one decorator, and one yaml file of its parameters (``configs/methods/NAME.yaml``)::

    from bench.contract import Facts, Method, Noise, register_method

    @register_method("mine")
    class Mine(Method):
        facts = Facts(title="Mine", uses_tau=True)

        def __init__(self, sharpness: float = 1.0): ...          # the yaml file's keys
        def prepare(self, degradation, device): ...              # load weights, once
        def sample(self, y, n, tau, noise): ...                  # [B, 3, h, w] -> [B, n, 3, s*h, s*w]

``python -m bench check method=mine`` runs the contract on it.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from bench.degradation import Degradation
from bench.registry import Registry

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = [
    "Degradation",
    "Facts",
    "Method",
    "Noise",
    "Study",
    "methods",
    "register_method",
    "register_study",
    "studies",
]


@dataclass(frozen=True)
class Facts:
    """What a method declares about itself.

    Attributes:
        title: name in tables.
        scales: the scale factors it can do; None for any.
        uses_tau: whether the temperature applies; without it the method runs once, with tau None.
        deterministic: whether all samples of one image are equal by design.
        evaluations: network evaluations per sample (0 for none).
        citation: paper and code.
        weights_licence: licence of the weights it loads by default, "none" where there are none.

    """

    title: str
    scales: tuple[int, ...] | None = None
    uses_tau: bool = True
    deterministic: bool = False
    evaluations: int = 1
    citation: str = ""
    weights_licence: str = "none"


class Noise:
    """A source of randomness with one independent stream for each (image, sample).

    What a stream yields depends on the seed, the image's id, the sample's number and the calls made, and on nothing
    else: not on the batch, its order, the device or the other samples. All randomness of a method comes from here.
    Streams are drawn on the CPU so that every device sees the same numbers. (The idea of per-image generators is
    EDM2's, github:NVlabs/edm2 generate_images.py.)

    Attributes:
        streams: the generators [B * n], image by image, for libraries that take one generator per row.

    """

    def __init__(self, seed: int, ids: Sequence[str], samples: Sequence[int], device: torch.device | str = "cpu"):
        self.ids = tuple(ids)
        self.samples = tuple(samples)
        self.device = torch.device(device)
        self.streams = [torch.Generator().manual_seed(_stream_seed(seed, i, j)) for i in ids for j in samples]

    def normal(self, *shape: int, rows: slice | None = None) -> Tensor:
        """Standard normal float32 [B, n, *shape] on the device.

        With `rows` of the B * n only those streams are drawn from and the result is [rows, *shape]: for methods that do
        one part of the samples after the other.
        """
        return self._draw(shape, torch.randn, rows)

    def uniform(self, *shape: int, rows: slice | None = None) -> Tensor:
        """Uniform float32 in [0, 1), [B, n, *shape], on the device; `rows` as in `normal`."""
        return self._draw(shape, torch.rand, rows)

    def _draw(self, shape: tuple[int, ...], draw: object, rows: slice | None) -> Tensor:
        streams = self.streams if rows is None else self.streams[rows]
        drawn = torch.stack([draw(shape, generator=g) for g in streams]).to(self.device)  # type: ignore[operator]
        return drawn if rows is not None else drawn.view(len(self.ids), len(self.samples), *shape)


def _stream_seed(seed: int, image: str, sample: int) -> int:
    digest = hashlib.blake2b(f"{seed}\0{image}\0{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Method(ABC):
    """A diverse super-resolution method. Its constructor takes the keys of its yaml file."""

    facts: ClassVar[Facts]

    def prepare(self, degradation: Degradation, device: torch.device) -> None:  # noqa: B027 -- optional by design
        """Build networks and load weights for one scale and size; called once, before any `sample`.

        Raises:
            BenchError: missing, truncated or mismatching weights, in one sentence.

        """

    @abstractmethod
    def sample(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
        """Draw `n` high-resolution images for each low-resolution one.

        Args:
            y: float32 [B, 3, h, w] in [0, 1], rounded to 8 bits, on the device.
            n: samples per image.
            tau: temperature in (0, 1], None for a method that declares ``uses_tau=False``.
            noise: the only source of randomness; its draws are [B, n, ...].

        Returns:
            float32 [B, n, 3, s*h, s*w] in [0, 1] on the device.

        """

    @property
    def evaluations(self) -> int:
        """Network evaluations per sample with this configuration."""
        return self.facts.evaluations

    def weights(self) -> Sequence[Path]:
        """Files whose sha256 goes into the run's record of its environment."""
        return ()


methods: Registry[Method] = Registry("method", package="methods", group="bench.methods")
register_method = methods.register


class Study(ABC):
    """A figure that is computed from a method rather than from a run: ``python -m bench figure NAME``.

    It consists of `items` independent pieces, so that it can be resumed. Its constructor takes the keys of
    ``configs/study/NAME.yaml``. Register with :func:`register_study`.
    """

    items: int
    """Number of pieces."""

    @abstractmethod
    def compute(self, item: int, seed: int, device: torch.device) -> pd.DataFrame:
        """Return the figures of one piece, 0 to ``items - 1``, one observation per row."""

    def seconds(self, device: torch.device) -> float:
        """Foretell the time of one piece from a short measurement; NaN where there is none."""
        return math.nan

    @abstractmethod
    def plot(self, frame: pd.DataFrame, axes: Axes) -> None:
        """Draw the rows of all pieces; ``frame`` has the column ``item`` besides those of `compute`."""


studies: Registry[Study] = Registry("figure", package="methods", group="bench.methods")
register_study = studies.register
