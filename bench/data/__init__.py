"""Datasets of high-resolution images, and their registry.

Add one in a file of this package (or through the entry point group ``bench.datasets``) with a yaml file
``configs/dataset/NAME.yaml`` whose keys, ``name`` apart, are the constructor's arguments::

    @register_dataset("mine")
    class Mine(Dataset):
        facts = DataFacts(title="Mine", licence="CC0", how_to_get="built in", default_limit=100)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bench.errors import BenchError
from bench.registry import Registry
from bench.settings import build

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataFacts:
    """What a dataset declares; `default_limit` is the number of images when ``limit`` is null, None for all."""

    title: str
    licence: str
    how_to_get: str
    default_limit: int | None = None


class Dataset(ABC):
    """A fixed sequence of square RGB images.

    Attributes:
        size: side of every image in pixels.
        ids: a name for each image, unique and the same on every machine: randomness is keyed by it.

    """

    facts: ClassVar[DataFacts]
    size: int
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def load(self, index: int) -> np.ndarray:
        """Return image `index` as uint8 [size, size, 3]; ImageError if it cannot be used."""

    def load_many(self, indices: Sequence[int]) -> np.ndarray:
        """Return several images as uint8 [N, size, size, 3]; faster than one by one where a dataset is computed."""
        return np.stack([self.load(i) for i in indices])

    def attributes(self, index: int) -> dict[str, object]:
        """Return what is known about an image (nothing by default)."""
        return {}


datasets: Registry[Dataset] = Registry("dataset", package="bench.data", group="bench.datasets", facts=DataFacts)
register_dataset = datasets.register


def make_dataset(config: Mapping[str, Any]) -> Dataset:
    """Build a dataset from its configuration: ``name`` and the constructor's arguments.

    Raises:
        BenchError: unknown name, an unknown or wrong setting, or data that is not there.

    """
    arguments = dict(config)
    name = str(arguments.pop("name"))
    return build(datasets.get(name), arguments, "dataset", name)


def check_split(name: str, split: str, splits: Sequence[str] = SPLITS) -> None:
    """Raise BenchError unless `split` is one of `splits`."""
    if split not in splits:
        raise BenchError(f"dataset.split={split} is no split of {name}: use {', '.join(splits)}.")
