"""truth.csv, truth.md, truth.tex and the figures of calibration, from runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.config import RunConfig
from bench.metrics.statistic import Conditions, Estimate, statistics
from bench.report.calibration import write_calibration
from bench.report.export import write_export
from bench.report.html.collect import collect
from bench.report.scores import _scores, write_scores
from bench.report.tables import read_rows, summarise
from bench.report.truth import (
    MOVED_NOTE,
    NO_C2ST,
    TruthRow,
    applies,
    figures_of,
    markdown,
    moves_of,
    notes_of,
    read_truth,
    right_text,
    ruled_out,
    scores_of,
    text_of,
    write_truth,
)
from bench.run.cell import Cell, CellKey
from bench.run.runner import run
from bench.run.store import RunDir

GAUSSIANS = [
    "methods=[oracle,posterior_mean]", "dataset=gaussians", "dataset.size=32", "operator.sigma=0.05", "scale=8",
    "limit=6", "n=3", "statistics=true", "metrics=[psnr,lr_psnr]",
]  # fmt: skip


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    from bench.config import compose, read_config

    out = tmp_path_factory.mktemp("truth") / "run"
    config = read_config(compose("run", [*GAUSSIANS, "device=cpu", f"out={out}"]))
    found, good = run(config)
    assert good
    return found


def test_tables_have_values_bounds_right_values_and_distances(directory: RunDir) -> None:
    rows = write_truth(directory)
    assert [r.applies for r in rows] == ["yes", "yes"]
    frame = pd.read_csv(directory.path / "truth.csv").set_index("method")
    assert list(frame.columns[:7]) == ["scale", "tau", "operator", "sigma", "n", "n_images", "right_values"]
    for name in ("energy", "apd_ratio_mse", "lr_residual", "rank_error", "mmse_gap"):
        assert {name, f"{name}_lo", f"{name}_hi", f"{name}_right", f"{name}_distance"} <= set(frame.columns)
    assert frame.loc["oracle", "lr_residual_right"] == pytest.approx(-20 * np.log10(0.05))
    assert frame.loc["posterior_mean", "sample_mean_gain_right"] == pytest.approx(10 * np.log10(6 / 4))
    assert frame.loc["posterior_mean", "apd_ratio_mse"] == 0
    assert np.isnan(frame.loc["posterior_mean", "rank_error"])
    assert frame.loc["oracle", "apd_ratio_mse"] == pytest.approx(1, abs=0.2)
    text = (directory.path / "truth.md").read_text()
    assert "right value" in text.splitlines()[2]
    assert "sigma 0.05" in text
    assert "n/a" in text
    assert (directory.path / "truth.tex").read_text().count("\\\\") == 4


def test_with_noise_nobody_is_better_in_lr_psnr(directory: RunDir) -> None:
    """The oracle is at the right value, 26.02 dB; the posterior mean is above, and no better for it."""
    means = summarise(*read_rows(directory)).set_index("method")
    assert means.loc["oracle", "lr_psnr"] == pytest.approx(26.02, abs=1)
    assert means.loc["posterior_mean", "lr_psnr"] > means.loc["oracle", "lr_psnr"]
    assert means["lr_psnr_right"].tolist() == pytest.approx([26.0206] * 2, abs=1e-4)
    content = collect([directory]).content
    (metric,) = [m for m in content["metrics"] if m["name"] == "lr_psnr"]
    assert (metric["better"], metric["head"]) == ("neither", "LR-PSNR (dB)")
    assert all("lr_psnr" not in row["ranks"] for row in content["rows"])
    assert any("psnr" in row["ranks"] for row in content["rows"])
    assert any("26.02 dB at sigma 0.05" in note for note in content["runs"][0]["notes"])
    _, document = write_export(directory)
    assert {m["name"]: m["better"] for m in json.loads(document.read_text())["metrics"]} == {
        "psnr": "higher",
        "lr_psnr": "neither",
    }


def test_scores_are_compared_image_by_image(directory: RunDir) -> None:
    rows = write_truth(directory)
    frame = pd.read_csv(directory.path / "score_differences.csv")
    assert set(frame["metric"]) == {"energy", "crps"}
    line = frame.iloc[0]
    one, other = (
        next(r for r in rows if (r.row.cell.key.label, str(r.row.cell.key.tau)) == (line[m], str(t)))
        for m, t in (("method", rows[0].row.cell.key.tau), ("other", rows[1].row.cell.key.tau))
    )
    expected = scores_of(one.row.cell, line["metric"]) - scores_of(other.row.cell, line["metric"])
    assert line["difference"] == pytest.approx(expected.mean())
    assert line["lo"] <= line["difference"] <= line["hi"]


def test_figures_are_drawn_for_methods_that_are_random(directory: RunDir) -> None:
    written = write_calibration(directory, read_truth(directory)[0])
    expected = ["tarp_x8.png", "tarp_x8.pdf", "tarp_x8.csv", "ranks_x8.png", "ranks_x8.pdf", "coverage_x8.png",
                "coverage_x8.pdf"]  # fmt: skip
    assert [p.name for p in written] == expected
    assert all(p.stat().st_size > 1000 for p in written if p.suffix != ".csv")
    curve = pd.read_csv(written[2])
    for _, points in curve.groupby("method"):
        assert points[["level", "share"]].iloc[[0, -1]].to_numpy().tolist() == [[0, 0], [1, 1]]
        assert (points["share"].diff().dropna() >= 0).all()


def test_the_other_table_is_as_it_was(directory: RunDir) -> None:
    columns = set(summarise(*read_rows(directory)).columns)
    assert {"psnr", "psnr_lo", "psnr_hi"} <= columns
    assert not {n for n in statistics.names() if n in columns}


def test_right_values_are_left_out_at_another_temperature(
    configure: Callable[..., RunConfig], directory: RunDir
) -> None:
    rows = read_truth(directory)[0]
    cell = rows[0].row.cell
    cell.key = CellKey(cell.key.label, cell.key.scale, 0.8)
    assert applies(cell) == "tau 0.8"


def test_right_values_of_other_images_are_a_range_and_the_images_are_counted(directory: RunDir) -> None:
    rows = read_truth(directory, ["energy"])[0]
    e = rows[0].estimates["energy"]
    other = replace(rows[1], estimates={"energy": replace(e, right=e.right + 1)})
    assert right_text([rows[0], rows[0]], "energy") == f"{e.right:.2f}"
    assert right_text([rows[0], other], "energy") == f"{e.right:.2f} to {e.right + 1:.2f}"
    fewer = replace(rows[1], row=replace(rows[1].row, mse=rows[1].row.mse.iloc[:4]))
    assert any("2 of 6 images" in note and fewer.row.heading in note for note in notes_of([rows[0], fewer]))
    assert not any("of 6 images" in note for note in notes_of(rows))


@pytest.mark.parametrize("sigma", [0.05, 1e-3, 1e-5])
def test_the_right_residual_is_that_of_exact_noise(sigma: float) -> None:
    statistic = statistics.get("lr_residual")()
    means = np.array([sigma**2, 1.0])
    conditions = Conditions(n=2, sigma=sigma)
    assert statistic.right(means, conditions) == pytest.approx(float(statistic.aggregate(means, conditions)))


def test_what_rounding_adds_to_a_residual_is_known_for_one_noise(directory: RunDir) -> None:
    row = read_truth(directory)[0][0]
    moved = replace(row, applies="rounded")
    other = replace(moved, conditions=replace(row.conditions, sigma=1e-3))
    assert "not measured" not in markdown([moved], ["lr_residual"])
    assert "not measured" in markdown([other], ["lr_residual"])
    assert "not measured" not in markdown([other], ["crps"])


def test_rounded_samples_are_said_to_be(configure: Callable[..., RunConfig]) -> None:
    metrics = "metrics=[stlpips_alex,apd_stlpips_alex]"
    found, _ = run(configure("statistics=true", "limit=2", "dataset.size=32", metrics))
    rows = write_truth(found)
    assert rows[0].applies == "rounded"
    lines = (found.path / "truth.md").read_text().splitlines()
    assert [line.split("|")[2].strip() for line in lines[2:6]] == [
        "right value", "rounding adds", "clipping adds", "Bicubic",
    ]  # fmt: skip
    assert MOVED_NOTE in lines
    heads = [c.strip() for c in lines[0].split("|")]
    for line in lines[3:5]:
        cells = dict(zip(heads, (c.strip() for c in line.split("|")), strict=True))
        assert cells["APD / error, MSE"].startswith(("+", "-"))
        assert cells["APD / error, ST-LPIPS"] == "not measured"  # of gaussians, which are no photographs
    assert not [n for n in rows[0].estimates if statistics.facts(n).needs == "posterior"]


def test_projected_samples_are_said_to_be(directory: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    row = read_truth(directory)[0][0]
    identity = row.row.cell.identity or {}
    assert applies(row.row.cell) == "yes"
    monkeypatch.setattr(Cell, "identity", property(lambda _: identity | {"settings": {"project": True}}))
    assert applies(row.row.cell) == "projected"
    projected = replace(row, applies="projected")
    assert moves_of([row]) == []
    assert moves_of([projected]) == ["projecting"]
    assert moves_of([replace(projected, conditions=Conditions(3, 0.0))]) == []  # without noise it moves nothing
    assert "fit y's noise" in notes_of([projected])[0]
    names = ["mmse_gap", "posterior_std_ratio", "sliced_wasserstein", "c2st"]

    def projecting(row: TruthRow) -> list[str]:
        line = next(text for text in markdown([row], names).splitlines() if "projecting adds" in text)
        return [c.strip() for c in line.split("|")][5:9]

    assert projecting(projected) == ["not measured"] * 4  # at x8: what was measured is of x4
    monkeypatch.setattr("bench.report.truth.MOVED_SCALE", 8)
    assert projecting(projected) == ["+1.588", "+0.000", "+0.000", "not measured"]
    assert projecting(replace(projected, conditions=Conditions(3, 0.01))) == ["not measured"] * 4


def test_scores_by_image_are_those_that_the_value_is_the_mean_of(directory: RunDir) -> None:
    row = read_truth(directory)[0][0]
    for name in ("energy", "crps"):
        scores = scores_of(row.row.cell, name)
        assert scores is not None
        assert scores.index.tolist() == list(range(6))
        assert scores.mean() == pytest.approx(row.estimates[name].value)
    assert scores_of(row.row.cell, "apd_ratio_mse") is None  # a ratio of means


def test_a_missing_scikit_learn_is_said(directory: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not [t for t in notes_of(read_truth(directory, ["c2st"])[0]) if t == NO_C2ST]
    monkeypatch.setattr("bench.report.truth.has_sklearn", lambda: False)
    assert NO_C2ST in notes_of(read_truth(directory)[0])


def test_marks_are_of_a_whole_line() -> None:
    facts = statistics.facts("energy")
    e = Estimate(8.0, 7.0, 9.0, 6.5, 1.5, p=0.01, p_joint=0.13)
    assert text_of(e, facts) == "8.00 (± 1.00) (✗)"
    assert text_of(replace(e, p_joint=0.04), facts) == "8.00 (± 1.00) ✗"
    assert text_of(replace(e, p_joint=np.nan), facts) == "8.00 (± 1.00) ✗"  # looked at alone
    assert text_of(replace(e, distance=0.5, p=0.4, p_joint=1.0), facts) == "8.00 (± 1.00)"


def test_joint_p_values_are_no_smaller(directory: RunDir) -> None:
    for row in read_truth(directory)[0]:
        known = [e for e in row.estimates.values() if not np.isnan(e.p)]
        assert len(known) > 5
        assert all(e.p <= e.p_joint <= 1 for e in known)
    assert ruled_out(read_truth(directory)[0][1].estimates["apd_ratio_mse"], statistics.facts("apd_ratio_mse"))


def test_perceptual_ratios_come_from_the_metrics(configure: Callable[..., RunConfig]) -> None:
    metrics = "metrics=[stlpips_alex,apd_stlpips_alex]"
    found, _ = run(configure("statistics=true", "limit=2", "dataset.size=32", metrics))
    values = figures_of(found.cells()[0], "apd_ratio_stlpips_alex")
    assert values is not None
    assert values.shape == (2, 2)
    assert (values[:, 0] > 0).all()
    assert (values[:, 1] == 0).all()  # bicubic is deterministic


def test_images_without_statistics_are_counted_and_named(configure: Callable[..., RunConfig]) -> None:
    words = [*GAUSSIANS[:5], "n=3", "metrics=[psnr,lr_psnr,seconds]", "timing.repeats=1"]
    run(configure(*words, "limit=4", "statistics=true"))
    found, _ = run(configure(*words, "limit=6"))
    rows = write_truth(found)
    frame = pd.read_csv(found.path / "truth.csv").set_index("method")
    assert frame.loc["oracle", ["n_images", "energy_n"]].tolist() == [6, 4]
    text = (found.path / "truth.md").read_text()
    assert "Left out of statistics" in text
    assert "Energy score of 2 of 6 images" in text
    assert "Intervals of fewer than 20 images are Student's" in text
    write_scores(found, rows)  # the images without are no reason to stop
    assert _scores(rows[0]).shape == (4, 2)
    export = json.loads(write_export(found)[1].read_text())
    energy = export["rows"][1]["statistics"]["apd_ratio_mse"]  # of the posterior mean: no interval
    assert (energy["n"], energy["distance"], energy["ruled_out"]) == (4, None, True)


def test_without_statistics_there_are_no_files(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    found, _ = run(configure("limit=2"))
    assert write_truth(found) == []
    assert not (found.path / "truth.csv").exists()


def test_statistics_are_added_to_rows_whose_samples_are_kept(configure: Callable[..., RunConfig]) -> None:
    run(configure("limit=2", "dataset.size=32"))
    found, good = run(configure("limit=2", "dataset.size=32", "statistics=true"))
    assert good
    cell = found.cells()[0]
    assert figures_of(cell, "energy") is not None
    assert cell.read("samples")["psnr"].notna().all()


def test_rows_without_samples_go_without_statistics(configure: Callable[..., RunConfig]) -> None:
    run(configure("limit=2", "dataset.size=32", "save_samples=none"))
    found, good = run(configure("limit=3", "dataset.size=32", "save_samples=none", "statistics=true"))
    assert good
    values = figures_of(found.cells()[0], "energy")
    assert values is not None
    assert len(values) == 1
