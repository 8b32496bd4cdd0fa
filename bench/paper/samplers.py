"""Published figures of zero-shot samplers on FFHQ at 256 pixels, x4, and a run's own beside them.

The figures are in ``published/samplers.csv``: sigma is of images in [0, 1], `printed_sigma` what the source prints.
Where they are not known both are blank, and the figure is beside no run's.
``published/samplers_sources.csv`` names the sources. FID is there as data, no metric of a run is compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from math import isclose

import pandas as pd
from tabulate import tabulate

from bench.contract import cost_text
from bench.files import write_atomic
from bench.metrics import column
from bench.report.tables import PLAIN, Row, escape_markdown, summarise
from bench.run.store import RunDir

METRICS = {"psnr": ("psnr",), "ssim": ("ssim",), "lpips": ("lpips_vgg", "lpips_alex")}
"""Published columns and the metrics that are compared with them, as far as a run has them."""
SET = ("ffhq256", 256)
"""What the figures are of: a dataset's name and size."""
NOTE = (
    "Published on FFHQ at 256 pixels, bicubic x4. Figures of one method differ between sources by up to 2.6 dB: DDRM "
    "has 25.36 at sigma 0.025, 27.92 at 0.05 and 27.65 at one that is not known. Networks of LPIPS, borders, ranges of "
    "sigma and numbers of images differ. `published evaluations` are as printed; a difference at another number of "
    "evaluations is none of the method alone."
)


def published_samplers() -> pd.DataFrame:
    """One row per figure: method, scale, sigma, evaluations, metric, published, source."""
    with (files("bench.paper.published") / "samplers.csv").open() as file:
        frame = pd.read_csv(file)
    keys = ["method", "scale", "sigma", "printed_sigma", "evaluations", "source"]
    return frame.melt(keys, var_name="metric", value_name="published").dropna(subset="published")


def sources() -> dict[str, str]:
    """What each source is."""
    with (files("bench.paper.published") / "samplers_sources.csv").open() as file:
        return dict(pd.read_csv(file).itertuples(index=False))


def measured_on(row: Row) -> tuple[str, int | None]:
    """Dataset and size of a row's images."""
    dataset = (row.cell.identity or {}).get("dataset", {})
    name = str(dataset.get("name", "another dataset"))
    return name, dataset.get("size", SET[1] if name == SET[0] else None)


def other_images(rows: Sequence[Row]) -> list[str]:
    """Sentences that say which rows are of other images than the published figures."""
    others = sorted({measured_on(row) for row in rows} - {SET}, key=str)
    return [
        f"Measured on {name}{f' at {size} pixels' if size else ''}: other images than the published ones, so that "
        "there is no difference." for name, size in others
    ]  # fmt: skip


def beside_published(rows: Sequence[Row], names: Sequence[str]) -> pd.DataFrame:
    """Measured and published figures of the same method, scale, operator, sigma and metric, one per line and source.

    A difference is that of methods where both are of the same dataset at the same size; elsewhere there is none.
    """
    theirs = published_samplers().to_dict("records")
    frame = summarise(list(rows), list(names))
    records = []
    for i, row in enumerate(rows):
        key = row.cell.key
        for p in theirs:
            same = (p["method"], p["scale"]) == (row.cell.facts["method"], key.scale)
            if not same or row.operator.partition(" ")[0] != PLAIN[0] or not isclose(p["sigma"], row.sigma):
                continue
            for name in (n for n in METRICS.get(p["metric"], ()) if n in names):
                measured, lo, hi = (float(frame[column(name) + s].iloc[i]) for s in ("", "_lo", "_hi"))
                ours = (key.scale, key.label, row.sigma, cost_text(row.evaluations, row.backward_passes), name)
                difference = measured - p["published"] if measured_on(row) == SET else None
                values = (measured, lo, hi, p["published"], difference)
                records.append((*ours, *values, p["evaluations"], p["source"]))
    columns = ["scale", "method", "sigma", "evaluations", "metric", "measured", "lo", "hi", "published", "difference",
               "published evaluations", "source"]  # fmt: skip
    return pd.DataFrame(records, columns=columns)


def write_samplers(run: RunDir, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Write ``samplers.csv`` and ``samplers.md`` where the run has figures that were published too."""
    frame = beside_published(rows, names)
    if frame.empty:
        return
    write_atomic(run.path / "samplers.csv", frame.to_csv(index=False))
    shown = frame.assign(method=frame["method"].map(escape_markdown)).astype({"published evaluations": "Int64"})
    table = tabulate(shown.astype(object).where(shown.notna(), "").to_numpy().tolist(), headers=list(shown.columns),
                     tablefmt="pipe", floatfmt=".4g")  # fmt: skip
    named = [f"{name}: {text}." for name, text in sources().items() if name in set(frame["source"])]
    write_atomic(run.path / "samplers.md", "\n\n".join([*other_images(rows), table, NOTE, *named]) + "\n")
