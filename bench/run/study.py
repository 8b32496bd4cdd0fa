"""Compute a study piece by piece, keep what is done, and draw it."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from pandas.errors import EmptyDataError, ParserError
from tqdm import tqdm

from bench.errors import BenchError
from bench.files import write_atomic, write_json
from bench.machine import keep_freed_memory
from bench.registry import Registry
from bench.report.figures import save
from bench.settings import build

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


studies: Registry[Study] = Registry("figure", package="methods", group="bench.methods", registrar="register_study")
register_study = studies.register


def make_study(settings: Mapping[str, Any]) -> Study:
    """Build a study from its configuration, of which "name" is the registered name."""
    arguments = dict(settings)
    name = str(arguments.pop("name"))
    return build(studies.get(name), arguments, "study", name)


def done_rows(settings: Mapping[str, Any], seed: int, out: Path) -> pd.DataFrame:
    """Rows of the pieces that are done, empty for none.

    Raises:
        BenchError: the files at `out` are of other settings, or damaged.

    """
    identity = json.loads(json.dumps({"settings": dict(settings), "seed": seed}, default=str))
    record, rows = out.with_suffix(".json"), out.with_suffix(".csv")
    if not record.is_file():
        if rows.is_file():
            raise BenchError(f"{rows} is in the way: its settings are not recorded; use another out=PATH or delete it.")
        return pd.DataFrame(columns=["item"])
    try:
        before = json.loads(record.read_text())
        frame = pd.read_csv(rows) if rows.is_file() else pd.DataFrame(columns=["item"])
    except (ValueError, OSError, EmptyDataError, ParserError) as error:
        raise BenchError(f"{out} holds a damaged file ({error}): delete {out}.* and run again.") from error
    if before != identity:
        raise BenchError(f"{rows} holds the figures of other settings ({record} tells which): use another out=PATH.")
    return frame


def write_study(settings: Mapping[str, Any], seed: int, device: torch.device, out: Path) -> pd.DataFrame:
    """Compute what is missing; write ``.csv`` after every piece, ``.json`` (settings), ``.png`` and ``.pdf``.

    Args:
        settings: the study's configuration.
        seed: of its randomness.
        device: where it computes.
        out: path without suffix.

    Returns:
        the rows, with the column "item".

    """
    frame = done_rows(settings, seed, out)
    keep_freed_memory()
    study = make_study(settings)
    write_json(out.with_suffix(".json"), {"settings": dict(settings), "seed": seed})
    done = set(frame["item"])
    for item in tqdm(range(study.items), desc=str(settings["name"])):
        if item not in done:
            rows = study.compute(item, seed, device)
            rows.insert(0, "item", item)
            frame = rows if frame.empty else pd.concat([frame, rows], ignore_index=True)
            write_atomic(out.with_suffix(".csv"), frame.to_csv(index=False))
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    study.plot(frame, figure.add_subplot())
    save(figure, out)
    return frame
