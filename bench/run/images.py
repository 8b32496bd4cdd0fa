"""The images of a run: loaded, observed, and known by their content."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from bench.config import RunConfig
from bench.data import Dataset, content_of
from bench.errors import ImageError
from bench.operators import Operator
from bench.run.draw import observe_pixels
from bench.run.memory import Memory
from bench.run.selection import dataset_operator, selected_images

Fail = Callable[[str, str, str], None]
"""Told what failed, why, and the name of the image."""


@dataclass(frozen=True)
class Image:
    """An image with its observation, on the device: hr float32 [3, H, W], y [3, h, w]."""

    index: int
    name: str
    content: str
    hr: Tensor
    y: Tensor


class Images:
    """A dataset as a run sees it.

    An image whose rows are there must be what it was. To read every image at every start would take minutes, so that
    it is read only where its file (`Dataset.fingerprint`) is not the one that was last seen; a dataset that cannot
    tell its files is read.

    Args:
        config: the run.
        dataset: its images.
        memory: remembers the files that were seen.
        fail: told of images that cannot be used.

    Attributes:
        selected: indices of the images that the run is about.
        operator: scale to the operator on the device.

    """

    def __init__(self, config: RunConfig, dataset: Dataset, memory: Memory, fail: Fail) -> None:
        self.dataset = dataset
        self.selected = selected_images(config, dataset)
        self.device = torch.device(config.device)
        self.operator: Callable[[int], Operator] = cache(
            lambda scale: dataset_operator(config, dataset, scale, self.device)
        )
        self._exact: Callable[[int], Operator] = cache(lambda scale: self.operator(scale).to("cpu", torch.float64))
        self._config = config
        self._memory = memory
        self._fail = fail
        self._has_files = type(dataset).fingerprint is not Dataset.fingerprint
        self._seen = memory.seen() if self._has_files else {}
        self._now: dict[int, tuple[str, str | None]] = {}
        self._expected: dict[int, tuple[str, str]] = {}

    def changed(self, contents: dict[int, tuple[str, str]]) -> list[int]:
        """Those of the images that no longer are what they were.

        Args:
            contents: index to name and content, as rows have them; those that are unchanged must remain so.

        """
        same = {index: known for index, known in contents.items() if known == self._known(index)}
        self._expected |= same
        return [index for index in contents if index not in same]

    def _known(self, index: int) -> tuple[str, str | None]:
        """Name and content of an image as this start finds it, no content where it can no longer be read."""
        if index >= len(self.dataset):
            return "", None
        if index not in self._now:
            fingerprint = self._fingerprint(index)
            seen = self._seen.get(index)
            try:
                content = self.dataset.content(index) if seen is None or seen[0] != fingerprint else seen[1]
                self._remember(index, (fingerprint, content))
                self._now[index] = self.dataset.ids[index], content
            except ImageError:
                self._now[index] = self.dataset.ids[index], None
        return self._now[index]

    def _fingerprint(self, index: int) -> str:
        return self.dataset.fingerprint([index]) if self._has_files else ""

    def _remember(self, index: int, seen: tuple[str, str]) -> None:
        if self._has_files:
            self._seen[index] = seen

    def keep_seen(self) -> None:
        """Keep for the next start what is known of the files."""
        if self._has_files and self._seen != self._memory.seen():
            self._memory.set_seen(self._seen)

    def load(self, index: int, scale: int, pixels: np.ndarray | None = None) -> Image | None:
        """Load (unless its pixels are given) and observe an image; None, and a failure, where it cannot be used."""
        name = self.dataset.ids[index]
        where = str(self._config.dataset["name"])
        try:
            fingerprint = self._fingerprint(index)
            pixels = self.dataset.load(index) if pixels is None else pixels
            content = content_of(pixels)
            if not self.agrees(index, name, content):
                return None
            self._remember(index, (fingerprint, content))
            hr, y = observe_pixels(pixels, name, self._exact(scale), self._config.seed)
        except ImageError as error:
            self._fail(where, str(error), name)
            return None
        return Image(index, name, content, hr.to(self.device), y.to(self.device))

    def agrees(self, index: int, name: str, content: str) -> bool:
        """Whether an image is what it was when it was first loaded, here or by a worker; a failure where it is not."""
        if self._expected.setdefault(index, (name, content)) == (name, content):
            return True
        where = str(self._config.dataset["name"])
        self._fail(where, "the image was replaced while the run went on; start the same command again", name)
        return False

    def load_all(self, batch: Iterable[int], scale: int) -> list[Image]:
        """Those of the images that can be used."""
        indices = list(batch)
        together = self.dataset.together and len(indices) > 1
        pixels = self.dataset.load_many(indices) if together else [None] * len(indices)
        found = (self.load(i, scale, p) for i, p in zip(indices, pixels, strict=True))
        return [image for image in found if image is not None]

    def any_observation(self, scale: int) -> Tensor | None:
        """The observation [1, 3, h, w] of the first image that can be used, None where there is none."""
        return next((image.y[None] for i in self.selected if (image := self.load(i, scale)) is not None), None)

    def batches(self, indices: Iterable[int]) -> list[list[int]]:
        """Those of the images that are among `indices`, in batches that are always cut at the same places."""
        size, stop, wanted = self._config.batch, self.selected.stop, set(indices)
        firsts = range(self.selected.start, stop, size)
        batches = [[i for i in range(first, min(first + size, stop)) if i in wanted] for first in firsts]
        return [batch for batch in batches if batch]
