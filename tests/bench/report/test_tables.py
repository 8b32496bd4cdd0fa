import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.config import RunConfig
from bench.files import write_atomic, write_json
from bench.metrics import metric_facts
from bench.paper.tables import (
    DIRECTIONS,
    Entry,
    beside_paper,
    impossible_apd,
    paper_metrics,
    published,
    write_paper,
    write_paper_table,
)
from bench.report.notes import bounds, impossible, largest_apd_ratio
from bench.report.tables import (
    column_head,
    differences,
    directions,
    escape,
    escape_markdown,
    interval_text,
    ranked_lines,
    read_rows,
    summarise,
    write_tables,
)
from bench.run.cell import CellKey
from bench.run.runner import run
from bench.run.store import RunDir

METRICS = ["psnr", "lpips_alex", "apd_mse", "seconds"]


@pytest.fixture
def directory(tmp_path: Path) -> RunDir:
    """A run directory with three methods, four images and two samples, made of known figures."""
    run_dir = RunDir(tmp_path)
    write_atomic(tmp_path / "config.yaml", f"methods: {{bicubic: {{}}, cvdvae: {{}}, odd: {{}}}}\nmetrics: {METRICS}\n")
    for label, tau, level in (
        ("bicubic", None, 20.0),
        ("cvdvae", 0.1, 26.0),
        ("cvdvae", 0.8, 25.0),
        ("odd", None, 26.0),
    ):
        n = 1 if label == "bicubic" else 2
        cell = run_dir.cell(CellKey(label, 8, tau))
        samples = pd.DataFrame({"index": np.repeat(range(4), n), "sample": list(range(n)) * 4, "image": "x"})
        samples["metrics"] = "apd_mse lpips_alex psnr"
        samples = samples.assign(method=label, scale=8, tau=np.nan if tau is None else tau)
        samples["psnr"] = level + samples["index"] + samples["sample"]
        samples["lpips_alex"] = 0.3
        images = pd.DataFrame({"index": range(4), "image": "x", "apd_mse": 0.002 * (n - 1)})
        cell.add(0, samples, images)
        operator = {"name": "bicubic", "sigma": 0.0}
        dataset = {"name": "ffhq256"}
        identity = {"version": 1, "scale": 8, "tau": tau, "operator": operator, "dataset": dataset}
        write_json(cell.folder / "cell.json", identity)
        facts = {"title": f"The {label}", "method": label, "evaluations": 0 if label == "bicubic" else 1}
        write_json(cell.folder / "facts.json", facts)
        cell.set_timing({"seconds": [0.5, 0.7]})
    return run_dir


def test_means_are_over_samples_then_images(directory: RunDir) -> None:
    frame = summarise(*read_rows(directory))
    assert frame["method"].tolist() == ["bicubic", "cvdvae", "cvdvae", "odd"]
    assert frame["psnr"].tolist() == [21.5, 28.0, 27.0, 28.0]
    assert frame["apd_mse_e4"].tolist() == pytest.approx([0, 20, 20, 20])
    assert frame["seconds"].tolist() == pytest.approx([0.6] * 4)
    assert (frame["n_images"] == 4).all()
    assert frame["psnr_lo"].iloc[0] < 21.5 < frame["psnr_hi"].iloc[0]


def test_times_are_medians_with_their_range(directory: RunDir) -> None:
    times = {"bicubic_x8": [0.1], "cvdvae_x8_tau0.1": [3.0, 1.0, 1.1, 1.2, 9.0], "cvdvae_x8_tau0.8": [1.3, 1.15, 5.0],
             "odd_x8": [0.5, 0.6, 0.7]}  # fmt: skip
    for folder, seconds in times.items():
        timing = {"seconds": seconds, "together": sorted(times)}
        write_json(directory.path / "cells" / folder / "timing.json", timing)
    rows, names = read_rows(directory)
    frame = summarise(rows, names)
    assert frame["seconds"].tolist() == pytest.approx([0.1, 1.2, 1.3, 0.6])
    assert frame["seconds_lo"].tolist() == pytest.approx([0.1, 1.0, 1.15, 0.5])
    assert frame["seconds_hi"].tolist() == pytest.approx([0.1, 9.0, 5.0, 0.7])
    assert frame["seconds_n"].tolist() == [1, 5, 3, 3]
    write_tables(directory)
    markdown = (directory.path / "table.md").read_text()
    assert "| 1.2 [1, 9]" in markdown
    assert "Times: median [least, most]" in markdown
    assert "measured apart" not in markdown
    bold = [
        line for line in (directory.path / "table.tex").read_text().splitlines() if line.startswith((" & The", "$"))
    ]
    assert [re.findall(r"\\(textbf|underline){[\d.]+} \\\\", line) for line in bold] == [
        [], ["underline"], ["underline"], ["textbf"]
    ]  # fmt: skip


def test_times_that_were_not_measured_in_turns_are_named(directory: RunDir) -> None:
    together = ["bicubic_x8", "cvdvae_x8_tau0.1", "cvdvae_x8_tau0.8"]
    for folder in together:
        write_json(directory.path / "cells" / folder / "timing.json", {"seconds": [1.0], "together": together})
    write_tables(directory)
    expected = (
        "Times were measured apart, not in turns, of: The bicubic x8, The cvdvae x8, tau 0.1, The cvdvae x8, tau 0.8; "
        "The odd x8."
    )
    assert expected in (directory.path / "table.md").read_text()
    assert expected in (directory.path / "table.tex").read_text()


def test_the_apd_may_be_of_the_first_images_only(directory: RunDir) -> None:
    frame = directory.cell(CellKey("odd", 8, None)).read("images")
    folder = directory.path / "cells" / "odd_x8"
    frame.assign(apd_mse=[1.0, 2.0, 4.0, 8.0]).to_parquet(folder / "parts" / "000000.images.parquet")
    config = (directory.path / "config.yaml").read_text()
    (directory.path / "config.yaml").write_text(config + "apd_images: 2\n")
    table = summarise(*read_rows(directory)).set_index("method")
    assert table.loc["odd", "apd_mse_e4"] == pytest.approx(1.5e4)
    assert table.loc["odd", "psnr"] == 28.0  # the others are of all images


def test_the_first_images_of_the_apd_are_those_of_all_starts(directory: RunDir) -> None:
    """A later start with images=10: has not moved the first images of the rows that were there."""
    config = (directory.path / "config.yaml").read_text()
    (directory.path / "config.yaml").write_text(config + "apd_images: 2\nimages: [10, null]\n")
    table = summarise(*read_rows(directory)).set_index("method")
    assert table.loc["odd", "apd_mse_e4_n"] == 2


def test_rows_of_other_images_are_said_to_be_and_share_no_rank(directory: RunDir) -> None:
    odd = CellKey("odd", 8, None)

    def move(by: int) -> None:
        cell = directory.cell(odd)
        cell.compact()
        for kind, frame in {kind: cell.read(kind) for kind in ("samples", "images")}.items():
            frame.assign(index=frame["index"] + by).to_parquet(cell.folder / f"{kind}.parquet", index=False)

    move(2)  # images 2 to 5 instead of 0 to 3
    write_tables(directory)
    text = (directory.path / "table.md").read_text()
    assert "2 of 6 images (no rows: see failures.jsonl, or not run yet): all rows" in text
    move(8)
    change(directory, odd, "samples", psnr=20.0)
    write_tables(directory)
    latex = (directory.path / "table.tex").read_text()
    assert r"\textbf{28.00}" in latex
    assert r"\textbf{20.00}" not in latex


def test_csv_has_the_papers_columns_and_bounds(directory: RunDir) -> None:
    write_tables(directory)
    frame = pd.read_csv(directory.path / "table.csv")
    expected = ["scale", "method", "tau", "operator", "sigma", "n_images", "evaluations", "backward_passes"]
    for name in ("psnr", "lpips_alex", "apd_mse_e4", "seconds"):
        expected += [name, f"{name}_lo", f"{name}_hi"]
    expected += [f"{name}_n" for name in ("psnr", "lpips_alex", "apd_mse_e4", "seconds")] + ["impossible"]
    assert list(frame.columns) == expected
    assert frame["apd_mse_e4_n"].tolist() == [4] * 4
    assert frame["impossible"].isna().all()
    assert frame["tau"].isna().tolist() == [True, False, False, True]
    assert frame["operator"].tolist() == ["bicubic"] * 4
    assert frame["sigma"].tolist() == [0.0] * 4


def test_latex_marks_best_and_second_and_compiles_its_structure(
    directory: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.report.stats.FEW", 4)
    write_tables(directory)
    text = (directory.path / "table.tex").read_text()
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    widths = [sum(int(w) for w in re.findall(r"multicolumn{(\d+)}", line)) for line in lines]
    columns = [
        line.count("&") + 1 - line.count("multicolumn") + width for line, width in zip(lines, widths, strict=True)
    ]
    assert set(columns) == {3 + len(METRICS)} == {len(re.search(r"tabular}{([lc]+)}", text)[1])}
    assert re.findall(r"cmidrule\(lr\){(\d+-\d+)}", text) == ["4-5", "6-6", "7-7"]
    body = {line.split("&")[1].strip() + line.split("&")[2].strip(): line for line in lines[2:]}
    assert r"\textbf{28.00}" in body["The cvdvae0.1"]
    assert r"\textbf{28.00}" in body["The odd"]  # equal figures share the rank
    assert r"\underline{27.00}" in body["The cvdvae0.8"]
    assert r"\textbf{0.6}" not in body["The bicubic"]  # no network: not ranked for time
    assert r"\multicolumn{2}{c}{Distortion}" in text
    assert r"MSE ($\times 10^{4}$) \\" not in text
    assert r"MSE ($\times 10^{4}$) &" in text  # a larger APD is not a better one: no arrow
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_only_the_papers_table_ranks_the_apd(directory: RunDir) -> None:
    change(directory, CellKey("odd", 8, None), "images", apd_mse=[0.01, 0.02, 0.01, 0.02])
    rows, names = read_rows(directory)
    frame = summarise(rows, names)
    place = names.index("apd_mse")
    assert all("textbf" not in line.cells[place] for line in ranked_lines(rows, names, frame))
    assert [line.cells[place] for line in ranked_lines(rows, names, frame, DIRECTIONS)][-1] == r"\textbf{150.0}"
    assert column_head("apd_mse") == "APD MSE (x 1e4)"
    assert column_head("apd_mse", DIRECTIONS) == "APD MSE ↑ (x 1e4)"
    assert column_head("psnr", DIRECTIONS) == "PSNR ↑ (dB)"
    write_tables(directory)
    assert "| APD MSE (x 1e4) |" in re.sub(" +", " ", (directory.path / "table.md").read_text())
    entries = [Entry(CellKey("odd", 8, None), "odd", "Odd"), Entry(CellKey("bicubic", 8, None), "bicubic", "Bicubic")]
    write_paper_table(directory, "table1", entries, directory.path / "paper")
    assert "APD MSE ↑" in (directory.path / "paper" / "table1.md").read_text()
    text = (directory.path / "paper" / "table1.tex").read_text()
    assert r"$\uparrow$" in text
    assert r"\textbf{150.0}" in text


def test_with_noise_lr_psnr_has_no_direction_but_a_right_value(directory: RunDir) -> None:
    """A method that fits the noise has the most: it is no better."""
    config = directory.path / "config.yaml"
    config.write_text(config.read_text().replace("'psnr'", "'psnr', 'lr_psnr'"))
    fitted = {"bicubic": 20.0, "cvdvae": 26.0, "odd": 60.0}
    for cell in directory.cells():
        frame = cell.read("samples")
        change(directory, cell.key, "samples", lr_psnr=fitted[cell.key.label] + frame["index"] * 0.01)
    write_tables(directory)
    assert "LR-PSNR ↑ (dB)" in (directory.path / "table.md").read_text()
    assert "lr_psnr_right" not in pd.read_csv(directory.path / "table.csv")
    assert r"\textbf{60.0" in (directory.path / "table.tex").read_text()

    for cell in directory.cells():
        write_json(cell.folder / "cell.json", (cell.identity or {}) | {"operator": {"name": "bicubic", "sigma": 0.05}})
    write_tables(directory)
    markdown, latex = ((directory.path / f"table.{end}").read_text() for end in ("md", "tex"))
    assert "LR-PSNR (dB)" in markdown
    assert "LR-PSNR ↑" not in markdown
    assert "PSNR ↑ (dB)" in markdown  # the others keep theirs
    assert r"& LR-PSNR (dB) &" in latex
    assert r"\textbf{60.0" not in latex
    assert r"\textbf{28.00}" in latex
    for text in (markdown, latex):
        assert "-20 log10(sigma): 26.02 dB at sigma 0.05" in text
        assert "limits it to about 72.0 dB" not in text
    frame = pd.read_csv(directory.path / "table.csv")
    assert frame["lr_psnr_right"].tolist() == pytest.approx([26.0206] * 4, abs=1e-4)
    rows, names = read_rows(directory)
    assert directions(rows, names) == {"lr_psnr": "neither"}


def change(run_dir: RunDir, key: CellKey, kind: str, **columns: list[object]) -> None:
    """Write other values over some of a cell's."""
    cell = run_dir.cell(key)
    cell.compact()
    cell.read(kind).assign(**columns).to_parquet(cell.folder / f"{kind}.parquet", index=False)


def test_few_images_tell_nothing_apart(directory: RunDir) -> None:
    """Four of four images agree by chance in one of eight cases, and still the interval is that of a point."""
    rows, names = read_rows(directory)
    cells = [line.cells[0] for line in ranked_lines(rows, names, summarise(rows, names))]
    assert cells == [r"\textbf{21.50}", r"\textbf{28.00}", r"\textbf{27.00}", r"\textbf{28.00}"]
    write_tables(directory)
    assert "Intervals of fewer than 20 images are too narrow" in (directory.path / "table.md").read_text()


def test_rows_that_cannot_be_told_apart_share_their_rank(directory: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.report.stats.FEW", 4)
    change(directory, CellKey("odd", 8, None), "samples", psnr=[25.0, 26.0, 27.5, 28.5, 28.0, 29.0, 28.0, 29.0])
    rows, names = read_rows(directory)
    cells = {line.heads: line.cells[0] for line in ranked_lines(rows, names, summarise(rows, names))}
    assert cells[("The cvdvae", "0.1")] == r"\textbf{28.00}"
    assert cells[("The odd", "")] == r"\textbf{27.62}"  # 1, -0.5, 0, 1 below: the interval contains zero
    assert cells[("The cvdvae", "0.8")] == r"\underline{27.00}"
    assert cells[("The bicubic", "")] == "21.50"


def test_bounds_are_printed_where_they_are_not_symmetric() -> None:
    frame = pd.DataFrame({"psnr": [25.0, 25.0, 25.0], "psnr_lo": [24.0, 24.0, 25.0], "psnr_hi": [26.001, 26.2, 25.0]})
    shown = [interval_text(frame, i, "psnr") for i in range(3)]
    assert shown == ["25.00 ± 1.00", "25.00 [24.00, 26.20]", "25.00"]


def test_what_means_leave_out_stands_below(directory: RunDir) -> None:
    nan = np.nan
    change(
        directory, CellKey("odd", 8, None), "samples",
        metrics=["apd_mse psnr lpips_alex!"] * 2 + ["apd_mse lpips_alex psnr"] * 6,
        lpips_alex=[nan, nan, 0.3, nan, 0.3, 0.3, nan, nan],
    )  # fmt: skip
    write_tables(directory)
    frame = pd.read_csv(directory.path / "table.csv")
    assert frame["lpips_alex_n"].tolist() == [4, 4, 4, 2]
    assert frame["psnr_n"].tolist() == [4, 4, 4, 4]
    (text,) = [t for t in (directory.path / "table.md").read_text().splitlines() if t.startswith("Left out of means")]
    assert "lpips_alex of 1 of 4 images (failed, see failures.jsonl): The odd x8" in text
    assert "lpips_alex of 1 of 4 images (undefined): The odd x8" in text
    assert "lpips_alex of 1 of 4 samples (undefined for single samples): The odd x8" in text
    assert text in (directory.path / "table.tex").read_text()


def test_more_diversity_than_errors_allow_is_marked(directory: RunDir) -> None:
    """PSNR of 26 and 27 dB is a mean square error of 0.00225: two samples differ by 4 times that at most."""
    change(directory, CellKey("odd", 8, None), "images", apd_mse=[0.0090, 0.0091, 0.001, 0.001])
    change(directory, CellKey("cvdvae", 8, 0.8), "samples", psnr=[np.nan, 26, 26, 27, 27, 28, 28, 29])
    change(directory, CellKey("cvdvae", 8, 0.8), "images", apd_mse=[9, 0.001, 0.001, 0.001])  # no error of both
    write_tables(directory)
    impossible = pd.read_csv(directory.path / "table.csv")["impossible"]
    assert impossible.isna().tolist() == [True, True, True, False]
    assert "the APD MSE of 1 image is more than 2n/(n-1) = 4 times" in impossible[3]  # 27, 28 dB: at most 0.0072
    text = (directory.path / "table.md").read_text()
    assert "| The odd † " in text
    assert f"† {impossible[3]}" in text
    assert r"The odd $\dagger$ &" in (directory.path / "table.tex").read_text()


def test_values_beyond_their_bounds_are_marked(directory: RunDir) -> None:
    change(directory, CellKey("odd", 8, None), "samples", psnr=[81.0] * 8, lpips_alex=[-0.1] * 8)
    change(directory, CellKey("odd", 8, None), "images", apd_mse=[0.0] * 4)
    rows, _ = read_rows(directory)
    assert [len(impossible(row)) for row in rows] == [0, 0, 0, 2]
    assert "psnr of 4 images is outside of [0, 80], the worst 81" in impossible(rows[3])[0]
    assert bounds(metric_facts("brisque")) == (-np.inf, np.inf)


def test_no_points_differ_by_more_than_the_bound() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 5):
        x, truth = rng.normal(size=(n, 50)), rng.normal(size=50)
        at_mean = x - x.mean(0)
        for points, centre in ((x, truth), (at_mean, np.zeros(50))):
            pairs = np.mean([((points[i] - points[j]) ** 2).sum() for i in range(n) for j in range(i)])
            ratio = pairs / ((points - centre) ** 2).sum(1).mean()
            assert ratio <= largest_apd_ratio(n) * (1 + 1e-12)
        assert ratio == pytest.approx(largest_apd_ratio(n))  # about the mean it is reached


def test_holm_is_over_all_comparisons(directory: RunDir) -> None:
    frame = differences(*read_rows(directory))
    assert frame["p"].min() == 2 / 16  # of four images
    assert (frame["p_holm"] >= frame["p"]).all()
    assert (frame["p_holm"] == 1).all()
    assert list(frame.columns)[-3:] == ["n_images", "p", "p_holm"]


def test_paired_differences(directory: RunDir) -> None:
    frame = differences(*read_rows(directory))
    row = frame[(frame.method == "bicubic") & (frame.other == "odd") & (frame.metric == "psnr")].iloc[0]
    assert row.difference == row.lo == row.hi == -6.5  # the same on every image: no uncertainty
    assert row.n_images == 4
    assert "seconds" not in set(frame.metric)


def test_paper_column_compares_like_with_like(directory: RunDir) -> None:
    frame = beside_paper(*read_rows(directory), summarise(*read_rows(directory)))
    found = frame.set_index(["method", "tau", "metric"])["published"]
    assert found[("cvdvae", 0.8, "psnr")] == 25.47
    assert found[("cvdvae", 0.1, "psnr")] == 26.27  # Table 2
    assert found[("cvdvae", 0.8, "seconds")] == 0.13
    assert found[("bicubic", np.nan, "lpips_alex")] == 0.45
    assert "odd" not in set(frame.method)
    assert (frame.difference == frame.measured - frame.published)[frame.mark == ""].all()


def test_other_images_have_no_difference_to_the_papers(directory: RunDir) -> None:
    for cell in directory.cells():
        write_json(cell.folder / "cell.json", (cell.identity or {}) | {"dataset": {"name": "synthfaces", "size": 64}})
    write_paper(directory)
    frame = pd.read_csv(directory.path / "paper.csv")
    assert len(frame)
    assert frame["difference"].isna().all()
    sentence = "Measured on synthfaces at 64 pixels: other images than the published ones"
    assert sentence in (directory.path / "paper.md").read_text()
    assert "nan" not in (directory.path / "paper.md").read_text()


def test_st_lpips_has_no_published_figure(directory: RunDir, tmp_path: Path) -> None:
    entries = [Entry(CellKey("cvdvae", 8, 0.8), "cvdvae", "CVDVAE")]
    config = (directory.path / "config.yaml").read_text()
    write_atomic(directory.path / "config.yaml", config.replace("lpips_alex", "stlpips_alex"))
    write_paper_table(directory, "table1", entries, tmp_path / "paper")
    head, _, line = (tmp_path / "paper" / "table1_published.md").read_text().splitlines()[:3]
    cells = dict(zip(*([c.strip() for c in text.split("|")] for text in (head, line)), strict=True))
    assert cells["PSNR ↑ (dB)"] == "25.47"
    assert cells["ST-LPIPS (Alex) ↓"] == ""


def test_published_figures_that_cannot_be_right_have_no_difference(directory: RunDir) -> None:
    frame = beside_paper(*read_rows(directory), summarise(*read_rows(directory)))
    wrong = frame[frame.mark == "impossible"]
    assert wrong[["method", "tau", "metric"]].to_numpy().tolist() == [
        ["cvdvae", 0.1, "apd_mse_e4"],
        ["cvdvae", 0.8, "apd_mse_e4"],
    ]
    assert wrong.difference.isna().all()
    write_paper(directory)
    text = (directory.path / "paper.md").read_text()
    assert "| †" in text
    assert "at most 2.5 times their mean square error" in text
    assert "cvdvae x8, tau 0.8: 8.7" in text


def test_the_views_of_a_paper_table_mark_them(directory: RunDir, tmp_path: Path) -> None:
    entries = [Entry(CellKey("cvdvae", 8, tau), "cvdvae", "CVDVAE") for tau in (0.1, 0.8)]
    write_paper_table(directory, "table2", entries, tmp_path / "paper")
    for view in ("published", "beside"):
        text = (tmp_path / "paper" / f"table2_{view}.md").read_text()
        assert "140.4†" in text
        assert "248.2†" in text
        assert "cvdvae x8, tau 0.1: 5.9; cvdvae x8, tau 0.8: 8.7." in text
        assert r"248.2$^\dagger$" in (tmp_path / "paper" / f"table2_{view}.tex").read_text()
    assert "-228.2" not in (tmp_path / "paper" / "table2_beside.md").read_text()
    both = pd.read_csv(tmp_path / "paper" / "table2_beside.csv").set_index(["tau", "metric"])
    assert both.loc[(0.8, "apd_mse_e4"), "mark"] == "impossible"
    assert np.isnan(both.loc[(0.8, "apd_mse_e4"), "difference"])
    assert both.loc[(0.8, "psnr"), "difference"] == pytest.approx(27 - 25.47)


def test_which_published_apds_are_impossible() -> None:
    """The ratios of docs/protocol.md; SR3's largest is 1.55."""
    found = {key: round(ratio, 1) for key, ratio in impossible_apd().items()}
    assert found == {
        (4, "hcflow", 0.8): 24.2, (8, "hcflow", 0.8): 27.0, (4, "cvdvae", 0.8): 9.4, (8, "cvdvae", 0.8): 8.7,
        (4, "cvdvae", 0.1): 7.7, (8, "cvdvae", 0.1): 5.9,
    }  # fmt: skip


def test_the_papers_lr_psnr_is_the_unrounded_one() -> None:
    assert paper_metrics(["psnr", "lr_psnr", "apd_mse"]) == ["psnr", "lr_psnr", "apd_mse"]
    assert paper_metrics(["apd_mse", "lr_psnr", "psnr", "lr_psnr_exact"]) == ["psnr", "lr_psnr_exact", "apd_mse"]


def test_published_figures() -> None:
    frame = published()
    assert len(frame[frame.method == "cvdvae"]) == 2 * 8 + 2 * 7
    assert (
        frame[(frame.method == "hcflow") & (frame.scale == 4) & (frame.metric == "psnr")]["published"].item() == 31.74
    )


def test_other_operators_are_named_and_not_compared_with_the_paper(directory: RunDir) -> None:
    write_tables(directory)
    plain = "bicubic (MATLAB's kernel, rounded once), sigma 0"
    for suffix in ("md", "tex"):
        assert f"Observations: {plain}." in (directory.path / f"table.{suffix}").read_text()
    path = directory.path / "cells" / "cvdvae_x8_tau0.8" / "cell.json"
    operator = {"name": "bicubic", "sigma": 0.05}
    path.write_text(path.read_text().replace('"sigma": 0.0', '"sigma": 0.05'))
    assert json.loads(path.read_text())["operator"] == operator
    frame = beside_paper(*read_rows(directory), summarise(*read_rows(directory)))
    assert set(frame[frame.method == "cvdvae"]["tau"]) == {0.1}
    write_tables(directory)
    assert pd.read_csv(directory.path / "table.csv")["sigma"].tolist() == [0, 0, 0.05, 0]
    assert f"Observations: {plain}; bicubic, sigma 0.05." in (directory.path / "table.md").read_text()


def test_variants_of_bicubic_are_named_and_may_be_the_papers(directory: RunDir) -> None:
    path = directory.path / "cells" / "cvdvae_x8_tau0.8" / "cell.json"
    path.write_text(
        path.read_text().replace('"sigma": 0.0', '"sigma": 0.0, "rounding": "each_axis", "kernel": "matlab"')
    )
    write_tables(directory)
    assert pd.read_csv(directory.path / "table.csv")["operator"][2] == "bicubic rounding=each_axis"
    assert "; bicubic rounding=each_axis, sigma 0." in (directory.path / "table.md").read_text()
    frame = beside_paper(*read_rows(directory), summarise(*read_rows(directory)))
    assert set(frame[frame.method == "cvdvae"]["tau"]) == {0.1, 0.8}


def test_a_metric_that_some_rows_lack_is_not_available(directory: RunDir) -> None:
    config = directory.path / "config.yaml"
    config.write_text(config.read_text().replace("'psnr'", "'psnr', 'ssim', 'diversity_lpips_alex'"))
    text = write_tables(directory)
    assert text.splitlines()[2].split().count("n/a") == 2
    assert "ssim of 4 of 4 images (not computed): all rows" in (directory.path / "table.md").read_text()
    assert pd.read_csv(directory.path / "table.csv")[["ssim", "diversity_lpips_alex"]].isna().all(axis=None)


def test_the_limit_of_rounding_stands_in_the_note(directory: RunDir) -> None:
    config = directory.path / "config.yaml"
    config.write_text(config.read_text().replace("'psnr'", "'lr_psnr'") + "dataset: {name: ffhq256, split: test}\n")
    write_tables(directory)
    for name in ("table.md", "table.tex"):
        assert "limits it to about 72.0 dB at x4 and 76.3 dB at x8" in (directory.path / name).read_text()
        assert "Images: ffhq256, split test." in (directory.path / name).read_text()


def test_titles_survive_markdown() -> None:
    assert escape_markdown(r"a|b \| <i>") == r"a\|b \\\| &lt;i>"


def test_paper_files(directory: RunDir) -> None:
    write_paper(directory)
    for suffix in ("csv", "md", "tex"):
        assert "25.47" in (directory.path / f"paper.{suffix}").read_text()


def test_an_empty_run_is_said_to_be_empty(tmp_path: Path) -> None:
    write_atomic(tmp_path / "config.yaml", "methods: {bicubic: {}}\nmetrics: [psnr]\n")
    assert "Nothing has been measured" in write_tables(RunDir(tmp_path))


def test_a_real_run_is_regenerated_identically(configure: Callable[..., RunConfig]) -> None:
    directory, _ = run(configure("metrics=[psnr,apd_mse,seconds]"))
    write_tables(directory)
    before = {p.name: p.read_bytes() for p in directory.path.glob("table.*")}
    write_tables(RunDir(directory.path))
    assert before == {p.name: p.read_bytes() for p in directory.path.glob("table.*")}
    assert len(before) == 3


def test_titles_survive_latex() -> None:
    assert escape(r"A_1 \& {B}~^") == r"A\_1 \textbackslash{}\& \{B\}\textasciitilde{}\textasciicircum{}"


def test_the_cost_stands_in_the_tables(directory: RunDir) -> None:
    """Evaluations and gradients, where a method has more than one; runs of earlier versions do not know the latter."""
    write_tables(directory)
    assert "evaluations" not in (directory.path / "table.md").read_text()
    path = directory.path / "cells" / "odd_x8" / "facts.json"
    facts = {"title": "The odd", "method": "odd", "evaluations": 100, "backward_passes": 50}
    write_json(path, facts)
    write_tables(directory)
    text = (directory.path / "table.md").read_text()
    assert "| images | evaluations" in re.sub(" +", " ", text)
    assert "100 + 50 backward" in text
    frame = pd.read_csv(directory.path / "table.csv").set_index("method")
    assert frame.loc["odd", "backward_passes"] == 50
    assert frame.loc["bicubic", "evaluations"] == 0
    assert np.isnan(frame.loc["bicubic", "backward_passes"])
