"""One method at one scale and temperature: its rows, its samples, and what both depend on."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pandas as pd

from bench.errors import BenchError
from bench.files import disk_errors, read_json, write_atomic, write_json
from bench.run.samples import SampleFiles

KEYS = {"images": ["index"], "samples": ["index", "sample"]}
FAILED = "!"
"""What follows a metric in the column ``metrics`` where it failed for an image."""


@dataclass(frozen=True)
class CellKey:
    """One method (by its label) at one scale and temperature (None for methods without one)."""

    label: str
    scale: int
    tau: float | None

    @property
    def folder(self) -> str:
        """Name of its folder; of the label, letters, digits and ``_.-~+=,@`` stay as they are."""
        tau = "" if self.tau is None else f"_tau{self.tau:g}"
        return f"{quote(self.label, safe='+=,@')}_x{self.scale}{tau}"

    @classmethod
    def of_folder(cls, name: str, scale: int, tau: float | None) -> CellKey:
        """The key of a folder whose scale and temperature are known."""
        return cls(unquote(name.removesuffix(cls("", scale, tau).folder)), scale, tau)


class Cell:
    """The rows and samples of one `CellKey`.

    Rows are data frames of two kinds. "samples" has a row per (image, sample) with the columns ``index``, ``image``,
    ``sample``, ``metrics`` (the names of what has been computed) and one per metric; "images" has a row per image with
    ``index``, ``image``, ``content`` (hash of the image's pixels) and the metrics of the set of its samples.
    """

    def __init__(self, folder: Path, key: CellKey) -> None:
        self.folder = folder
        self.key = key
        self.parts = folder / "parts"
        self.samples = SampleFiles(folder / "samples")

    @property
    def identity(self) -> dict[str, Any] | None:
        """What the rows depend on, None before there are any."""
        path = self.folder / "cell.json"
        return dict(read_json(path)) if path.is_file() else None

    def claim(self, identity: Mapping[str, Any], facts: Mapping[str, Any], files: Mapping[str, Any]) -> None:
        """Record what the rows that are to come depend on, what the method declares, and the files that it loaded."""
        for name, content in (("facts", facts), ("files", files), ("cell", identity)):
            if not (self.folder / f"{name}.json").is_file() or read_json(self.folder / f"{name}.json") != content:
                write_json(self.folder / f"{name}.json", content)

    @property
    def facts(self) -> dict[str, Any]:
        """What the method declared: its registered name and the fields of :class:`bench.contract.Facts`."""
        return dict(read_json(self.folder / "facts.json"))

    @property
    def files(self) -> dict[str, Any]:
        """The files that the method loaded, by role: path, size and time of change when they were hashed."""
        path = self.folder / "files.json"
        return dict(read_json(path)) if path.is_file() else {}

    @property
    def timing(self) -> dict[str, Any] | None:
        """What `set_timing` stored."""
        path = self.folder / "timing.json"
        return dict(read_json(path)) if path.is_file() else None

    def set_timing(self, timing: Mapping[str, Any]) -> None:
        """Store wall times."""
        write_json(self.folder / "timing.json", dict(timing))

    @property
    def is_empty(self) -> bool:
        """Whether there are neither rows nor samples."""
        return not self.contents() and not any(self.samples.folder.glob("*_*"))

    def done(self) -> set[int]:
        """Indices of the images that have rows."""
        return set(self.computed())

    def computed(self) -> dict[int, frozenset[str]]:
        """Images that have rows, and the names of the metrics that they have; those that failed end in `FAILED`."""
        frame = self.read("samples")
        if frame.empty:
            return {}
        if "metrics" not in frame:
            raise BenchError(f"{self.folder} was made by an earlier version of this suite: use another out=DIR.")
        first = frame.drop_duplicates("index")
        return {int(i): frozenset(m.split()) for i, m in zip(first["index"], first["metrics"], strict=True)}

    def contents(self) -> dict[int, tuple[str, str]]:
        """Name and content of the images that have rows, or samples without rows."""
        frame = self.read("images")
        drawn = self._drawn()
        if frame.empty:
            return drawn
        rows = zip(frame["index"], frame["image"], frame["content"], strict=True)
        return drawn | {int(i): (str(name), str(content)) for i, name, content in rows}

    def _drawn(self) -> dict[int, tuple[str, str]]:
        path = self.folder / "drawn.json"
        return {int(i): (n, c) for i, (n, c) in read_json(path).items()} if path.is_file() else {}

    def set_drawn(self, images: Mapping[int, tuple[str, str]]) -> None:
        """Keep name and content of images that samples, but no rows, are about to be kept of."""
        write_json(self.folder / "drawn.json", {str(i): list(v) for i, v in (self._drawn() | dict(images)).items()})

    def add(self, first: int, samples: pd.DataFrame, images: pd.DataFrame) -> None:
        """Store the rows of one batch, in place of those that its images had.

        Args:
            first: index of its first image.
            samples: rows per sample.
            images: rows per image.

        """
        number = max((n for n, f, _ in self._part_files() if f == first), default=-1) + 1
        self._write(self.parts, f"{first:06d}." + (f"{number}." if number else ""), samples, images)

    def compact(self) -> None:
        """Merge the parts into one file per kind."""
        if not self.parts.is_dir():
            return
        # a kill before the parts are gone leaves rows twice, which `read` drops
        self._write(self.folder, "", self.read("samples"), self.read("images"))
        for path in sorted(self.parts.iterdir()):
            path.unlink()
        self.parts.rmdir()

    @staticmethod
    def _write(folder: Path, prefix: str, samples: pd.DataFrame, images: pd.DataFrame) -> None:
        for kind, frame in (("images", images), ("samples", samples)):  # samples last: they mark the batch as done
            buffer = io.BytesIO()
            frame.to_parquet(buffer, index=False)
            write_atomic(folder / f"{prefix}{kind}.parquet", buffer.getvalue())

    def _part_files(self) -> list[tuple[int, int, Path]]:
        """Files of the parts with their number and the index of their first image, in the order of writing."""
        found = []
        for path in self.parts.glob("*.parquet"):
            first, *number = path.name.split(".")[:-2]
            if first.isdecimal():  # no temporary file
                found.append((int(number[0]) if number else 0, int(first), path))
        return sorted(found)

    def read(self, kind: str) -> pd.DataFrame:
        """All rows of a kind ("samples" or "images"), sorted; empty before the first batch.

        Raises:
            BenchError: a file is damaged.

        """
        whole = self.folder / f"{kind}.parquet"
        files = [whole] if whole.exists() else []
        files += [path for _, _, path in self._part_files() if path.name.endswith(f".{kind}.parquet")]
        frames = [_read_parquet(path) for path in files]
        if not frames:
            return pd.DataFrame()
        rows = pd.concat(frames, ignore_index=True).drop_duplicates(KEYS[kind], keep="last")
        return rows.sort_values(KEYS[kind], ignore_index=True)

    def supersede(self, indices: Collection[int] | None = None) -> Path:
        """Set rows and samples aside, all of them or those of some images; nothing is deleted.

        Returns:
            the folder ``superseded-N`` that has them now.

        """
        self.compact()
        numbers = [int(p.name.rpartition("-")[2]) for p in self.folder.glob("superseded-*")]
        aside = self.folder / f"superseded-{max(numbers, default=0) + 1}"
        with disk_errors(aside):
            aside.mkdir(parents=True)
        if indices is None:
            self._move(
                aside, [p for p in self.folder.iterdir() if not p.name.startswith(("superseded-", ".", "cell."))]
            )
            self._move(aside, self.folder.glob("cell.json"))  # last: rows without it would be taken for new ones
            return aside
        for name in ("cell", "facts", "files"):
            write_json(aside / f"{name}.json", read_json(self.folder / f"{name}.json"))
        self._move(aside / "samples", self.samples.of(indices))
        frames = [self.read(kind) for kind in ("samples", "images")]
        if not frames[0].empty:
            chosen = [frame["index"].isin(list(indices)) for frame in frames]
            self._write(aside, "", *(frame[c] for frame, c in zip(frames, chosen, strict=True)))
            self._write(self.folder, "", *(frame[~c] for frame, c in zip(frames, chosen, strict=True)))
        if drawn := self._drawn():
            kept = {str(i): list(v) for i, v in drawn.items() if i not in indices}
            write_json(self.folder / "drawn.json", kept)
        return aside

    @staticmethod
    def _move(target: Path, paths: Iterable[Path]) -> None:
        with disk_errors(target):
            for path in sorted(paths):
                target.mkdir(parents=True, exist_ok=True)
                path.replace(target / path.name)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BenchError(
            f"{path} is damaged ({reason}): delete it, and the same run computes its rows again."
        ) from error
