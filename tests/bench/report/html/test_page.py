"""What is in the page, without a browser."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.cli import main
from bench.errors import BenchError
from bench.report.html import page
from bench.report.html.collect import Collected, run_names
from bench.report.html.pictures import COLUMNS, _data_uri, pack
from bench.report.tables import read_rows
from bench.run.store import RunDir

MOST = 15_000_000
"""Bytes that a report of 40 images x 5 methods may have."""


def data_of(path: Path, name: str = "data") -> dict:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(found[1])


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def test_run_writes_a_report_that_needs_nothing_else(measured: RunDir) -> None:
    text = re.sub(r"(<script.*?>).*?</script>", r"\1", (measured.path / "report.html").read_text(), flags=re.DOTALL)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", text)
    assert "default-src 'none'" in text
    assert not (measured.path / "report_pictures").exists()


def test_figures_are_those_of_the_tables(measured: RunDir) -> None:
    rows = data_of(measured.path / "report.html")["rows"]
    table = pd.read_csv(measured.path / "table.csv")
    assert len(rows) == len(table) == 4
    for row, line in zip(rows, table.to_dict("records"), strict=True):
        assert row["means"]["psnr"][:3] == pytest.approx([line["psnr"], line["psnr_lo"], line["psnr_hi"]], rel=1e-6)
        assert row["means"]["apd_mse"][0] == pytest.approx(line["apd_mse_e4"], rel=1e-6)
        assert np.mean(row["values"]["psnr"]) == pytest.approx(line["psnr"], rel=1e-6)


def test_differences_are_those_of_the_tables(measured: RunDir) -> None:
    data = data_of(measured.path / "report.html")
    table = pd.read_csv(measured.path / "differences.csv").set_index(["scale", "metric"])
    assert len(data["differences"]) == 2
    for pair in data["differences"]:
        line = table.loc[(data["rows"][pair["a"]]["scale"], "psnr")]
        assert pair["metrics"]["psnr"] == pytest.approx([line.difference, line.lo, line.hi, 3], rel=1e-6)


def test_statistics_stand_beside_their_right_values(measured: RunDir) -> None:
    data = data_of(measured.path / "report.html")
    table = pd.read_csv(measured.path / "truth.csv")
    value = next(r for r in data["rows"] if r["scale"] == 8 and r["title"] == "CVDVAE")["truth"]["apd_ratio_mse"][
        "value"
    ]
    assert value == pytest.approx(table[(table.scale == 8) & (table.method == "cvdvae")].apd_ratio_mse.item(), rel=1e-6)
    assert {s["name"] for s in data["statistics"]} >= {"apd_ratio_mse", "coverage50", "tarp_error"}


def test_curves_end_where_they_must(measured: RunDir) -> None:
    bicubic, cvdvae = data_of(measured.path / "report.html")["curves"][:2]
    assert bicubic == {}
    assert cvdvae["tarp"][0] == [0, 0]
    assert cvdvae["tarp"][-1] == cvdvae["coverage"][-1] == [1, 1]
    assert np.mean(cvdvae["ranks"]) == pytest.approx(1)


def test_pictures_are_without_loss(measured: RunDir) -> None:
    data, embedded = (data_of(measured.path / "report.html", name) for name in ("data", "embedded"))
    number = next(i for i, r in enumerate(data["rows"]) if r["scale"] == 8 and r["title"] == "CVDVAE")
    key, count = data["pictures"]["sheets"][number]["1"]
    cell = measured.path / "cells" / "cvdvae_x8_tau0.8" / "samples"
    samples = [np.asarray(Image.open(cell / f"000001_{j}.png").convert("RGB")) for j in range(2)]
    assert count == 2
    assert np.array_equal(pixels(embedded[key]), np.concatenate(samples, 1))
    truth = np.asarray(Image.open(measured.image_folder(8, 1) / "hr.png").convert("RGB"))
    assert np.array_equal(pixels(embedded[data["pictures"]["truth"][0]["8"]["1"]]), truth)


def test_downloads_are_the_tables(measured: RunDir) -> None:
    downloads = data_of(measured.path / "report.html")["runs"][0]["downloads"]
    for name in ("table.csv", "table.tex", "table.md"):
        own = base64.b64decode(downloads[name]).decode()
        assert own.splitlines()[-1] in (measured.path / name).read_text()
    frame = pd.read_parquet(io.BytesIO(base64.b64decode(downloads["samples.parquet"])))
    assert len(frame) == 2 * 3 * (1 + 2)
    assert frame.psnr.notna().all()


def test_forty_images_of_five_methods_fit(measured: RunDir) -> None:
    text = (measured.path / "report.html").read_text()
    data, embedded = (data_of(measured.path / "report.html", name) for name in ("data", "embedded"))
    sheets = [
        key
        for row, of in zip(data["rows"], data["pictures"]["sheets"], strict=True)
        for key, n in of.values()
        if n == 2
    ]
    sample = np.mean([len(embedded[key]) / 2 for key in sheets])
    others = len(text) - sum(map(len, embedded.values()))
    assert others + 40 * (5 * 5 + 2) * sample < MOST


def test_many_pictures_go_to_a_folder(collected: Collected, tmp_path: Path) -> None:
    folder = tmp_path / "report_pictures"
    packed = pack(collected, folder, most=100_000)
    assert packed.files == [0, 1, 2]
    assert packed.embedded == {}
    assert len(packed.thumbnails) == 3
    script = (folder / "000001.js").read_text()
    uris = json.loads(script.removeprefix("addPictures(").removesuffix(");\n"))
    key, _ = packed.index["sheets"][1][1]
    assert pixels(uris[key]).shape == (64, 128, 3)
    assert pack(collected, folder).files == []
    assert not folder.exists()  # those of a former report are gone


def test_a_sheet_has_lines(collected: Collected, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bench.run.samples.SampleFiles.count", lambda self, index: COLUMNS + 2)
    monkeypatch.setattr(
        "bench.report.html.pictures.sample_picture", lambda cell, index, j: np.full((2, 3, 3), j, np.uint8)
    )
    packed = pack(collected, tmp_path / "p")
    key, count = packed.index["sheets"][0][0]
    sheet = pixels(packed.embedded[key])
    assert count == COLUMNS + 2
    assert sheet.shape == (4, 3 * COLUMNS, 3)
    assert [sheet[2, 3 * k, 0] for k in range(3)] == [COLUMNS, COLUMNS + 1, 0]


def test_names_are_text(hostile: RunDir, script: str) -> None:
    text = (hostile.path / "report.html").read_text()
    assert "<img src=x" not in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert data_of(hostile.path / "report.html")["images"][0]["name"] == script + "0"


def test_scripts_write_text_only() -> None:
    for path in (Path(page.__file__).parent / "static").glob("*.js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", path.read_text()), path


def test_every_script_has_its_hash() -> None:
    for text in ("let a = '</script><!-- b';", "1;\n"):
        inside = page.inline_script(text)
        assert "</script" not in inside
        assert "<!--" not in inside
        assert page.script_hash(inside).startswith("sha256-")


def test_runs_side_by_side(both: Path) -> None:
    data = data_of(both)
    assert [run["name"] for run in data["runs"]] == ["first", "second"]
    across = [p for p in data["differences"] if len({data["rows"][p[k]]["run"] for k in "ab"}) == 2]
    assert len(across) == 2  # bicubic and CVDVAE at x8
    bicubic, cvdvae = (p["metrics"]["psnr"] for p in across)
    assert bicubic == [0, 0, 0, 3]
    a, b = (
        next(r for r in read_rows(RunDir(both.with_name(n)))[0] if r.heading == "CVDVAE x8, tau 0.8")
        for n in ("first", "second")
    )
    assert cvdvae[0] == pytest.approx((a.values["psnr"] - b.values["psnr"]).mean(), rel=1e-6)
    assert len(data["images"]) == 3  # the same in both


def test_names_of_runs_tell_them_apart(tmp_path: Path) -> None:
    runs = [RunDir(tmp_path / a / "run") for a in "xy"]
    assert run_names(runs) == ["x/run", "y/run"]
    assert run_names(runs[:1]) == ["run"]


def test_a_run_without_pictures(measured: RunDir, tmp_path: Path) -> None:
    run = RunDir(shutil.copytree(measured.path, tmp_path / "run"))
    for folder in [run.path / "images", *run.path.glob("cells/*/samples")]:
        shutil.rmtree(folder)
    assert main(["report", str(run.path), "--out", str(tmp_path / "page.html")]) == 0
    assert data_of(tmp_path / "page.html")["pictures"]["sheets"] == [{}, {}, {}, {}]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["/nowhere"], "/nowhere is no run directory"),
        (["RUN", "/nowhere"], "/nowhere is no run directory"),
        (["RUN", "--out", "page.txt"], "let it end in .html"),
    ],
)
def test_mistakes_are_one_sentence(
    measured: RunDir, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *(str(measured.path) if w == "RUN" else w for w in words)]) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_other_commands_do_not_load_what_the_page_needs() -> None:
    code = (
        "import sys; from bench.cli import main; main(['metrics']); print({'jinja2', 'vl_convert'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_without_address_space_for_its_script_a_report_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    page.plotting.cache_clear()
    try:
        monkeypatch.setattr("bench.report.html.page.sys.executable", "false")
        with pytest.raises(BenchError, match=r"report.html was not written: vl_convert, .* ended with 1"):
            page.plotting()
    finally:
        page.plotting.cache_clear()


def test_pillow_without_webp_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where its library found no address space."""
    Image.init()
    monkeypatch.delitem(Image.SAVE, "WEBP", raising=False)
    monkeypatch.setattr(Image, "init", lambda: False)
    monkeypatch.setattr(Image, "preinit", lambda: None)
    with pytest.raises(BenchError, match="Pillow cannot write WebP"):
        _data_uri(np.zeros((4, 4, 3), np.uint8), lossless=True)
