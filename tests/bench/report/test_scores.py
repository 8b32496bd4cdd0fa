"""Energy score against seconds, and its split into sampler and network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.metrics.statistic import Conditions, Estimate
from bench.report.scores import against_seconds, split_figure, splits, write_scores
from bench.report.tables import Row
from bench.report.truth import TruthRow
from bench.run.cell import CellKey
from bench.run.store import RunDir

ORACLE = np.array([8.0, 9.0, 10.0, 11.0])


def row(run: RunDir, label: str, scores: np.ndarray, first: int = 0, **settings: object) -> TruthRow:
    """A line with these energy scores, of images from number `first` on."""
    cell = run.cell(CellKey(label, 4, None))
    index = range(first, first + len(scores))
    images = pd.DataFrame({"index": index, "image": "x"})
    images["energy"] = [np.array(pair) for pair in zip(scores, ORACLE[: len(scores)], strict=True)]
    samples = pd.DataFrame({"index": index, "sample": 0, "image": "x", "metrics": "energy"})
    cell.add(0, samples, images)
    identity = {"version": 1, "scale": 4, "tau": None, "operator": {"name": "bicubic", "sigma": 0.05}}
    identity["settings"] = {"steps": 20, **settings}
    cell.claim(identity, {"title": "DDRM", "method": "ddrm", "evaluations": 20}, {})
    time = pd.Series([0.1])
    line = Row(cell, label, True, "bicubic", 0.05, 4, {"seconds": time}, pd.Series(dtype=float), 5, {}, 1, 0)
    estimate = Estimate(float(scores.mean()), scores.mean() - 1, scores.mean() + 1, float(ORACLE.mean()))
    return TruthRow(line, Conditions(5, 0.05), "yes", {"energy": estimate})


@pytest.fixture
def rows(tmp_path: Path) -> list[TruthRow]:
    run = RunDir(tmp_path)
    return [
        row(run, "exact", ORACLE + np.array([1, 1, 2, 2]), weights="exact"),
        row(
            run, "trained", ORACLE + np.array([3, 4, 5, 6]), weights="prior.safetensors", unet={"size": 32}, compute={}
        ),
        row(run, "other", ORACLE + 9, weights="prior.safetensors", steps=100),
    ]


def test_the_score_is_split_where_the_denoiser_alone_differs(rows: list[TruthRow]) -> None:
    (found,) = splits(rows)
    assert (found.exact.row.title, found.trained.row.title) == ("exact", "trained")
    assert found.sampler.mean == pytest.approx(1.5)  # above the oracle
    assert found.network.mean == pytest.approx(3.0)  # above the exact denoiser
    assert found.sampler.lo < 1.5 < found.sampler.hi
    assert found.n_images == 4
    assert split_figure([found]) is not None
    assert split_figure([]) is None
    sampler = replace(found.sampler, mean=900.0, lo=20.0, hi=2000.0)
    wild = replace(found, sampler=sampler, network=replace(found.network, mean=-898.0, lo=-1998.0, hi=-18.0))
    figure = split_figure([found, found, wild])
    assert figure is not None
    left, right = figure.axes[0].get_xlim()
    assert -5 < left < 0 < right < 50  # what diverges does not hide the rest


def test_images_that_both_have_count(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    exact = row(run, "exact", ORACLE + 1, weights="exact")
    trained = row(run, "trained", ORACLE[:2] + 5, first=1, weights="x")
    (found,) = splits([exact, trained])
    assert found.n_images == 2
    assert found.sampler.mean == pytest.approx(1)
    assert found.network.mean == pytest.approx((8 + 5 - 9 - 1 + 9 + 5 - 10 - 1) / 2)


def test_figures_and_table_are_written(rows: list[TruthRow], tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    names = [p.name for p in write_scores(run, rows)]
    assert names == [f"{n}_x4.{s}" for n in ("score_time", "error_split") for s in ("png", "pdf")]
    table = pd.read_csv(tmp_path / "error_split.csv")
    assert table[["method", "trained", "n_images"]].to_numpy().tolist() == [["exact", "trained", 4]]
    assert table["sampler"].tolist() == pytest.approx([1.5])
    write_scores(run, rows[2:])
    assert not list((tmp_path / "figures").glob("error_split*"))


def test_the_score_needs_times_and_two_methods(rows: list[TruthRow]) -> None:
    figure = against_seconds(rows)
    assert figure is not None
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    names = [t.get_text() for t in figure.legends[0].get_texts()]
    assert names == ["the oracle's", "exact", "trained", "other"]
    far = replace(rows[2], estimates={"energy": Estimate(300.0, 200.0, 400.0, float(ORACLE.mean()))})
    figure = against_seconds([*rows[:2], far])
    assert figure is not None
    assert "other: 300" in [t.get_text() for t in figure.legends[0].get_texts()]
    assert figure.axes[0].get_ylim()[1] < 30
    assert against_seconds(rows[:1]) is None
