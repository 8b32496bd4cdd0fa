"""Images for training and images for validation, never the same, whatever splits a dataset has."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.data import Dataset, Numbered, SplitError, datasets, make_dataset
from bench.errors import BenchError

HELD_OUT = 20
"""Without a val split, one image of this many is held out."""


class Subset(Dataset):
    """Some images of a dataset."""

    def __init__(self, whole: Dataset, numbers: np.ndarray) -> None:
        self.whole, self.numbers, self.size = whole, numbers, whole.size
        self.range, self.mixture = whole.range, whole.mixture
        self.ids = [whole.ids[i] for i in numbers]

    def load(self, index: int) -> np.ndarray:
        """Load an image of the whole."""
        return self.whole.load(int(self.numbers[index]))

    def load_many(self, indices: Sequence[int]) -> np.ndarray:
        """Load several images of the whole."""
        return self.whole.load_many([int(self.numbers[i]) for i in indices])

    def attributes(self, index: int) -> dict[str, object]:
        """Return what the whole knows."""
        return self.whole.attributes(int(self.numbers[index]))

    def fingerprint(self, indices: Sequence[int]) -> str:
        """Return that of the whole."""
        return self.whole.fingerprint([int(self.numbers[i]) for i in indices])


def train_and_val(config: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> tuple[Dataset, Dataset]:
    """Make a dataset's train and val split.

    A val split counts only where it shares no image, by id, with the train split. Else, and where there is none, every
    20th image of the train split is held out.

    Args:
        config: the dataset's configuration; its split is replaced.
        changes: other settings, as far as the dataset knows them.

    Raises:
        BenchError: the dataset cannot be made, or has too few images to hold one out.

    """
    train = make_dataset(with_split(config, "train", changes))
    try:
        val = make_dataset(with_split(config, "val", changes))
    except SplitError:  # a dataset with splits, but none for validation
        val = train
    if val is not train and _disjoint(train.ids, val.ids):
        return train, val
    numbers = np.arange(len(train))
    if len(numbers) < 2:
        raise BenchError(
            f"{config['name']} has {len(numbers)} images, too few to train on some and validate on others: "
            "use a larger dataset."
        )
    held_out = numbers % HELD_OUT == 0
    return Subset(train, numbers[~held_out]), Subset(train, numbers[held_out])


def with_split(config: Mapping[str, Any], split: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Ask a dataset's configuration for a split and other settings, as far as the dataset knows them."""
    known = inspect.signature(datasets.get(str(config["name"]))).parameters
    wanted = {"split": split, **(changes or {})}
    return dict(config) | {key: value for key, value in wanted.items() if key in known}


def _disjoint(train: Sequence[str], val: Sequence[str]) -> bool:
    known = train if isinstance(train, Numbered) else set(train)  # the names of a million rendered images are not made
    return not any(name in known for name in val)
