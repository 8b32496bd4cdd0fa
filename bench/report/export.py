"""A run as two files that other tools can read: ``export.parquet``, all values, and ``export.json``, what they are of.

docs/schema.md describes both; :mod:`bench.report.schema` is the schema.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import BenchError
from bench.files import read_json, write_atomic
from bench.metrics import better_at, metric_facts
from bench.metrics.statistic import statistics
from bench.report.notes import impossible
from bench.report.schema import (
    COLUMNS,
    VERSION,
    Export,
    Failure,
    Figure,
    MetricEntry,
    RowEntry,
    StatisticFigure,
)
from bench.report.stats import mean_interval, median_range
from bench.report.tables import Row, is_time
from bench.report.truth import TruthRow, read_truth, ruled_out
from bench.run.cell import Cell
from bench.run.store import RunDir

DISTRIBUTION = "diverse-sr-bench"


def write_export(run: RunDir, folder: Path | None = None) -> tuple[Path, Path]:
    """Write a run directory as one parquet and one JSON file.

    Args:
        run: the run.
        folder: where to; None for the run directory.

    Returns:
        ``export.parquet`` and ``export.json``.

    Raises:
        BenchError: there are no rows.

    """
    found, _ = read_truth(run)
    if not found:
        raise BenchError(f"Nothing has been measured in {run.path} yet: run its command again.")
    names: list[str] = run.config["metrics"]
    document = _document(run, found, names).model_dump_json(indent=2)
    frames = [frame for row in found for frame in _values(row.row.cell, names)]
    columns = {name: pa.field(name, pa.type_for_alias(kind)) for name, kind in COLUMNS.items()}
    schema = pa.schema(columns.values(), metadata={"schema_version": VERSION, "export.json": document})
    table = pa.concat_tables([_table(frame, schema) for frame in frames])
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    folder = folder or run.path
    paths = folder / "export.parquet", folder / "export.json"
    write_atomic(paths[0], buffer.getvalue())
    write_atomic(paths[1], document + "\n")
    return paths


def _document(run: RunDir, found: list[TruthRow], names: list[str]) -> Export:
    identity = found[0].row.cell.identity or {}
    environments = [
        e for path in sorted(run.path.glob("environment*.json")) for e in read_json(path, list[dict[str, Any]])
    ]
    try:
        suite = version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a folder
        suite = "unknown"
    return Export(
        schema_version=VERSION,
        suite_version=suite,
        run=run.path.resolve().name,
        dataset=identity["dataset"],
        operator=identity["operator"],
        n=identity["n"],
        seed=identity["seed"],
        quantise=identity["quantise"],
        metrics=[_metric(name, float(identity["operator"]["sigma"])) for name in names],
        rows=[_row(row, names) for row in found],
        failures=[Failure(**{k: f[k] for k in ("what", "image", "reason")}) for f in run.failures],
        environment=_finite(environments),
    )


def _metric(name: str, sigma: float) -> MetricEntry:
    facts = metric_facts(name)
    return MetricEntry(
        name=name, label=facts.label, better=better_at(name, sigma), unit=facts.unit, factor=facts.factor,
        domain=facts.domain, range=facts.range, source=facts.source,
    )  # fmt: skip


def _row(found: TruthRow, names: list[str]) -> RowEntry:
    row, cell = found.row, found.row.cell
    facts, identity, timing = cell.facts, cell.identity or {}, cell.timing or {}
    estimates = {
        name: StatisticFigure(
            **{k: _number(getattr(e, k)) for k in ("value", "lo", "hi", "right", "distance", "p", "p_joint")},
            ruled_out=ruled_out(e, statistics.facts(name)),
            n=e.n_images,
        )
        for name, e in found.estimates.items()
    }
    return RowEntry(
        label=cell.key.label,
        method=facts["method"],
        title=facts["title"],
        scale=cell.key.scale,
        tau=cell.key.tau,
        version=identity["version"],
        settings=identity.get("settings", {}),
        weights=identity.get("weights", {}),
        deterministic=bool(facts.get("deterministic", False)),
        evaluations=facts["evaluations"],
        images=row.n_images,
        samples=row.n_samples,
        device=timing.get("device"),
        metrics={name: _figure(row, name) for name in names},
        statistics=estimates,
        impossible=impossible(row),
    )


def _figure(row: Row, name: str) -> Figure:
    values = row.values[name].to_numpy(dtype=float)
    estimate = median_range(values) if is_time(name) else mean_interval(values)
    return Figure(
        mean=_number(estimate.mean), lo=_number(estimate.lo), hi=_number(estimate.hi), n=int((~np.isnan(values)).sum())
    )


def _number(value: float) -> float | None:
    """A number that JSON has; null for the others."""
    return float(value) if np.isfinite(value) else None


def _finite(content: Any) -> Any:
    """Plain content without what JSON has no number for."""
    if isinstance(content, Mapping):
        return {k: _finite(v) for k, v in content.items()}
    if isinstance(content, list):
        return [_finite(v) for v in content]
    return _number(content) if isinstance(content, float) else content


def _values(cell: Cell, names: list[str]) -> Iterator[pd.DataFrame]:
    """All values of a cell, a frame per metric; see docs/schema.md."""
    images, samples = cell.read("images"), cell.read("samples")
    contents = images[["index", "content"]]
    timing = cell.timing or {}
    for name in names:
        domain = metric_facts(name).domain
        if domain == "timing":
            if timing.get(name) is not None:
                repeats = np.atleast_1d(timing[name])
                yield _frame(cell, name, "time", value=repeats, sample=np.arange(len(repeats)))
        elif domain == "sample" and name in samples:
            rows = samples.merge(contents, on="index", how="left")
            yield _frame(cell, name, "sample", rows, value=rows[name].to_numpy(), sample=rows["sample"].to_numpy())
        elif name in images:
            yield _frame(cell, name, "image", images, value=images[name].to_numpy())
    for name in statistics.names():
        if name in images:
            rows = images[["index", "image", "content", name]].explode(name)
            component = rows.groupby("index").cumcount().to_numpy()
            yield _frame(cell, name, "statistic", rows, value=rows[name].to_numpy(dtype=float), component=component)


def _frame(cell: Cell, metric: str, kind: str, rows: pd.DataFrame | None = None, **columns: Any) -> pd.DataFrame:
    key = cell.key
    of_image = {} if rows is None else {k: rows[k].to_numpy() for k in ("index", "image", "content")}
    frame = pd.DataFrame({**of_image, **columns})
    return frame.assign(scale=key.scale, method=key.label, tau=key.tau, metric=metric, kind=kind)


def _table(frame: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        if field.name not in frame:
            arrays.append(pa.nulls(len(frame), field.type))
        else:
            arrays.append(pa.array(frame[field.name], type=field.type, from_pandas=True))
    return pa.table(arrays, schema=schema)
