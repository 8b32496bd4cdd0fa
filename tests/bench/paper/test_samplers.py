"""Figures of zero-shot samplers that were published, beside those of a run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.files import write_atomic, write_json
from bench.paper.samplers import METRICS, published_samplers, sources
from bench.paper.tables import write_paper
from bench.run.cell import CellKey
from bench.run.store import RunDir


def directory(
    path: Path, label: str, operator: str, sigma: float, method: str = "ddrm", dataset: dict[str, object] | None = None
) -> RunDir:
    run = RunDir(path)
    write_atomic(path / "config.yaml", f"methods: {{{label}: {{}}}}\nmetrics: [psnr, lpips_vgg, stlpips_alex]\n")
    cell = run.cell(CellKey(label, 4, None))
    samples = pd.DataFrame({"index": range(4), "sample": 0, "image": "x", "metrics": "psnr lpips_vgg stlpips_alex"})
    samples = samples.assign(method=label, scale=4, tau=np.nan, psnr=[27.0, 28.0, 29.0, 30.0], lpips_vgg=0.3)
    cell.add(0, samples.assign(stlpips_alex=0.1), pd.DataFrame({"index": range(4), "image": "x"}))
    identity = {"version": 1, "scale": 4, "tau": None, "operator": {"name": operator, "sigma": sigma}}
    identity["dataset"] = dataset or {"name": "ffhq256", "split": "test"}
    write_json(cell.folder / "cell.json", identity)
    facts = {"title": "DDRM", "method": method, "evaluations": 20, "backward_passes": 0}
    write_json(cell.folder / "facts.json", facts)
    return run


def test_ours_beside_theirs_at_the_same_noise(tmp_path: Path) -> None:
    write_paper(directory(tmp_path, "mine", "bicubic", 0.025))
    frame = pd.read_csv(tmp_path / "samplers.csv").set_index("metric")
    assert frame["source"].tolist() == ["dps"] * 2  # its 0.05 is of images in [-1, 1]
    assert frame.loc["psnr", "published"] == 25.36
    assert frame.loc["psnr", "difference"] == 28.5 - 25.36
    assert frame.loc["lpips_vgg", "published"] == 0.294
    text = (tmp_path / "samplers.md").read_text()
    assert "arXiv 2209.14687" in text
    assert "up to 2.6 dB" in text


def test_other_images_have_no_difference(tmp_path: Path) -> None:
    write_paper(directory(tmp_path, "mine", "bicubic", 0.025, dataset={"name": "synthfaces", "size": 64}))
    frame = pd.read_csv(tmp_path / "samplers.csv").set_index("metric")
    assert frame.loc["psnr", "published"] == 25.36
    assert frame["difference"].isna().all()
    assert (tmp_path / "samplers.md").read_text().startswith("Measured on synthfaces at 64 pixels: other images")


def test_another_operator_noise_or_method_has_no_place(tmp_path: Path) -> None:
    for k, (operator, sigma, method) in enumerate([("average", 0.05, "ddrm"), ("bicubic", 0.1, "ddrm"),
                                                   ("bicubic", 0.05, "sr3")]):  # fmt: skip
        write_paper(directory(tmp_path / str(k), "mine", operator, sigma, method))
        assert not (tmp_path / str(k) / "samplers.csv").exists()


def test_every_figure_has_a_source() -> None:
    frame = published_samplers()
    assert set(frame["source"]) == set(sources())
    assert set(METRICS) <= set(frame["metric"]) <= {*METRICS, "fid"}
    assert len(frame) == 2 * 4 + 7 * 3 + 3 + 3 * 2
    doubled = frame.set_index("source").loc[["dps", "daps"]]
    assert (doubled["printed_sigma"] == 2 * doubled["sigma"]).all()
    same = frame.set_index("source").loc["diffpir"]
    assert (same["printed_sigma"] == same["sigma"]).all()


def test_figures_of_one_method_differ_as_is_said() -> None:
    frame = published_samplers().query("metric == 'psnr' and (sigma != 0)")
    ddrm = frame[frame["method"] == "ddrm"].set_index("source")
    assert ddrm["published"].to_dict() == {"dps": 25.36, "diffpir": 27.92, "pnpgd": 27.65}
    assert ddrm["sigma"].drop("pnpgd").to_dict() == {"dps": 0.025, "diffpir": 0.05}
    noisy = frame.groupby("method")["published"]
    assert float((noisy.max() - noisy.min()).max()) == pytest.approx(2.56)


def test_a_figure_of_unknown_noise_is_beside_no_run(tmp_path: Path) -> None:
    unknown = published_samplers().query("source == 'pnpgd'")
    assert unknown["sigma"].isna().all()
    assert set(unknown["method"]) == {"ddrm", "pigdm", "pnpdm"}
    for sigma in (0.0, 0.025, 0.05):
        write_paper(directory(tmp_path / f"{sigma}", "mine", "bicubic", sigma))
        assert "pnpgd" not in set(pd.read_csv(tmp_path / f"{sigma}" / "samplers.csv")["source"])
