"""Two runs side by side: what is matched, what is refused, and the figures."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test

from bench.cli import main
from bench.errors import BenchError
from bench.files import write_atomic, write_json
from bench.metrics import metric_facts
from bench.report.compare import (
    COLUMNS,
    compare_runs,
    comparison_text,
    judged,
    last_digit,
    pair_runs,
    table_of,
    worse_text,
)
from bench.run.cell import CellKey
from bench.run.store import RunDir

METRICS = ["psnr", "apd_mse", "seconds"]
PSNR = {"a": 20.0, "b": 22.0, "c": 27.0, "d": 21.0, "e": 25.0}


def make(
    path: Path, psnr: dict[str, float] = PSNR, scale: int = 8, tau: float | None = 0.8, **identity: object
) -> RunDir:
    """A run of one method with two samples of each image, whose PSNRs are 1 dB around that of the image."""
    run = RunDir(path)
    asked = f"scale: [{scale}]\ntau: [{tau or 1.0}]\nimages: null\nlimit: null\ndataset: {{name: folder}}\n"
    write_atomic(path / "config.yaml", f"methods: {{good: {{}}}}\nmetrics: {METRICS}\n{asked}")
    cell = run.cell(CellKey("good", scale, tau))
    rows = pd.DataFrame({"index": range(len(psnr)), "image": list(psnr)})
    samples = rows.loc[rows.index.repeat(2)].reset_index(drop=True)
    samples = samples.assign(sample=[0, 1] * len(psnr), metrics="apd_mse psnr")
    samples["psnr"] = np.repeat(list(psnr.values()), 2) + [-1, 1] * len(psnr)
    content = [f"pixels of {name}" for name in psnr]
    cell.add(0, samples, rows.assign(content=content, apd_mse=[0.001 * (i + 1) for i in range(len(psnr))]))
    shared = {"operator": {"name": "bicubic", "sigma": 0.0}, "dataset": {"name": "folder", "path": str(path)}}
    shared |= {"n": 2, "seed": 0, "quantise": True}
    write_json(cell.folder / "cell.json", {"version": 1, "scale": scale, "tau": tau, **shared, **identity})
    write_json(cell.folder / "facts.json", {"title": "Good", "method": "good", "evaluations": 1})
    cell.set_timing({"seconds": [0.5, 0.7]})
    return run


def test_differences_are_those_of_the_same_images(tmp_path: Path) -> None:
    second = {"e": 24.0, "a": 19.5, "c": 26.0, "b": 22.5, "new": 50.0, "d": 20.9}  # another order, and another image
    frame = compare_runs(make(tmp_path / "first"), make(tmp_path / "second", second))
    assert tuple(frame.columns) == COLUMNS
    assert frame["metric"].tolist() == ["psnr", "apd_mse_e4", "seconds"]
    assert frame["name"].tolist() == METRICS
    psnr = frame.iloc[0]
    by_image = np.array([second[i] - PSNR[i] for i in PSNR])
    assert psnr["n_images"] == 5
    assert psnr["first"] == pytest.approx(23.0)
    assert psnr["difference"] == pytest.approx(by_image.mean())
    assert psnr["lo"] < by_image.mean() < psnr["hi"]
    reference = permutation_test((by_image,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert psnr["p"] == pytest.approx(reference.pvalue)
    assert frame["p_holm"][0] == pytest.approx(min(1, 2 * psnr["p"]))  # of two comparisons: times have no pairs
    times = frame.iloc[2]
    assert times["difference"] == 0
    assert np.isnan([times["lo"], times["p"], times["p_holm"]]).all()


def test_equal_runs_have_no_difference(tmp_path: Path) -> None:
    frame = compare_runs(make(tmp_path / "first"), make(tmp_path / "second"))
    assert (frame[["difference"]] == 0).all(axis=None)
    assert (frame.loc[:1, ["lo", "hi"]] == 0).all(axis=None)
    assert (frame.loc[:1, "p"] == 1).all()


def test_values_by_image_are_there_for_a_report(tmp_path: Path) -> None:
    pairs = pair_runs(make(tmp_path / "first"), make(tmp_path / "second", {"b": 25.0, "a": 20.0}))
    (pair,) = pairs.rows
    assert pair.values("psnr")["image"].tolist() == ["a", "b"]
    assert pair.values("psnr")["difference"].tolist() == pytest.approx([0, 3])
    assert pair.values("apd_mse")["first"].tolist() == pytest.approx([10, 20])  # as tables have it, x 1e4
    assert pair.values("seconds").empty
    assert pairs.notes == ["Good x8, tau 0.8: 3 images are in one of the runs only, 2 in both."]


def test_an_image_of_another_content_is_not_the_same(tmp_path: Path) -> None:
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    cell = second.cell(CellKey("good", 8, 0.8))
    frame = cell.read("images")
    frame.loc[0, "content"] = "other pixels"
    frame.to_parquet(cell.parts / "000000.images.parquet")
    assert pair_runs(first, second).rows[0].ids["image"].tolist() == ["b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: make(p, dataset={"name": "synthfaces"}), "dataset.name was folder, is synthfaces"),
        (lambda p: make(p, operator={"name": "average", "sigma": 0.1}), "operator.name was bicubic, is average; oper"),
        (lambda p: make(p, seed=1), "cannot be compared: seed was 0, is 1: run one of them again"),
        (lambda p: make(p, n=3), "n was 2, is 3"),
        (lambda p: make(p, scale=4), "the one has good_x8_tau0.8, the other good_x4_tau0.8; no method is in both"),
        (lambda p: make(p, tau=1.0), "no method is in both at the same scale and temperature"),
        (lambda p: make(p, {"z": 1.0}), "no image is in both with the same content"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(
    change: Callable[[Path], RunDir], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchError, match=re.escape(sentence)):
        pair_runs(make(tmp_path / "first"), change(tmp_path / "second"))


def test_a_run_without_rows_and_an_unknown_metric_are_refused(tmp_path: Path) -> None:
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    with pytest.raises(BenchError, match="The metric 'psnrr' is not in both runs"):
        compare_runs(first, second, ["psnrr"])
    shutil.rmtree(second.path / "cells")
    with pytest.raises(BenchError, match="has no rows to compare"):
        compare_runs(first, second)


@pytest.mark.parametrize(
    ("shift", "tolerance", "worse"),
    [
        (0.0, {}, False),
        (-0.009, {}, False),  # less than tables show
        (-0.02, {}, True),
        (0.5, {}, False),  # better
        (-0.02, {"psnr": 0.1}, False),
        (-0.2, {"psnr": 0.1}, True),
    ],
)
def test_a_figure_is_worse_beyond_its_tolerance(
    shift: float, tolerance: dict[str, float], worse: bool, tmp_path: Path
) -> None:
    second = make(tmp_path / "second", {k: v + shift for k, v in PSNR.items()})
    second.cell(CellKey("good", 8, 0.8)).set_timing(
        {"seconds": [5.0]}
    )  # ten times slower: judged where it is asked for
    frame = judged(compare_runs(make(tmp_path / "first"), second), tolerance)
    assert frame["worse"].tolist() == [worse, False, False]
    assert judged(frame, {"seconds": 0.5})["worse"][2]
    assert not judged(frame, {"seconds": 5})["worse"][2]


def test_a_value_that_is_lost_is_worse(tmp_path: Path) -> None:
    frame = judged(compare_runs(make(tmp_path / "first"), make(tmp_path / "second", PSNR | {"b": np.nan})), {"psnr": 9})
    assert frame.loc[0, ["lost", "n_images", "worse"]].tolist() == [1, 4, True]


@pytest.mark.parametrize(
    ("asked", "lost"),
    [("limit: null", 1), ("limit: 3", 1), ("images: [1, 5]", 1), ("limit: 1", 0), ("path: null", 0), ("failures", 1)],
)
def test_an_image_that_fails_in_the_second_run_is_lost(asked: str, lost: int, tmp_path: Path) -> None:
    second = make(tmp_path / "second")
    cell = second.cell(CellKey("good", 8, 0.8))
    for kind in ("samples", "images"):
        frame = cell.read(kind)
        frame[frame["image"] != "b"].to_parquet(cell.parts / f"000000.{kind}.parquet")
    key, path = asked.partition(":")[0], second.path / "config.yaml"
    path.write_text(path.read_text().replace(f"{key}: null", asked))
    if key in ("path", "failures"):  # a folder elsewhere may have fewer images, and tells which of its own failed
        path.write_text(path.read_text().replace("name: folder", "name: folder, path: elsewhere"))
    if key == "failures":
        second.set_failures([{"what": "good_x8_tau0.8", "image": "b", "reason": "no such luck."}])
    pairs = pair_runs(make(tmp_path / "first"), second)
    frame = judged(table_of(pairs), {})
    assert frame["lost"].tolist() == [lost, lost, 0]
    assert bool(worse_text(frame, pairs.gone)) == bool(lost)


def test_a_row_that_fails_in_the_second_run_is_lost(tmp_path: Path) -> None:
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    shutil.copytree(first.cell(CellKey("good", 8, 0.8)).folder, first.cell(CellKey("good", 4, 0.8)).folder)
    pairs = pair_runs(first, second)
    assert pairs.gone == []  # the second run was not asked for it
    path = second.path / "config.yaml"
    path.write_text(path.read_text().replace("scale: [8]", "scale: [4, 8]"))
    pairs = pair_runs(first, second)
    assert pairs.gone == ["good_x4_tau0.8"]
    assert (
        worse_text(judged(table_of(pairs), {}), pairs.gone) == "Asked for, and not in the second run: good_x4_tau0.8."
    )


@pytest.mark.parametrize(("tolerance", "worse"), [({}, False), ({"apd_mse": 4}, True), ({"apd_mse": 6}, False)])
@pytest.mark.parametrize("change", [-5.0, 5.0])
def test_what_has_no_better_direction_is_judged_in_both_or_not_at_all(
    change: float, tolerance: dict[str, float], worse: bool, tmp_path: Path
) -> None:
    frame = compare_runs(make(tmp_path / "first"), make(tmp_path / "second"), ["apd_mse"])
    assert judged(frame.assign(difference=change), tolerance)["worse"].tolist() == [worse]
    assert judged(frame.assign(lost=1), tolerance)["worse"].all()


@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_with_noise_lr_psnr_is_not_judged_and_its_right_value_is_said(sigma: float, tmp_path: Path) -> None:
    runs = []
    for name, level in (("first", 30.0), ("second", 26.0)):
        found = make(tmp_path / name, operator={"name": "bicubic", "sigma": sigma})
        write_atomic(found.path / "config.yaml", "methods: {good: {}}\nmetrics: [psnr, lr_psnr]\n")
        cell = found.cell(CellKey("good", 8, 0.8))
        cell.compact()
        cell.read("samples").assign(lr_psnr=level).to_parquet(cell.folder / "samples.parquet", index=False)
        runs.append(found)
    pairs = pair_runs(runs[0], runs[1])
    frame = judged(table_of(pairs), {})
    assert frame["better"].tolist() == ["higher", "neither" if sigma else "higher"]
    assert frame["difference"].tolist() == pytest.approx([0, -4])
    assert frame["worse"].tolist() == [False, not sigma]
    assert ("LR-PSNR ↑ (dB)" in comparison_text(frame)) == (not sigma)
    assert any("26.02 dB at sigma 0.05" in note for note in pairs.notes) == bool(sigma)
    assert judged(frame, {"lr_psnr": 1.0})["worse"][1]  # whoever gives a tolerance is told of any change


def test_tolerances_are_in_the_digits_of_tables() -> None:
    assert last_digit(metric_facts("psnr")) == pytest.approx(0.01)
    assert last_digit(metric_facts("ssim")) == pytest.approx(0.001)


def test_the_command_tells_by_its_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, second = str(tmp_path / "first run"), str(tmp_path / "second")
    make(Path(first))
    make(Path(second), {k: v - 0.5 for k, v in PSNR.items()})
    assert main(["compare", first, second]) == 1
    said = capfd.readouterr()
    assert re.search(r"x8 +good +0.8 +PSNR.* 23.00 +22.50 +-0.50 \[-0.50, -0.50\] +0.125 +0.01 +worse", said.out)
    assert said.err.startswith("bench: 1 figure is worse than its tolerance: psnr of good_x8_tau0.8")
    assert main(["compare", first, second, "tolerance={psnr: 0.6}"]) == 0
    assert main(["compare", first, second, "metrics=[apd_mse]"]) == 0
    capfd.readouterr()
    assert main(["compare", first, second, "tolerance={psn: 0.6}"]) == 1
    assert "tolerance.psn is of no metric that is compared. Did you mean 'psnr'?" in capfd.readouterr().err
    assert main(["compare", first]) == 1
    assert "compare takes two run directories" in capfd.readouterr().err


def test_times_are_the_medians_of_tables(tmp_path: Path) -> None:
    """One slow call among many is none of the method's."""
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    for run, slow in ((first, 0.5), (second, 10.0)):
        run.cell(CellKey("good", 8, 0.8)).set_timing({"seconds": [0.5, 0.5, slow]})
    times = compare_runs(first, second, ["seconds"]).iloc[0]
    assert (times["first"], times["second"], times["difference"]) == (0.5, 0.5, 0.0)
