"""Pictures of samples, from those that a run kept; no model is needed."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.files import disk_errors, write_atomic
from bench.run.cell import Cell, tau_text
from bench.run.samples import damaged, read_picture
from bench.run.store import RunDir

mpl.rcParams["svg.fonttype"] = "none"
TILE = 1.1
"""Side of a picture in inches."""
DPI = 150
SAME_RUN = "the same run makes it again"
"""What brings back a picture of an image."""
COLOURS = [to_hex(mpl.colormaps["tab20"](i)) for i in (*range(0, 20, 2), *range(1, 20, 2))]
"""Of lines and points, so many that one figure hardly needs one twice."""
SPREAD = 0.2
"""Standard deviation, of intensities in [0, 1], at the bright end of the maps."""


@dataclass(frozen=True)
class Strip:
    """A row of pictures, uint8 [H, W, 3] each or None for an empty place, and what stands before it."""

    label: str
    pictures: Sequence[np.ndarray | None]


def sample_grids(run: RunDir) -> list[Path]:
    """Draw one grid per scale from the samples that a run kept, as PNG and PDF; return the files.

    Each image has a row per method: LR, samples, their standard deviation, HR (the layout of the paper's Figures 3
    and 4, and a map that they lack).
    """
    written = []
    config = run.config
    labels = list(config["methods"])
    cells = sorted(run.cells(), key=lambda c: [*labels, c.key.label].index(c.key.label))
    for scale in sorted({c.key.scale for c in cells}):
        folders = sorted((run.path / "images" / f"x{scale}").glob("*/"))
        indices = [int(p.name) for p in folders if p.name.isdecimal()]
        rows = [(c, title_of(c)) for c in cells if c.key.scale == scale]
        shown = indices[: config.get("figure_images")]
        most = max((c.samples.count(i) for i in shown for c, _ in rows), default=0)
        strips = []
        for index in shown:
            strips += strips_of_image(run, index, rows, most, spread=most > 1)
        if strips:
            heads = sample_heads(most, spread=most > 1)
            written += save(picture_grid(strips, heads), run.path / "figures" / f"samples_x{scale}")
    drop_others(run.path / "figures", "samples_x*", written)
    return written


def drop_others(folder: Path, pattern: str, written: Collection[Path]) -> None:
    """Delete figures of a name that were not made again: they are of rows or samples that are no longer there."""
    for path in folder.glob(pattern):
        if path not in written and path.suffix in (".png", ".pdf"):
            with disk_errors(path):
                path.unlink()


def title_of(cell: Cell) -> str:
    """Name and temperature of a cell for the margin of a picture grid."""
    tau = "" if cell.key.tau is None else f"\nτ = {tau_text(cell.key.tau)}"
    return (cell.facts["title"] if cell.facts["method"] == cell.key.label else cell.key.label) + tau


def plain_text(text: str) -> str:
    """Text that matplotlib prints as it is: two dollar signs would begin and end a formula."""
    return text.replace("$", r"\$")


def sample_heads(samples: int, spread: bool) -> list[str]:
    """Heads of the columns of `strips_of_image`."""
    between = [f"std (0 to {SPREAD:g})"] if spread else []
    return ["LR", *(f"sample {j + 1}" for j in range(samples)), *between, "HR"]


def strips_of_image(
    run: RunDir, index: int, rows: Sequence[tuple[Cell, str]], samples: int, spread: bool
) -> list[Strip]:
    """Rows LR | samples | standard deviation | HR of one image, for those cells that have samples of it.

    Args:
        run: the run directory.
        index: of the image.
        rows: cells of one scale and their titles.
        samples: columns of samples.
        spread: whether there is a column for the standard deviation.

    """
    strips: list[Strip] = []
    for cell, title in rows:
        found = [sample_picture(cell, index, j) for j in range(cell.samples.count(index))]
        if not found:
            continue
        if len({x.shape for x in found}) > 1:
            raise BenchError(damaged(cell.samples.folder, f"the samples of image {index} differ in their size"))
        shown: list[np.ndarray | None] = [*found[:samples], *[None] * max(samples - len(found), 0)]
        if spread:
            shown.append(deviation_map(found) if len(found) > 1 else None)
        folder = run.image_folder(cell.key.scale, index)
        ends = [read_picture(folder / f"{name}.png", SAME_RUN) if not strips else None for name in ("lr", "hr")]
        strips.append(Strip(title, [ends[0], *shown, ends[1]]))
    return strips


def sample_picture(cell: Cell, index: int, number: int) -> np.ndarray:
    """Read a kept sample for showing: uint8 [H, W, 3]."""
    low, high = ((cell.identity or {}).get("operator", {}).get("range")) or (0.0, 1.0)
    return cell.samples.picture(index, number, (low, high))


def deviation_map(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Standard deviation over samples, root mean square over colours, as colours from 0 (black) to `SPREAD`."""
    stack = np.stack(samples).astype(np.float64) / 255
    deviation = np.sqrt(stack.var(axis=0, ddof=1).mean(-1))
    colours: np.ndarray = mpl.colormaps["magma"](np.clip(deviation / SPREAD, 0, 1), bytes=True)
    return colours[..., :3]


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


def picture_grid(strips: Sequence[Strip], heads: Sequence[str]) -> Figure:
    """Lay out rows of pictures under the heads of their columns."""
    margin, top = 1.3, 0.25  # inches for the labels
    width, height = margin + len(heads) * TILE, top + len(strips) * TILE
    figure = Figure(figsize=(width, height))
    for r, strip in enumerate(strips):
        y = (height - top - (r + 1) * TILE) / height
        for c, picture in enumerate(strip.pictures):
            if picture is None:
                continue
            axes = figure.add_axes(((margin + c * TILE) / width, y, TILE * 0.98 / width, TILE * 0.98 / height))
            axes.imshow(picture, interpolation="nearest")
            axes.set_axis_off()
        figure.text(0.05 / width, y + TILE / 2 / height, plain_text(strip.label), fontsize=9, va="center")
    for c, head in enumerate(heads):
        figure.text((margin + (c + 0.5) * TILE) / width, 1 - 0.16 / height, head, fontsize=9, ha="center")
    return figure
