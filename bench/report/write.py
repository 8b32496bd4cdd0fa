"""All tables and figures of a run directory in one call, for whatever command has filled it."""

from __future__ import annotations

from bench.report.calibration import write_calibration
from bench.report.figures import sample_grids
from bench.report.plots import write_plots
from bench.report.scores import write_scores
from bench.report.tables import write_tables
from bench.report.truth import write_truth
from bench.run.store import RunDir


def write_all(run: RunDir) -> str:
    """Write ``table.*``, ``differences.csv``, ``truth.*`` and ``figures/``; return the table for the console."""
    table = write_tables(run)
    rows = write_truth(run)
    write_calibration(run, rows)
    write_scores(run, rows)
    sample_grids(run)
    write_plots(run)
    return table
