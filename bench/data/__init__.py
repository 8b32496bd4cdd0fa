"""Datasets of high-resolution images, and their registry.

Add one in a file of this package (or through the entry point group ``bench.datasets``) with a yaml file
``configs/dataset/NAME.yaml`` whose keys, ``name`` apart, are the constructor's arguments::

    @register_dataset("mine")
    class Mine(Dataset):
        facts = DataFacts(title="Mine", licence="CC0", how_to_get="built in", default_limit=100)
"""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench.errors import BenchError, ImageError
from bench.files import digest
from bench.registry import Registry
from bench.settings import build

if TYPE_CHECKING:
    from bench.posterior import GaussianMixture

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class DataFacts:
    """What a dataset declares.

    Attributes:
        default_limit: number of images where ``limit`` is null, None for all.
        default_tau: temperature where ``tau`` is null.
        posterior: whether its images have a known distribution (`Dataset.mixture`), and with it every posterior.

    """

    title: str
    licence: str
    how_to_get: str
    default_limit: int | None = None
    default_tau: float = 0.8
    posterior: bool = False


class Dataset(ABC):
    """A fixed sequence of square RGB images.

    Attributes:
        size: side of every image in pixels.
        ids: a name for each image, unique and the same on every machine: randomness is keyed by it.
        range: smallest and largest intensity; None for images that are no photographs: nothing is then clipped,
            rounded or checked, and `load` gives float32.
        mixture: the distribution of the images where it is known, and with it every posterior; else None.
        together: whether `load_many` is faster than `load` and gives the very same bits.

    """

    facts: ClassVar[DataFacts]
    range: tuple[float, float] | None = (0.0, 1.0)
    mixture: GaussianMixture | None = None
    together: ClassVar[bool] = False
    size: int
    ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def download(cls) -> Path:
        """Bring the files to where the dataset finds them, and return the path; BenchError where it cannot be done."""
        raise BenchError(f"{cls.facts.title} is not downloaded by a command: {cls.facts.how_to_get}.")

    @classmethod
    def offer(cls) -> str | None:
        """One line on how :meth:`download` gets what is missing, and its size; None where there is nothing to get."""
        return None

    @abstractmethod
    def load(self, index: int) -> np.ndarray:
        """Return image `index` [size, size, 3], uint8, or float32 without a range; ImageError if it cannot be used."""

    def load_many(self, indices: Sequence[int]) -> np.ndarray:
        """Return several images as uint8 [N, size, size, 3]; faster than one by one where a dataset is computed."""
        return np.stack([self.load(i) for i in indices])

    def attributes(self, index: int) -> dict[str, object]:
        """Return what is known about an image (nothing by default)."""
        return {}

    def content(self, index: int) -> str:
        """Return the sha256 of an image: of its pixels, shape and dtype."""
        return content_of(self.load(index))

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Return a hash that differs where one of these images differs; what is kept of them is kept under it.

        By default all of them are loaded and hashed. A dataset that can tell sooner overrides it with :meth:`identify`
        of the settings that matter and the :func:`bench.files.file_identity` of its files.
        """
        return self.identify(indices, [self._content_or_broken(i) for i in indices])

    def identify(self, indices: Sequence[int], what: Any) -> str:
        """Hash `what` (anything that is JSON) and `indices`, with the code that reads or renders the images."""
        numbers = hashlib.sha256(np.asarray(indices, np.int64).tobytes()).hexdigest()
        return digest([_code(type(self)), self.size, numbers, what])

    def _content_or_broken(self, index: int) -> str:
        try:
            return self.content(index)
        except ImageError:
            return f"broken {self.ids[index]}"


def content_of(image: np.ndarray) -> str:
    """Return the sha256 of an image: of its pixels, shape and dtype."""
    return hashlib.sha256(f"{image.shape} {image.dtype.str}".encode() + image.tobytes()).hexdigest()


class Numbered(Sequence[str]):
    """Names ``prefix-000000`` and so on of many images, made when they are asked for."""

    def __init__(self, prefix: str, length: int) -> None:
        self.prefix, self.length = prefix, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(self.length))]
        return f"{self.prefix}-{range(self.length)[i]:06d}"

    def __contains__(self, name: object) -> bool:
        number = str(name).removeprefix(f"{self.prefix}-")
        return number.isdecimal() and int(number) < self.length and self[int(number)] == name


@cache
def _code(cls: type[Dataset]) -> str:
    """Hash of the source of a dataset's class, its bases and this package: the version of every renderer and reader."""
    modules = [sys.modules[c.__module__] for c in cls.__mro__ if c.__module__ in sys.modules]
    own = [Path(file) for m in modules if (file := getattr(m, "__file__", None))]
    found = hashlib.sha256(f"{cls.__module__}.{cls.__qualname__}".encode())
    for path in _sources([*own, *Path(__file__).parent.rglob("*.py")]):
        found.update(path.read_bytes())
    return found.hexdigest()


def _sources(paths: Iterable[Path]) -> list[Path]:
    return sorted({p for p in paths if p.suffix == ".py" and p.is_file()})


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


class SplitError(BenchError):
    """A dataset does not have this split, though it has others."""


def check_split(name: str, split: str, splits: Sequence[str] = SPLITS) -> None:
    """Raise SplitError unless `split` is one of `splits`."""
    if split not in splits:
        raise SplitError(f"dataset.split={split} is no split of {name}: use {', '.join(splits)}.")
