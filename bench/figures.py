"""Figures from the images that a run kept; no model is needed."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from bench.store import Cell, RunDir, write_atomic

mpl.rcParams["svg.fonttype"] = "none"
TILE = 1.1
"""Side of a picture in inches."""
DPI = 150


def sample_grids(run: RunDir) -> list[Path]:
    """Draw one grid per scale, rows of LR | samples | HR for each kept image and method, as PNG and PDF.

    The layout is that of the paper's Figures 3 and 4. Returns the files written.
    """
    written = []
    labels = list(run.config["methods"])
    cells = sorted(run.cells(), key=lambda c: [*labels, c.key.label].index(c.key.label))
    for scale in sorted({c.key.scale for c in cells}):
        folders = sorted(p for p in (run.path / "images" / f"x{scale}").glob("*") if (p / "hr.png").is_file())
        rows = [(f, c) for f in folders for c in cells if c.key.scale == scale and _samples(f, c)]
        if rows:
            written += save(_grid(rows), run.path / "figures" / f"samples_x{scale}")
    return written


def save(figure: Figure, path: Path) -> list[Path]:
    """Write a figure as PNG and PDF, atomically; `path` has no suffix."""
    written = []
    for suffix in ("png", "pdf"):
        buffer = io.BytesIO()
        metadata = {"CreationDate": None} if suffix == "pdf" else None
        figure.savefig(buffer, format=suffix, dpi=DPI, metadata=metadata)
        written.append(path.with_suffix(f".{suffix}"))
        write_atomic(written[-1], buffer.getvalue())
    return written


def _samples(folder: Path, cell: Cell) -> list[Path]:
    prefix = f"{cell.key.label}{cell.key.tau_suffix}_"
    found = [p for p in folder.glob(f"{prefix}*.png") if p.stem.removeprefix(prefix).isdigit()]
    return sorted(found, key=lambda p: int(p.stem.removeprefix(prefix)))


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _grid(rows: list[tuple[Path, Cell]]) -> Figure:
    samples = max(len(_samples(f, c)) for f, c in rows)
    columns = samples + 2
    margin = 1.3  # inches for the names of the methods
    width, height = margin + columns * TILE, 0.25 + len(rows) * TILE
    figure = Figure(figsize=(width, height))
    heads = ["LR", *(f"sample {j + 1}" for j in range(samples)), "HR"]
    for r, (folder, cell) in enumerate(rows):
        y = (height - 0.25 - (r + 1) * TILE) / height
        paths = [folder / "lr.png", *_samples(folder, cell)]
        placed = [*enumerate(paths), (columns - 1, folder / "hr.png")]
        for c, path in placed:
            axes = figure.add_axes(((margin + c * TILE) / width, y, TILE * 0.98 / width, TILE * 0.98 / height))
            axes.imshow(_read(path), interpolation="nearest")
            axes.set_axis_off()
        tau = "" if cell.key.tau is None else f"\nτ = {cell.key.tau:g}"
        title = cell.facts["title"] if cell.facts["method"] == cell.key.label else cell.key.label
        figure.text(0.05 / width, y + TILE / 2 / height, title + tau, fontsize=9, va="center")
    for c, head in enumerate(heads):
        figure.text((margin + (c + 0.5) * TILE) / width, 1 - 0.16 / height, head, fontsize=9, ha="center")
    return figure
