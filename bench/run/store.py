"""The run directory: what is in it, and how it survives a kill at any point. docs/runs.md has it for users.

::

    config.yaml            the resolved configuration of the last start
    environment.json       one entry per start: versions, device, threads, workers, options of computing, git state
    failures.jsonl         what failed in the last start, and why
    compute.json           rows together in a network, as measured, by method, scale, device and threads
    perceptual.json        what perceptual=auto was when the directory was made
    images.json            files of the images as they were when their content was last seen
    launch/                tasks and answers of workers while they work
    cells/LABEL_x8_tau0.8/ one method at one scale and temperature
        cell.json          what its rows depend on; rows of anything else are never mixed in
        facts.json         what the method declares about itself
        files.json         the files that the method loaded
        timing.json        wall times
        samples.parquet    a row per (image, sample)
        images.parquet     a row per image: its content, and metrics of the set of its samples
        drawn.json         content of images that have samples but no rows: pictures of `reproduce`
        parts/             the same, one pair of files per batch, while the run goes on
        samples/           the samples themselves, 000007_2.png: image 7, sample 2
        hashes/            their pixels' sha256, a file per image: a replaced file is never taken for a sample
        superseded-1/      what stale=recompute has set aside
    images/x8/000000/      hr.png and lr.png of the images that have samples
    table.csv .md .tex     and the other tables and figures, made again from the rows at any time

Every file is written under a temporary name, flushed to disk and renamed, so that it is either there in full or not
at all. A batch counts as done when its ``.samples.parquet`` is there, which is written last.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, TypeAdapter, ValidationError
from yaml import YAMLError

from bench.errors import BenchError, near_matches
from bench.files import disk_errors, read_json, write_atomic, write_json, write_png
from bench.run.cell import Cell, CellKey

PATIENCE = 2.0
"""Seconds to wait for the lock of a run that is just ending."""


class _Rows(BaseModel):
    rows: int


class _Failure(BaseModel):
    what: str
    image: str | None
    reason: str


class _Config(BaseModel):
    """What tables and figures read of a configuration."""

    methods: dict[str, Any]
    metrics: list[str]
    dataset: dict[str, Any] = {}
    images: list[int | None] | None = None
    apd_images: int | None = None
    figure_images: int | None = None


class RunDir:
    """A run directory at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the directory; BenchError if another run has it."""
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "run.lock")
            try:
                lock.acquire(timeout=PATIENCE)
            except Timeout:
                raise BenchError(
                    f"Another run is working in {self.path}: wait for it, or use another out=DIR."
                ) from None
        try:
            yield
        finally:
            lock.release()

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the last start; BenchError where there is none."""
        path = self.path / "config.yaml"
        if not path.is_file():
            raise BenchError(f"{self.path} is no run directory (it has no config.yaml).{self._neighbours()}")
        try:
            content = OmegaConf.to_container(OmegaConf.load(path))
            TypeAdapter(_Config).validate_python(content)
        except ValidationError as error:
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"
            raise BenchError(f"{path} is no configuration of a run ({reason}): delete it and run again.") from error
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            raise BenchError(f"{path} cannot be read ({error}): delete it and run again.") from error
        return content  # type: ignore[return-value]

    def _neighbours(self) -> str:
        folder = self.path.parent
        names = [str(p) for p in folder.iterdir() if (p / "config.yaml").is_file()] if folder.is_dir() else []
        return near_matches(str(self.path), names)

    def set_config(self, record: Mapping[str, Any]) -> None:
        """Write the configuration of this start."""
        write_atomic(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(record))))

    def add_environment(self, environment: Mapping[str, Any]) -> None:
        """Append what this start runs on."""
        path = self.path / "environment.json"
        write_json(path, [*(read_json(path, list[dict[str, Any]]) if path.exists() else []), dict(environment)])

    def amend_environment(self, more: Mapping[str, Any]) -> None:
        """Add to what this start runs on."""
        path = self.path / "environment.json"
        *before, last = read_json(path, list[dict[str, Any]])
        write_json(path, [*before, last | dict(more)])

    def perceptual(self, asked: str) -> str | None:
        """The perceptual distance that was taken in an earlier start for what was asked, None before that."""
        return self._perceptual().get(asked)

    def _perceptual(self) -> dict[str, str]:
        path = self.path / "perceptual.json"
        return dict(read_json(path, dict[str, str])) if path.is_file() else {}

    def set_perceptual(self, asked: str, taken: str) -> None:
        """Keep the perceptual distance for later starts."""
        if self.perceptual(asked) != taken:
            write_json(self.path / "perceptual.json", {**self._perceptual(), asked: taken})

    def rows_together(self, of: Mapping[str, Any]) -> int | None:
        """Rows together that an earlier start has chosen for a method on a device (`of`), None if none has."""
        for record in self._rows():
            if all(record.get(k) == v for k, v in of.items()):
                return int(record["rows"])
        return None

    def _rows(self) -> list[dict[str, Any]]:
        path = self.path / "compute.json"
        return list(read_json(path, list[_Rows])) if path.is_file() else []

    def set_rows_together(self, of: Mapping[str, Any], rows: int) -> None:
        """Keep a choice of rows together for later starts."""
        write_json(self.path / "compute.json", [*self._rows(), {**of, "rows": rows}])

    def write_error(self, name: str, text: str) -> Path:
        """Keep the traceback of a method that failed; return where it is."""
        path = self.path / "errors" / f"{name}.txt"
        write_atomic(path, text)
        return path

    def seen(self) -> dict[int, tuple[str, str]]:
        """Fingerprint (`Dataset.fingerprint`) and content of images whose content has been looked at."""
        path = self.path / "images.json"
        if not path.is_file():
            return {}
        return {int(i): (f, c) for i, (f, c) in read_json(path, dict[int, tuple[str, str]]).items()}

    def set_seen(self, seen: Mapping[int, tuple[str, str]]) -> None:
        """Replace what `seen` returns."""
        write_json(self.path / "images.json", {str(i): list(v) for i, v in sorted(seen.items())})

    def cell(self, key: CellKey) -> Cell:
        """Return the cell of a key."""
        return Cell(self.path / "cells" / key.folder, key)

    def claimed(self) -> list[Cell]:
        """All cells that were claimed, or have rows or samples all the same, ordered by their folder's name.

        Raises:
            BenchError: a cell was made by an earlier version.

        """
        folders = sorted(p for p in (self.path / "cells").glob("*") if p.is_dir())
        keys = [(folder, CellKey.of_folder(folder.name)) for folder in folders]
        cells = [Cell(folder, key) for folder, key in keys if key is not None]
        return [cell for cell in cells if cell.identity is not None or not cell.is_empty]

    def cells(self) -> list[Cell]:
        """All cells that have rows, of this configuration and of earlier ones.

        Raises:
            BenchError: nothing tells what the rows of one depend on.

        """
        found = [cell for cell in self.claimed() if cell.done()]
        for cell in found:
            if cell.identity is None:
                raise BenchError(
                    f"{cell.folder} holds rows, but nothing tells what they depend on (cell.json is gone): put it "
                    "back, add stale=recompute to the same run, which computes them anew, or move the folder away."
                )
        return found

    @property
    def failures_file(self) -> Path:
        """Where `failures` are."""
        return self.path / "failures.jsonl"

    @property
    def failures(self) -> list[dict[str, Any]]:
        """What failed: what, image (None for all), reason."""
        path = self.failures_file
        if not path.exists():
            return []
        try:
            lines = [json.loads(line) for line in path.read_text().splitlines() if line]
            TypeAdapter(list[_Failure]).validate_python(lines)
            return lines
        except (OSError, ValueError) as error:
            raise BenchError(f"{path} cannot be read ({error}): delete it and run again.") from error

    def set_failures(self, failures: list[dict[str, Any]]) -> None:
        """Replace the list of failures."""
        write_atomic(self.failures_file, "".join(json.dumps(f, sort_keys=True) + "\n" for f in failures))

    def image_folder(self, scale: int, index: int) -> Path:
        """Where ``hr.png`` and ``lr.png`` of an image are."""
        return self.path / "images" / f"x{scale}" / f"{index:06d}"

    def has_image(self, scale: int, index: int) -> bool:
        """Whether both pictures of an image are there."""
        return all((self.image_folder(scale, index) / f"{name}.png").is_file() for name in ("hr", "lr"))

    def drop_images(self, scale: int, indices: Collection[int] | None = None) -> None:
        """Delete pictures of images (all, or some) that are no longer what they were; the next samples bring new ones.

        Their folders stay, which tell the images that are shown.
        """
        for path in sorted((self.path / "images" / f"x{scale}").glob("*/[hl]r.png")):
            if indices is None or (path.parent.name.isdecimal() and int(path.parent.name) in indices):
                with disk_errors(path):
                    path.unlink()

    def set_image(self, scale: int, index: int, hr: np.ndarray, lr: np.ndarray) -> None:
        """Keep an image and its observation, uint8 [H, W, 3] and [h, w, 3], for figures and report."""
        for name, picture in (("hr", hr), ("lr", lr)):
            write_png(self.image_folder(scale, index) / f"{name}.png", picture)
