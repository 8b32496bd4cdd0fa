"""One method at one scale and temperature: its rows, its samples, and what both depend on."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bench.errors import BenchError
from bench.files import disk_errors, read_json, write_atomic, write_json
from bench.run.samples import SampleFiles

KEYS = {"images": ["index"], "samples": ["index", "sample"]}
FAILED = "!"
"""What follows a metric in the column ``metrics`` where it failed for an image."""
FOLDER = re.compile(r"(?P<label>.*)_x(?P<scale>\d+)(_tau(?P<tau>[-+.\de]+))?")
"""Names of the folders of cells."""


EARLIER = "was made by an earlier version of this suite: use another out=DIR and run again."
MEND = {
    "cell": "put it back, or delete it and add stale=recompute, which computes the rows anew",
    "facts": "delete it, and the same run writes it again",
    "files": "delete it, and the same run writes it again",
    "timing": "delete it, and the same run measures again",
    "drawn": "put it back, or add stale=recompute",
}
"""What to do where a file of a cell is damaged."""


class _Shape(BaseModel):
    """What must be in a file of a cell; more may be."""

    model_config = ConfigDict(extra="allow")


class _Operator(_Shape):
    name: str
    sigma: float


class _Identity(_Shape):
    scale: int
    tau: float | None
    operator: _Operator
    weights: dict[str, str] = {}


class _Facts(_Shape):
    title: str
    method: str
    evaluations: int


class _Timing(_Shape):
    seconds: float | list[float] | None = None
    noise_seconds: float | list[float] | None = None
    together: list[str] = []
    throughput: float | list[float] | None = None
    compute: dict[str, Any] = {}


def _begins_with_path(state: list[Any]) -> list[Any]:
    if not isinstance(state[0], str):
        raise ValueError("it does not begin with a path")
    return state


State = Annotated[list[Any], Field(min_length=1), AfterValidator(_begins_with_path)]
SHAPES = {
    "facts": _Facts,
    "files": dict[str, State],
    "timing": _Timing,
    "drawn": dict[int, tuple[str, str]],
}


def tau_text(tau: float) -> str:
    """A temperature as short as it can be told from all others: 0.8, 1, 0.12345671."""
    short = f"{tau:g}"
    return short if float(short) == tau else repr(tau)


@dataclass(frozen=True)
class CellKey:
    """One method (by its label) at one scale and temperature (None for methods without one)."""

    label: str
    scale: int
    tau: float | None

    @property
    def folder(self) -> str:
        """Name of its folder; of the label, letters, digits and ``_.-~+=,@`` stay as they are."""
        tau = "" if self.tau is None else f"_tau{tau_text(self.tau)}"
        return f"{quote(self.label, safe='+=,@')}_x{self.scale}{tau}"

    @classmethod
    def of_folder(cls, name: str) -> CellKey | None:
        """The key of a folder; None for a folder of something else."""
        found = FOLDER.fullmatch(name)
        if found is None:
            return None
        return cls(unquote(found["label"]), int(found["scale"]), float(found["tau"]) if found["tau"] else None)


class Cell:
    """The rows and samples of one `CellKey`.

    Rows are data frames of two kinds. "samples" has a row per (image, sample) with the columns ``index``, ``image``,
    ``sample``, ``metrics`` (the names of what has been computed) and one per metric; "images" has a row per image with
    ``index``, ``image``, ``content`` (hash of the image's pixels) and the metrics of the set of its samples. An image
    is done when it has both: rows of one kind alone, which a kill or a deleted file leaves, are computed again.
    """

    def __init__(self, folder: Path, key: CellKey) -> None:
        self.folder = folder
        self.key = key
        self.parts = folder / "parts"
        self.samples = SampleFiles(folder / "samples")

    @property
    def identity(self) -> dict[str, Any] | None:
        """What the rows depend on, None before there are any.

        Raises:
            BenchError: it is damaged, or of an earlier version.

        """
        path = self.folder / "cell.json"
        if not path.is_file():
            return None
        found = read_json(path, dict[str, Any], MEND["cell"])
        if "version" not in found:
            raise BenchError(f"{self.folder} {EARLIER}")
        return dict(read_json(path, _Identity, MEND["cell"]))

    def _record(self, name: str) -> dict[str, Any] | None:
        """A file of this cell, None where it is not there."""
        path = self.folder / f"{name}.json"
        return dict(read_json(path, SHAPES[name], MEND[name])) if path.is_file() else None

    @property
    def is_described(self) -> bool:
        """Whether what the method declared, and the files of all weights that the rows depend on, are on record."""
        weights = (self.identity or {}).get("weights", {})
        return self._record("facts") is not None and weights.keys() <= self.files.keys()

    def claim(self, identity: Mapping[str, Any], facts: Mapping[str, Any], files: Mapping[str, Any]) -> None:
        """Record what the rows that are to come depend on, what the method declares, and the files that it loaded."""
        for name, content in (("facts", facts), ("files", files), ("cell", identity)):
            if not (self.folder / f"{name}.json").is_file() or read_json(self.folder / f"{name}.json") != content:
                write_json(self.folder / f"{name}.json", content)

    @property
    def facts(self) -> dict[str, Any]:
        """What the method declared: its registered name and the fields of :class:`bench.contract.Facts`."""
        facts = self._record("facts")
        if facts is None:
            raise BenchError(f"{self.folder / 'facts.json'} is gone: start the same run again, which writes it.")
        return facts

    @property
    def files(self) -> dict[str, Any]:
        """The files that the method loaded, by role: path, size and time of change when they were hashed."""
        return self._record("files") or {}

    @property
    def timing(self) -> dict[str, Any] | None:
        """What `set_timing` stored."""
        return self._record("timing")

    def set_timing(self, timing: Mapping[str, Any]) -> None:
        """Store wall times."""
        write_json(self.folder / "timing.json", dict(timing))

    @property
    def is_empty(self) -> bool:
        """Whether there are neither rows of any kind nor samples."""
        rows = any(not self._rows(kind).empty for kind in KEYS)
        return not rows and not self._drawn() and not self.samples.kept

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
        """Name and content of the images that have rows of their own, or samples without rows."""
        frame = self._rows("images")
        drawn = self._drawn()
        if frame.empty:
            return drawn
        rows = zip(frame["index"], frame["image"], frame["content"], strict=True)
        return drawn | {int(i): (str(name), str(content)) for i, name, content in rows}

    def _drawn(self) -> dict[int, tuple[str, str]]:
        return {int(i): (n, c) for i, (n, c) in (self._record("drawn") or {}).items()}

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
        # a kill before the parts are gone leaves rows twice, which `_rows` drops; rows of one kind alone stay, so that
        # the cell does not look empty and rows of other settings are refused
        nothing = pd.DataFrame()
        self._write(self.folder, "", nothing, self._rows("images"))  # one kind in memory at a time
        self._write(self.folder, "", self._rows("samples"), nothing)
        for path in sorted(self.parts.iterdir()):
            path.unlink()
        self.parts.rmdir()

    @staticmethod
    def _write(folder: Path, prefix: str, samples: pd.DataFrame, images: pd.DataFrame) -> None:
        for kind, frame in (("images", images), ("samples", samples)):  # samples last: they mark the batch as done
            if not len(frame.columns):  # no rows of this kind were ever there
                continue
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
        """Rows of a kind ("samples" or "images") of all images that are done, sorted; empty before the first batch.

        Raises:
            BenchError: a file is damaged.

        """
        (other,) = KEYS.keys() - {kind}
        indices = self._indices(other)
        rows = self._rows(kind) if indices else pd.DataFrame()
        if rows.empty:
            return rows
        done = rows["index"].isin(indices)
        return rows if done.all() else rows[done].reset_index(drop=True)

    def half_done(self) -> set[int]:
        """Indices of the images that have rows of one kind alone, which the same run computes again."""
        return self._indices("samples") ^ self._indices("images")

    def _indices(self, kind: str) -> set[int]:
        """Images that have rows of a kind."""
        rows = self._rows(kind)
        return set() if rows.empty else {int(i) for i in rows["index"].unique()}

    def _rows(self, kind: str) -> pd.DataFrame:
        """All rows of a kind, sorted. A part without rows per sample was not finished; it does not count."""
        whole = self.folder / f"{kind}.parquet"
        files = [whole] if whole.exists() else []
        parts = [path for _, _, path in self._part_files()]
        finished = {path.name.removesuffix(".samples.parquet") for path in parts}
        end = f".{kind}.parquet"
        files += [p for p in parts if p.name.endswith(end) and p.name.removesuffix(end) in finished]
        frames = [frame for path in files if not (frame := _read_parquet(path, KEYS[kind])).empty]
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
        ends = [p.name.removeprefix("superseded-") for p in self.folder.glob("superseded-*")]
        aside = self.folder / f"superseded-{max((int(e) for e in ends if e.isdecimal()), default=0) + 1}"
        with disk_errors(aside):
            aside.mkdir(parents=True)
        if indices is None:
            self._move(
                aside, [p for p in self.folder.iterdir() if not p.name.startswith(("superseded-", ".", "cell."))]
            )
            self._move(aside, self.folder.glob("cell.json"))  # last: rows without it would be taken for new ones
            return aside
        for path in (self.folder / f"{name}.json" for name in ("cell", "facts", "files")):
            if path.is_file():
                write_json(aside / path.name, read_json(path))
        self._move(aside / "samples", self.samples.of(indices))
        self._move(aside / "hashes", self.samples.hashes_of(indices))
        frames = [self._rows(kind) for kind in ("samples", "images")]
        chosen = [_of_images(frame, indices) for frame in frames]
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


def _of_images(rows: pd.DataFrame, indices: Collection[int]) -> pd.Series:
    """Which rows are of some images."""
    return rows["index"].isin(list(indices)) if len(rows) else pd.Series([], index=rows.index, dtype=bool)


def _read_parquet(path: Path, needed: Collection[str]) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
        if len(frame) and not set(needed) <= set(frame.columns):
            raise ValueError(f"without {' and '.join(needed)}")
        return frame
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BenchError(
            f"{path} is damaged ({reason}): delete it, and the same run computes its rows again."
        ) from error
