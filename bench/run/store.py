"""The run directory: what is in it, and how it survives a kill at any point.

::

    config.yaml            the resolved configuration
    environment.json       one entry per start: versions, device, git state
    failures.jsonl         images that could not be used, and why
    *.I-of-N.*             the last two of a process that measures a part of the images
    cells/LABEL_x8_tau0.8/ one method at one scale and temperature
        cell.json          what its rows depend on; rows of another configuration are never mixed in
        facts.json         what the method declares about itself
        weights.json       sha256 of the files that the method loaded, likewise
        timing.json        wall times
        samples.parquet    a row per (image, sample)
        images.parquet     a row per image: metrics of the set of its samples
        parts/             the same, one pair of files per batch, while the run goes on
    images/x8/000000/      selected images: hr.png, lr.png, LABEL_tau0.8_0.png, ...
    table.csv .md .tex     and the other tables and figures, made again from the rows at any time

Every file is written under a temporary name, flushed to disk and renamed, so that it is either there in full or not
at all. A batch counts as done when its ``.samples.parquet`` is there, which is written last.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import BaseFileLock, FileLock, Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bench.config import Shard
from bench.errors import BenchError, near_matches
from bench.files import disk_errors, read_json, write_atomic, write_json

PATIENCE = 2.0
"""Seconds to wait for a lock: a part holds that of the whole while it begins."""
KEYS = {"images": ["index"], "samples": ["index", "sample"]}


@dataclass(frozen=True)
class CellKey:
    """One method (by its label) at one scale and temperature (None for methods without one)."""

    label: str
    scale: int
    tau: float | None

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"{self.label}_x{self.scale}" + self.tau_suffix

    @property
    def tau_suffix(self) -> str:
        """``_tau0.8``, or nothing."""
        return "" if self.tau is None else f"_tau{self.tau:g}"


class Cell:
    """The rows of one `CellKey`."""

    def __init__(self, folder: Path, key: CellKey) -> None:
        self.folder = folder
        self.key = key
        self.parts = folder / "parts"

    def claim(self, name: str, identity: Mapping[str, Any]) -> None:
        """Record in file `name` what the rows depend on, or check it.

        Raises:
            BenchError: the rows that are there were made with something else; the sentence names it.

        """
        path = self.folder / name
        identity = json.loads(json.dumps(dict(identity), default=str))
        if not path.exists():
            write_json(path, identity)
            return
        before = read_json(path)
        changed = sorted(k for k in identity.keys() | before.keys() if identity.get(k) != before.get(k))
        if changed:
            differences = "; ".join(f"{k} was {before.get(k)}, is {identity.get(k)}" for k in changed)
            raise BenchError(
                f"{self.folder} holds results of another configuration ({differences}): use another out=DIR, "
                "or give the method another label."
            )

    def done(self) -> set[int]:
        """Indices of the images that have all their rows."""
        frame = self.read("samples")
        return set() if frame.empty else set(frame["index"])

    def add(self, first: int, samples: pd.DataFrame, images: pd.DataFrame) -> None:
        """Store the rows of one batch; `first` is the index of its first image."""
        self._write(self.parts, f"{first:06d}.", samples, images)

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

    def read(self, kind: str) -> pd.DataFrame:
        """All rows of a kind ("samples" or "images"), sorted; empty before the first batch."""
        whole = self.folder / f"{kind}.parquet"
        files = [whole] if whole.exists() else []
        files += sorted(self.parts.glob(f"*.{kind}.parquet"))
        try:
            frames = [pd.read_parquet(f) for f in files]
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise BenchError(f"{self.folder} holds a damaged file ({error}): delete it and run again.") from error
        if not frames:
            return pd.DataFrame()
        rows = pd.concat(frames, ignore_index=True).drop_duplicates(KEYS[kind])
        return rows.sort_values(KEYS[kind], ignore_index=True)

    @property
    def facts(self) -> dict[str, Any]:
        """What the method declared: its registered name and the fields of :class:`bench.contract.Facts`."""
        return dict(read_json(self.folder / "facts.json"))

    @property
    def timing(self) -> dict[str, Any] | None:
        """What `set_timing` stored."""
        path = self.folder / "timing.json"
        return read_json(path) if path.exists() else None

    def set_timing(self, timing: Mapping[str, Any]) -> None:
        """Store wall times."""
        write_json(self.folder / "timing.json", dict(timing))


class RunDir:
    """A run directory at `path`, as a whole or as one of the processes that share it see it (`shard`)."""

    def __init__(self, path: Path, shard: Shard | None = None) -> None:
        self.path = path
        self._suffix = "" if shard is None else f".{shard.index}-of-{shard.count}"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory, or this process's part of it; BenchError if another run has it.

        A whole run excludes every other one. Parts exclude whole runs and the same part.
        """
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            whole = stack.enter_context(self._hold("run.lock"))
            if self._suffix:
                stack.enter_context(self._hold(f"run{self._suffix}.lock"))
                whole.release()
            else:
                for path in self.path.glob("run.*-of-*.lock"):
                    with self._hold(path.name):
                        pass
            yield

    @contextmanager
    def _hold(self, name: str) -> Iterator[BaseFileLock]:
        with disk_errors(self.path):
            lock = FileLock(self.path / name)
            try:
                lock.acquire(timeout=PATIENCE)
            except Timeout:
                raise BenchError(
                    f"Another run is working in {self.path}: wait for it, or use another out=DIR."
                ) from None
        try:
            yield lock
        finally:
            lock.release()

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the last start; BenchError where there is none."""
        path = self.path / "config.yaml"
        if not path.is_file():
            raise BenchError(f"{self.path} is no run directory (it has no config.yaml).{self._neighbours()}")
        try:
            return OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[return-value]
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            raise BenchError(f"{path} cannot be read ({error}): delete it and run again.") from error

    def _neighbours(self) -> str:
        folder = self.path.parent
        names = [str(p) for p in folder.iterdir() if (p / "config.yaml").is_file()] if folder.is_dir() else []
        return near_matches(str(self.path), names)

    def open(self, record: Mapping[str, Any], frozen: tuple[str, ...]) -> None:
        """Write the configuration; BenchError if the directory was made with other values of the `frozen` keys."""
        if (self.path / "config.yaml").is_file():
            before = self.config
            changed = [k for k in frozen if before.get(k) != record[k]]
            if changed:
                differences = "; ".join(f"{k} was {before.get(k)}, is {record[k]}" for k in changed)
                raise BenchError(
                    f"{self.path} was made with another configuration ({differences}): use another out=DIR."
                )
        write_atomic(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(record))))

    def add_environment(self, environment: Mapping[str, Any]) -> None:
        """Append what this start runs on."""
        path = self.path / f"environment{self._suffix}.json"
        write_json(path, [*(read_json(path) if path.exists() else []), dict(environment)])

    def cell(self, key: CellKey) -> Cell:
        """Return the cell of a key."""
        return Cell(self.path / "cells" / key.folder, key)

    def cells(self) -> list[Cell]:
        """All cells that hold results, of this configuration and of earlier ones, ordered by their folder's name."""
        found = []
        for path in sorted((self.path / "cells").glob("*/cell.json")):
            identity = read_json(path)
            key = CellKey("", identity["scale"], identity["tau"])
            label = path.parent.name.removesuffix(key.folder)
            found.append(self.cell(CellKey(label, key.scale, key.tau)))
        return [cell for cell in found if cell.done()]

    @property
    def failures_file(self) -> Path:
        """Where `failures` are."""
        return self.path / f"failures{self._suffix}.jsonl"

    @property
    def failures(self) -> list[dict[str, Any]]:
        """Images that could not be used: cell, image, reason."""
        path = self.failures_file
        return [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []

    def set_failures(self, failures: list[dict[str, Any]]) -> None:
        """Replace the list of failures."""
        write_atomic(self.failures_file, "".join(json.dumps(f, sort_keys=True) + "\n" for f in failures))

    def image_folder(self, scale: int, index: int) -> Path:
        """Where the selected PNG files of one image are."""
        return self.path / "images" / f"x{scale}" / f"{index:06d}"
