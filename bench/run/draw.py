"""Observe, sample, round: the only place where a method meets images."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bench.contract import Method, Noise, UnusableSamples
from bench.errors import OutOfMemoryError
from bench.machine import is_out_of_memory, release_memory
from bench.operators import Operator

if TYPE_CHECKING:
    from bench.data import Dataset


def say(text: str) -> None:
    """Print a line of progress on stderr, above a progress bar if there is one."""
    tqdm.write(text, file=sys.stderr)


@contextmanager
def failures_recorded() -> Iterator[None]:
    """Within a run nothing is said of samples that are NaN: the store records them, image by image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusableSamples)
        yield


def to_image(pixels: np.ndarray) -> Tensor:
    """A dataset's image [H, W, 3], uint8 or floating point, as float64 [3, H, W]; 8 bits become [0, 1]."""
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).double()
    return x / 255 if pixels.dtype == np.uint8 else x


def observe_pixels(pixels: np.ndarray, name: str, operator: Operator, seed: int) -> tuple[Tensor, Tensor]:
    """Observe one image [H, W, 3] called `name`: (HR [3, H, W], y [3, h, w]), float32 on the CPU.

    The observation is computed in float64 for each image alone, so that it is the same on every machine. `operator` is
    the float64 operator on the CPU.
    """
    x = to_image(pixels)
    noise = Noise.of_observation(seed, [name]) if operator.sigma else None
    return x.float(), operator.observe(x[None], noise)[0].float()


def observe(dataset: Dataset, index: int, operator: Operator, seed: int) -> tuple[Tensor, Tensor]:
    """Load and observe an image of a dataset; see `observe_pixels`. ImageError where it cannot be used."""
    return observe_pixels(dataset.load(index), dataset.ids[index], operator, seed)


class Sampler:
    """Draw samples of a prepared method, in smaller pieces once memory has run out.

    Args:
        method: prepared.
        label: its name in messages.
        seed: of its noise.
        n: samples per image; a deterministic method gives one.
        round: whether samples are rounded to 8 bits, as saved images are.

    """

    def __init__(self, method: Method, label: str, seed: int, n: int, round: bool = True) -> None:
        self.method = method
        self.label = label
        self.seed = seed
        self.round = round
        self.samples = list(range(1 if method.facts.deterministic else n))
        self.max_images = sys.maxsize
        self.max_samples = len(self.samples)

    def __call__(self, y: Tensor, ids: Sequence[str], tau: float | None) -> Tensor:
        """[B, 3, h, w] to [B, n, 3, H, W], clipped and rounded; the pieces do not change the result (`Noise`).

        Images with a NaN or an infinite value are left as they are.

        Raises:
            OutOfMemoryError: a single sample does not fit.
            BenchError: the method broke the contract.

        """
        return self.finished(self.raw(y, ids, tau))

    def raw(self, y: Tensor, ids: Sequence[str], tau: float | None) -> Tensor:
        """The samples as the method returns them: neither clipped nor rounded here; errors as when called."""
        return self._drawn(y, ids, tau)

    def finished(self, x: Tensor) -> Tensor:
        """Clip and round samples that `raw` has drawn."""
        operator = self.method.operator
        rounded = operator.round(x) if self.round else operator.clip(x)
        return torch.where(x.isfinite(), rounded, x)

    def _drawn(self, y: Tensor, ids: Sequence[str], tau: float | None) -> Tensor:
        rows = []
        for i in range(0, len(y), step := min(self.max_images, len(y))):
            columns = []
            for j in range(0, len(self.samples), self.max_samples):
                drawn = self._attempt(y[i : i + step], ids[i : i + step], self.samples[j : j + self.max_samples], tau)
                if drawn is None:
                    return self._drawn(y, ids, tau)
                columns.append(drawn)
            rows.append(torch.cat(columns, 1))
        return torch.cat(rows)

    def _attempt(self, y: Tensor, ids: Sequence[str], samples: list[int], tau: float | None) -> Tensor | None:
        try:
            with failures_recorded():
                return self.method.sample(y, len(samples), tau, Noise(self.seed, ids, samples, y.device))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # the traceback held the tensors: memory is released after the block
        release_memory()
        if len(y) > 1:
            self.max_images = len(y) // 2
        elif len(samples) > 1:
            self.max_samples = len(samples) // 2
        else:
            raise OutOfMemoryError(
                f"{self.label} needs more memory than {y.device} has for one sample: use a device with more memory."
            )
        images = min(self.max_images, len(y))
        say(f"{self.label}: out of memory, going on with {images} images and {self.max_samples} samples at a time.")
        return None


def finite_images(x: Tensor) -> np.ndarray:
    """Bool [B]: images [B, ...] without a NaN or an infinite value."""
    finite: np.ndarray = x.isfinite().flatten(1).all(1).cpu().numpy()
    return finite
