"""`python -m bench measure` and `export`: metrics that come later, and a run as files for other tools."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from bench.cli import main
from bench.config import MeasureConfig, RunConfig
from bench.errors import BenchError
from bench.launch.settings import LaunchConfig
from bench.report.export import write_export
from bench.report.schema import COLUMNS, VERSION, Export, json_schema
from bench.report.tables import read_rows, summarise
from bench.run.cell import CellKey
from bench.run.measure import measure
from bench.run.runner import run
from bench.run.store import RunDir

ALL = "metrics=[psnr,ssim,lr_psnr,apd_mse,diversity_stlpips_alex]"
KEY = CellKey("bicubic", 8, None)


def later(path: Path, *metrics: str, **settings: object) -> list[str]:
    return measure(MeasureConfig(run=path, metrics=metrics or None, device="cpu", **settings))[1]


def columns(directory: RunDir, key: CellKey, kind: str) -> pd.DataFrame:
    frame = directory.cell(key).read(kind)
    return frame[sorted(frame.columns)]


def test_metrics_from_stored_samples_are_those_of_a_run_that_had_them(
    configure: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # rows=auto is measured for each directory, and another choice may round a pixel otherwise
    settings = ["methods=[bicubic,cvdvae]", "methods.cvdvae.compute.rows=3", "n=3", "limit=2"]
    whole, _ = run(configure(*settings, ALL, "statistics=true", f"out={tmp_path / 'whole'}"))
    part, _ = run(configure(*settings, "metrics=[psnr]", f"out={tmp_path / 'part'}"))
    monkeypatch.setattr("bench.run.loaded.prepared_method", None)  # no method is needed
    assert later(part.path, *ALL.removeprefix("metrics=[").removesuffix("]").split(",")) == []
    for key in (KEY, CellKey("cvdvae", 8, 0.8)):
        for kind in ("samples", "images"):
            pd.testing.assert_frame_equal(columns(part, key, kind), columns(whole, key, kind))
    names = [n for n in read_rows(whole)[1] if n != "seconds"]
    assert read_rows(part)[1] == names
    pd.testing.assert_frame_equal(summarise(*read_rows(part)), summarise(*read_rows(whole)))
    assert later(part.path, "ssim") == []  # nothing is left to do
    assert part.config["statistics"] is True


def test_two_workers_give_the_rows_of_one_process_bit_for_bit(
    configure: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    settings = ["methods=[bicubic,cvdvae]", "n=2", "limit=3", "batch=2", "metrics=[psnr]", "statistics=false"]
    one, _ = run(configure(*settings, f"out={tmp_path / 'one'}"))
    one.cell(KEY).samples.of([1])[0].write_bytes(b"no picture")
    many = RunDir(Path(shutil.copytree(one.path, tmp_path / "many")))
    names = ("ssim", "lr_psnr", "apd_mse")
    threads = torch.get_num_threads()
    told = later(one.path, *names, launch=LaunchConfig(cpus=1))
    also_told = later(many.path, *names, launch=LaunchConfig(workers=2, cpus=1))
    assert [t.replace(str(many.path), str(one.path)) for t in also_told] == told
    assert len(told) == 1
    assert "000001_0.png is damaged" in told[0]
    assert torch.get_num_threads() == threads
    for key in (KEY, CellKey("cvdvae", 8, 0.8)):
        for kind in ("samples", "images"):
            pd.testing.assert_frame_equal(many.cell(key).read(kind), one.cell(key).read(kind), check_exact=True)
    assert len(one.cell(KEY).read("images").dropna(subset="energy")) == 2  # the statistics too
    last = [json.loads((d.path / "environment.json").read_text())[-1] for d in (one, many)]
    assert [e["launch"] for e in last] == [
        {"name": "local", "workers": None, "threads": 1}, {"name": "local", "workers": 2, "threads": 1}
    ]  # fmt: skip
    assert {w["threads"] for w in last[1]["workers"]} == {1}
    assert not (many.path / "launch").exists()


def test_workers_are_asked_for_on_the_command_line(
    configure: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    directory, _ = run(configure("limit=1"))
    words = ["measure", str(directory.path), "metrics=[ssim]", "device=cpu"]
    assert main([*words, "launch.workers=1000", "launch.cpus=1"]) == 1
    assert "1000 workers of 1 threads need 1000 cores, this machine has" in capfd.readouterr().err
    assert main([*words, "launch=slurm"]) == 1
    assert "launch=slurm needs launch.workers=N" in capfd.readouterr().err


def test_what_is_not_stored_is_told_and_the_rest_is_done(
    configure: Callable[..., RunConfig], capfd: pytest.CaptureFixture[str]
) -> None:
    directory, _ = run(configure("save_samples=all"))
    cell = directory.cell(KEY)
    cell.samples.of([1])[0].unlink()
    assert main(["measure", str(directory.path), "metrics=[ssim]", "device=cpu", "statistics=false"]) == 1
    said = capfd.readouterr()
    assert "SSIM" in said.out
    assert (
        f"bench: {cell.folder}: the samples of 1 of 3 images are not stored; the command of the run with "
        "save_samples=all resample=true draws the same ones again and keeps them.\n" in said.err
    )
    assert cell.read("samples")["ssim"].notna().tolist() == [True, False, True]
    assert cell.read("samples")["psnr"].notna().all()
    run(configure("save_samples=all", "resample=true", "metrics=[psnr,ssim]"))
    assert cell.read("samples")["ssim"].notna().all()


def test_a_damaged_sample_costs_its_image_alone(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure())
    cell = directory.cell(KEY)
    cell.samples.of([2])[0].write_bytes(b"no picture")
    (sentence,) = later(directory.path, "ssim", statistics=False)
    assert "000002_0.png is damaged" in sentence
    assert cell.read("samples")["ssim"].notna().tolist() == [True, True, False]


def test_a_run_without_samples_gets_no_empty_columns(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("save_samples=none"))
    (sentence,) = later(directory.path, "ssim", statistics=False)
    assert "the samples of 3 of 3 images are not stored" in sentence
    assert directory.config["metrics"] == ["psnr"]


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        ("seconds", "seconds is measured while a method samples, not from stored samples"),
        ("lr_psnr_exact", "which are not stored: add it to the command of the run, with resample=true"),
        ("psnrr", "There is no metric 'psnrr'"),
    ],
)
def test_what_stored_samples_cannot_give_is_refused(
    metric: str, sentence: str, configure: Callable[..., RunConfig]
) -> None:
    directory, _ = run(configure("limit=1"))
    with pytest.raises(BenchError, match=sentence):
        later(directory.path, metric)


def test_an_image_that_was_replaced_is_told(configure: Callable[..., RunConfig], image_folder: Path) -> None:
    words = ["dataset=folder", f"dataset.path={image_folder}", "dataset.size=64"]
    directory, _ = run(configure(*words, "images=1:3", "limit=null"))
    (image_folder / "1.png").write_bytes((image_folder / "0.png").read_bytes())
    assert later(directory.path, "ssim") == [
        "bicubic_x8: 1.png: the image is no longer what it was; stale=recompute draws it anew"
    ]
    assert directory.cell(KEY).read("samples")["ssim"].notna().tolist() == [False, True]


def test_the_export_has_every_value(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    words = ["methods=[bicubic,cvdvae]", "n=2", "limit=2", "metrics=[psnr,apd_mse,seconds]", "statistics=true"]
    directory, _ = run(configure(*words))
    parquet, document = write_export(directory, tmp_path / "elsewhere")
    table = pq.read_table(parquet)
    assert {f.name: str(f.type) for f in table.schema} == COLUMNS
    assert table.schema.metadata[b"schema_version"].decode() == VERSION
    assert table.schema.metadata[b"export.json"].decode() + "\n" == document.read_text()
    frame = table.to_pandas()
    cell = directory.cell(CellKey("cvdvae", 8, 0.8))
    of_method = frame[frame["method"] == "cvdvae"].set_index("metric")
    assert of_method.loc["psnr", "value"].tolist() == cell.read("samples")["psnr"].tolist()
    assert of_method.loc["psnr", "sample"].tolist() == [0, 1, 0, 1]
    assert of_method.loc["psnr", "kind"].eq("sample").all()
    assert of_method.loc["apd_mse", "value"].tolist() == cell.read("images")["apd_mse"].tolist()
    assert of_method.loc["apd_mse", "content"].tolist() == cell.read("images")["content"].tolist()
    energy = of_method.loc["energy"].pivot(index="index", columns="component", values="value").to_numpy()
    np.testing.assert_array_equal(energy, np.stack(cell.read("images")["energy"]))  # NaN where not defined
    assert frame[frame["metric"] == "seconds"]["index"].isna().all()
    export = Export.model_validate_json(document.read_text(), strict=True)
    means = summarise(*read_rows(directory)).set_index("method")
    for row in export.rows:
        assert row.metrics["psnr"].mean == means.loc[row.label, "psnr"]
        assert row.metrics["apd_mse"].mean * 1e4 == pytest.approx(means.loc[row.label, "apd_mse_e4"])
        assert row.images == 2
    assert [(m.name, m.better, m.factor) for m in export.metrics[:2]] == [
        ("psnr", "higher", 1),
        ("apd_mse", "neither", 1e4),
    ]
    assert set(export.rows[1].weights) == {"prior", "encoder"}
    assert "NaN" not in document.read_text()


def test_the_schema_in_the_tree_is_that_of_the_code() -> None:
    path = Path(__file__).parents[3] / "docs" / "schema" / "export.json"
    assert json.loads(path.read_text()) == json_schema()


def test_nothing_to_export_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("methods: {bicubic: {}}\nmetrics: [psnr]\n")
    assert main(["export", str(tmp_path)]) == 1
    assert "Nothing has been measured in" in capfd.readouterr().err


def test_nothing_to_measure_is_told(configure: Callable[..., RunConfig], capfd: pytest.CaptureFixture[str]) -> None:
    directory, _ = run(configure("methods=[bicubic]", "metrics=[psnr]", "limit=1"))
    shutil.rmtree(directory.path / "cells")
    assert main(["measure", str(directory.path), "metrics=[ssim]", "device=cpu"]) == 1
    assert "Nothing has been measured in" in capfd.readouterr().err
