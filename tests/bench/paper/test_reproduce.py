import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from bench.cli import main
from bench.config import MethodConfig, RunConfig, compose
from bench.contract import Facts, Method, Noise, methods, register_method
from bench.data import make_dataset
from bench.errors import BenchError
from bench.paper.config import read_reproduction
from bench.paper.plan import Probe, check_disk, duration, estimate, needed_checkpoints, probe
from bench.paper.reproduce import _chosen_images
from bench.paper.reproduce import reproduce as run_reproduction
from bench.paper.tables import Entry, published
from bench.run.cell import CellKey
from bench.run.runner import open_run, run
from bench.run.store import RunDir

QUICK = ["dataset=synthfaces", "limit=2", "n=2", "metrics=[psnr,stlpips_alex,apd_mse,seconds]", "device=cpu",
         "timing.budget=0.01", "methods=[bicubic,cvdvae]", "pictures.images=1", "pictures.samples=2",
         "pictures.tau=[0.1,1.0]", "scale=[4,8]"]  # fmt: skip


def reproduce(part: str, out: Path, *overrides: str) -> int:
    return main(["reproduce", part, *QUICK, f"out={out}", *overrides])


def test_parts_share_their_rows_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce("paper", tmp_path, "figure6.codes=1", "figure6.images=2", "figure6.every=6") == 0
    said = capsys.readouterr().out
    assert "samples left" in said
    assert "Time: about" in said
    assert "GB free" in said
    assert {"energy", "rank_error"} <= set(pd.read_csv(tmp_path / "truth.csv").columns)
    for name in (
        "figure1", "figure3", "figure4", "figure5", "figure6", "pareto_x4", "distributions_x8", "samples_x8", "tarp_x4",
        "coverage_x8",
    ):  # fmt: skip
        assert (tmp_path / "figures" / f"{name}.png").is_file(), name
        assert (tmp_path / "figures" / f"{name}.pdf").is_file(), name
    for name in ("table1", "table1_published", "table1_beside", "table2", "table2_published", "table2_beside"):
        for suffix in ("csv", "md", "tex"):
            assert (tmp_path / "paper" / f"{name}.{suffix}").is_file(), name
    one = pd.read_csv(tmp_path / "paper" / "table1.csv")
    two = pd.read_csv(tmp_path / "paper" / "table2.csv")
    assert one[["scale", "method"]].to_numpy().tolist() == [
        [4, "bicubic"],
        [4, "cvdvae"],
        [8, "bicubic"],
        [8, "cvdvae"],
    ]
    assert two["tau"].tolist() == [0.1, 0.8, 0.1, 0.8]
    shared = two[two["tau"] == 0.8]["psnr"].tolist()
    assert shared == one[one["method"] == "cvdvae"]["psnr"].tolist()
    rows = sorted((tmp_path / "cells").glob("*/*.parquet"))
    before = [p.stat().st_mtime_ns for p in rows]
    assert len(rows) == 2 * 8  # CVDVAE at 0.1, 0.8 and, in the appendix, 1
    appendix = pd.read_csv(tmp_path / "paper" / "appendix.csv")
    assert appendix["method"].tolist() == ["bicubic", "cvdvae", "cvdvae"] * 2
    assert appendix["tau"].fillna(0).tolist() == [0.0, 1.0, 0.8] * 2
    assert {"energy", "crps", "rank_error", "tarp_error", "apd_ratio_mse"} < set(appendix)
    assert appendix["apd_ratio_mse_right"].isna().tolist() == [False, False, True] * 2
    assert not {"coverage50", "lr_residual"} & set(appendix)
    assert "right value" in (tmp_path / "paper" / "appendix.md").read_text()
    assert (tmp_path / "paper" / "appendix.tex").is_file()
    assert reproduce("paper", tmp_path, "figure6.codes=1", "figure6.images=2", "figure6.every=6") == 0
    assert "done" in capsys.readouterr().out
    assert [p.stat().st_mtime_ns for p in rows] == before


def test_what_is_missing_is_left_out_visibly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["methods=[bicubic,hcflow,cvdvae]", "methods.hcflow.weights={x4:null,x8:null}"]
    assert reproduce("table1", tmp_path, *more) == 1
    said = capsys.readouterr().out
    assert "HCFlow x4 is left out: hcflow has no weights for x4" in said
    text = (tmp_path / "paper" / "table1.tex").read_text()
    assert r"HCFlow & 0.8 & -- & --" in text
    order = [line.split("&")[1].strip() for line in text.splitlines() if "&" in line][2:]
    assert order == ["Bicubic", "HCFlow", "CVDVAE"] * 2
    frame = pd.read_csv(tmp_path / "paper" / "table1.csv").set_index(["scale", "method"])
    assert np.isnan(frame.loc[(4, "hcflow"), "psnr"])
    assert "no weights" in frame.loc[(4, "hcflow"), "left_out"]


def test_three_views_agree_with_the_published_data(tmp_path: Path) -> None:
    assert reproduce("table1", tmp_path, "limit=1") == 0
    assert reproduce("table2", tmp_path, "limit=1") == 0
    one = pd.read_csv(tmp_path / "paper" / "table1_published.csv").set_index(["scale", "method"])
    two = pd.read_csv(tmp_path / "paper" / "table2_published.csv").set_index(["scale", "tau"])
    assert one.loc[(8, "cvdvae"), "psnr"] == 25.47
    assert one.loc[(8, "cvdvae"), "lpips"] == 0.27  # the paper's tables differ here
    assert two.loc[(8, 0.8), "lpips"] == 0.28
    assert two.loc[(4, 0.1), "lr_psnr"] == 75.7
    both = pd.read_csv(tmp_path / "paper" / "table1_beside.csv")
    ours = pd.read_csv(tmp_path / "paper" / "table1.csv").set_index(["scale", "method"])
    row = both[(both.scale == 8) & (both.method == "cvdvae") & (both.metric == "psnr")].iloc[0]
    assert row.measured == ours.loc[(8, "cvdvae"), "psnr"]
    assert np.isnan(row.difference)  # of other images
    assert "stlpips_alex" not in set(both.metric)  # another distance than the paper's
    lines = (tmp_path / "paper" / "table2_beside.md").read_text().splitlines()
    assert [line.split("|")[4].strip() for line in lines[2:5]] == ["ours", "published", "difference"]
    assert "30.75" in lines[3]
    assert any("the published figures are of FFHQ-256" in line for line in lines)


def test_published_tables_as_printed() -> None:
    assert len(published("table1")) == 2 * 5 * 8 - 2  # bicubic has no time
    assert len(published("table2")) == 4 * 7


def test_figures_show_the_samples_of_the_run(configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    config = configure("methods=[cvdvae]", "n=2", "limit=2", "methods.cvdvae.compute.rows=2")
    directory, _ = run(config)
    key = CellKey("cvdvae", 8, 0.8)
    with open_run(config.model_copy(update={"out": tmp_path / "alone"}), [key]) as session:
        assert session.draw([key], [1], samples=2)
    files = [f"cells/cvdvae_x8_tau0.8/samples/000001_{j}.png" for j in range(2)]
    for name in [*files, "images/x8/000001/hr.png", "images/x8/000001/lr.png"]:
        assert (tmp_path / "alone" / name).read_bytes() == (directory.path / name).read_bytes()
    assert not RunDir(tmp_path / "alone").cells()  # pictures are no rows


def test_pictures_belong_to_the_settings_that_drew_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["scale=8", "methods=[cvdvae]"]
    assert reproduce("figure1", tmp_path, *quick) == 0
    before = (tmp_path / "figures" / "figure1.png").read_bytes()
    assert reproduce("figure1", tmp_path, *quick, "methods.cvdvae.output=mode") == 1
    assert "settings.output was mean, is mode" in capsys.readouterr().err
    assert reproduce("figure1", tmp_path, *quick, "methods.cvdvae.output=mode", "stale=recompute") == 0
    assert (tmp_path / "figures" / "figure1.png").read_bytes() != before
    assert (tmp_path / "cells" / "cvdvae_x8_tau0.8" / "superseded-1" / "samples" / "000000_0.png").is_file()


def test_a_picture_of_a_replaced_image_is_refused(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["dataset=folder", f"dataset.path={image_folder}", "dataset.size=64", "scale=8", "methods=[cvdvae]"]
    words = ["reproduce", "figure1", *QUICK[1:], *data, f"out={tmp_path / 'out'}"]
    assert main(words) == 0
    before = (tmp_path / "out" / "images/x8/000000/hr.png").read_bytes()
    Image.new("RGB", (80, 80)).save(image_folder / "0.png")
    assert main(words) == 1
    assert "0.png is no longer what it was" in capsys.readouterr().err
    assert main([*words, "stale=recompute"]) == 0
    assert (tmp_path / "out" / "images/x8/000000/hr.png").read_bytes() != before


def test_failures_of_all_tables_are_kept(tmp_path: Path) -> None:
    class Fails(Method):
        facts = Facts(title="Fails")

        def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
            broken = "test-000000" if tau == 0.1 else "test-000001"
            return torch.full((len(y), n, 3, 64, 64), torch.nan if noise.ids[0] == broken else 0.5)

    register_method("fails")(Fails)
    try:
        words = [*QUICK, "protocol=small", "part=[table1,table2]", "methods=[bicubic]", "reference=bicubic", "scale=8"]
        r = read_reproduction(compose("reproduce", [*words, f"out={tmp_path}"]))
        run_config = r.run.model_copy(update={"methods": (MethodConfig("fails", "fails", {}),)})
        assert not run_reproduction(replace(r, run=run_config, reference="fails"))
        failed = {(f["what"], f["image"]) for f in RunDir(tmp_path).failures}
        assert failed == {("fails_x8_tau0.1", "test-000000"), ("fails_x8_tau0.8", "test-000001")}
    finally:
        methods._items.pop("fails")


def test_chosen_images() -> None:
    dataset = make_dataset({"name": "synthfaces", "size": 64, "split": "test"})
    assert _chosen_images(dataset, None, 3) == [0, 1, 2]
    assert _chosen_images(dataset, ["test-000007", "test-000002"], 1) == [7, 2]
    with pytest.raises(BenchError, match="no image 'x'"):
        _chosen_images(dataset, ["x"], 1)


def test_a_first_image_that_cannot_be_read_costs_itself_alone(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_folder / "0.png").write_bytes(b"no image")
    words = ["dataset=folder", f"dataset.path={image_folder}", "dataset.size=64", "methods=[bicubic]", "scale=4",
             "n=2", "metrics=[psnr]", "statistics=false", "device=cpu", f"out={tmp_path / 'out'}"]  # fmt: skip
    assert main(["reproduce", "table1", *words]) == 1  # reference=cvdvae is not needed for this
    assert pd.read_csv(tmp_path / "out" / "paper" / "table1.csv")["psnr"].notna().all()
    assert "3 images, 1 samples of each." in (tmp_path / "out" / "paper" / "table1.md").read_text()
    assert main(["reproduce", "table2", *words]) == 1
    assert "reference=cvdvae is not among the methods bicubic: add reference=NAME" in capsys.readouterr().err


def test_rows_of_one_method_are_told_apart(tmp_path: Path) -> None:
    words = ["methods=[bicubic]", "variants={second: {method: bicubic}}", "limit=1", "metrics=[psnr]", "n=1"]
    main(["reproduce", "table1", "dataset=synthfaces", "scale=4", "device=cpu", *words, f"out={tmp_path}"])
    text = (tmp_path / "paper" / "table1.md").read_text()
    assert "Bicubic (second)" in text


def test_the_plan_only_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce("table1", tmp_path, "plan=true") == 0
    assert "to do" in capsys.readouterr().out
    assert not (tmp_path / "cells").exists()


def test_without_the_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    assert main(["reproduce", "paper", f"out={tmp_path}", "device=cpu", "download=false"]) == 1
    said = capsys.readouterr().out
    assert "Dataset: missing: The FFHQ-256 file is not here" in said
    assert "Dataset: ffhq-256.npy: missing; python -m bench data get ffhq256 downloads it from https://" in said
    assert "ffhq256-iter-1700000-model-ema.th: missing; to be downloaded from https://" in said
    assert "python -m bench weights add dps_ffhq256 FILE" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["figure2", "dataset=synthfaces"], "nothing to compute"),
        (["tabel1", "dataset=synthfaces"], "Did you mean 'table1'"),
        ([], "reproduce needs a part"),
        (["table2", "dataset=synthfaces", "reference=nothing"], "reference=nothing is not among the methods"),
        (["table1", "dataset=synthfaces", "tau=[0.1,0.8]"], "tau takes one value"),
    ],
)
def test_wrong_words(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words]) == 1
    assert sentence in capsys.readouterr().err


def test_time_is_foretold_from_a_few_steps(configure: Callable[..., RunConfig]) -> None:
    step = 0.004

    @register_method("slow_steps")
    class SlowSteps(Method):
        facts = Facts(title="Slow", uses_tau=False)

        def __init__(self, steps: int) -> None:
            self.steps = steps

        @property
        def evaluations(self) -> int:
            return self.steps

        def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
            time.sleep(step * self.steps)
            return torch.zeros(len(y), n, 3, 64, 64)

    try:
        config = configure("limit=10", "n=5", "timing.budget=1e-9")
        dataset = make_dataset(config.dataset)
        slow = MethodConfig("slow", "slow_steps", {"steps": 500})
        found = probe(slow, 8, dataset, config)
        assert found.seconds == pytest.approx(500 * step, rel=0.4)
        key = CellKey("slow", 8, None)
        entries = [Entry(key, "slow_steps", "Slow"), Entry(CellKey("other", 8, None), "slow_steps", "Other", "missing")]
        probes = [found, Probe(MethodConfig("other", "slow_steps", {}), 8, float("nan"), "missing")]
        cost = estimate(entries, probes, config, RunDir(config.out), dataset, {8: 0.1})
        assert cost.samples == {key: 50}
        assert cost.seconds[key] == pytest.approx(50 * found.seconds + 10 * 0.1 + 2 * found.seconds)
        broken = probe(MethodConfig("slow", "slow_steps", {"steps": "x"}), 8, dataset, config)
        assert broken.reason is not None
    finally:
        methods._items.pop("slow_steps")


def test_needed_checkpoints() -> None:
    found = needed_checkpoints(
        {"weights": {"x8": "SR_CelebA_X8_HCFlow.pth", "x4": None}, "steps": 3}, {"a": ["ffhq_10m.pt"]}
    )
    assert [c.name for c in found] == ["hcflow_celeba_x8", "dps_ffhq256"]


def test_a_full_disk_is_foretold(tmp_path: Path) -> None:
    assert "free" in check_disk(tmp_path / "new" / "folder", 1000)
    with pytest.raises(BenchError, match="MB are free"):
        check_disk(tmp_path, 10**18)


def test_durations() -> None:
    assert [duration(s) for s in (5, 130, 7200, 200000)] == ["5 s", "2.2 min", "2.0 h", "2.3 d"]
