"""A table that the paper lacks: its methods beside the values of a perfect sampler (docs/truth.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.files import write_atomic
from bench.paper.tables import Entry
from bench.report.truth import frame_of, latex, markdown, notes_of, read_truth
from bench.run.store import RunDir

STATISTICS = (
    "apd_ratio_mse", "apd_ratio_lpips_alex", "apd_ratio_lpips_vgg", "apd_ratio_stlpips_alex", "energy", "crps",
    "rank_error", "tarp_error",
)  # fmt: skip


def write_appendix(run: RunDir, name: str, entries: Sequence[Entry], folder: Path, note: str = "") -> str:
    """Write ``NAME.csv``, ``NAME.md`` and ``NAME.tex``: APD over error, proper scores and errors of calibration.

    Args:
        run: where the rows are.
        name: of the files.
        entries: the lines; the reason of one that was left out stands below.
        folder: where the files go.
        note: a sentence below.

    Returns:
        the table for the console.

    """
    found, known = read_truth(run, STATISTICS)
    by_key = {r.row.cell.key: r for r in found}
    entries = sorted(entries, key=lambda e: e.key.scale)
    rows = [by_key[e.key] for e in entries if e.key in by_key]
    left = [
        f"{e.title} x{e.key.scale} is left out: {e.reason or 'it has no rows.'}" for e in entries if e.key not in by_key
    ]
    below = [t for t in (*notes_of(rows), note, *dict.fromkeys(left)) if t]
    path = folder / name
    write_atomic(path.with_suffix(".csv"), frame_of(rows, known).to_csv(index=False))
    write_atomic(path.with_suffix(".md"), "\n\n".join([markdown(rows, known), *below]) + "\n")
    write_atomic(path.with_suffix(".tex"), "".join(f"% {t}\n" for t in below) + latex(rows, known))
    return "\n".join([markdown(rows, known, "simple"), *([note] if note else []), *dict.fromkeys(left)])
