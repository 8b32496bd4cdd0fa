"""``python -m bench tune``: a grid on validation images, resumed, with the best as a settings line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pandas as pd
import pytest
import torch
from pydantic import Field
from torch import Tensor

from bench.cli import main
from bench.config import compose, read_tune
from bench.contract import Facts, Method, Noise, methods, register_method
from bench.errors import BenchError
from bench.metrics.statistic import Estimate, statistics
from bench.report.tables import read_rows
from bench.run.store import RunDir
from bench.tune import loss_of

CALLS: list[tuple[float, str]] = []
QUICK = ["device=cpu", "limit=3", "n=1", "metrics=[psnr]", "metric=psnr"]


@pytest.fixture
def grey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A method that is a grey of one setting, and its yaml; the best is near the faces' mean."""

    @register_method("grey")
    class Grey(Method):
        facts = Facts(title="Grey", citation="none", deterministic=True, evaluations=0)

        def __init__(self, level: Annotated[float, Field(ge=0, le=1)] = 0.0, shade: str = "flat") -> None:
            self.level, self.shade = level, shade

        def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
            CALLS.extend((self.level, i) for i in noise.ids)
            level = self.level * (tau or 1.0) if self.shade == "flat" else 1.0
            return torch.full((len(y), n, 3, *self.operator.size), level)

    (tmp_path / "conf" / "methods").mkdir(parents=True)
    text = "# @package methods.grey\nlevel: 0.0\nshade: flat\n"
    (tmp_path / "conf" / "methods" / "grey.yaml").write_text(text)
    monkeypatch.setattr("bench.config.search_path", lambda: [f"hydra.searchpath=[file://{tmp_path}/conf]"])
    monkeypatch.setattr("bench.composing.search_path", lambda: [f"hydra.searchpath=[file://{tmp_path}/conf]"])
    CALLS.clear()
    yield tmp_path
    methods._items.pop("grey")


def tune(folder: Path, *words: str) -> int:
    return main(["tune", "method=grey", *QUICK, f"out={folder / 'out'}", *words])


def test_the_best_is_a_settings_line(grey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(grey, "grid.level=[0.1,0.5,0.9]", "grid.shade=[flat,white]", "tau=1") == 0
    said = capsys.readouterr().out
    assert "    methods.grey.level=0.5 methods.grey.shade=flat tau=1.0" in said
    assert "best of 6 by psnr on 3 validation images of synthfaces, x4" in said
    frame = pd.read_csv(grey / "out" / "tune.csv")
    assert frame["level"].tolist() == [0.1, 0.1, 0.5, 0.5, 0.9, 0.9]
    assert frame.loc[frame["best"], ["level", "shade"]].to_numpy().tolist() == [[0.5, "flat"]]
    assert frame["psnr"].idxmax() == 2
    assert "**" in (grey / "out" / "tune.md").read_text()
    for suffix in ("png", "pdf"):
        assert (grey / "out" / f"tune.{suffix}").stat().st_size > 1000
    assert {i.partition("-")[0] for _, i in CALLS} == {"val"}  # never an image of the test split


def test_a_setting_that_fails_on_an_image_is_not_the_best(grey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its mean is over the images that it could do: here over the one that is nearest to it."""

    class Frail(methods.get("grey")):  # type: ignore[misc]
        def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
            x = super().draw(y, n, tau, noise)
            if self.level == 0.5:
                x[[i != easy for i in noise.ids]] = torch.nan
            return x

    assert tune(grey, "grid.level=[0.45,0.5]", "tau=1", f"out={grey / 'whole'}") == 0
    rows = {r.cell.identity["settings"]["level"]: r for r in read_rows(RunDir(grey / "whole"))[0] if r.cell.identity}
    easy = rows[0.5].cell.read("images").set_index("index")["image"][rows[0.5].values["psnr"].idxmax()]
    methods._items["grey"] = Frail
    assert tune(grey, "grid.level=[0.45,0.5]", "tau=1") == 1
    said = capsys.readouterr()
    frame = pd.read_csv(grey / "out" / "tune.csv").set_index("level")
    assert frame["n_images"].tolist() == [3, 1]
    assert frame.loc[0.45, "best"]
    assert "(of 1 of 3 images)" in said.out
    assert "best of 1 by psnr on 3 validation images" in said.out
    assert "1 others have no value on some of these images" in said.out
    assert "failed and are left out" in said.err


def test_settings_that_fail_on_other_images_are_not_compared(grey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of three images each: their means are of different sets, and no setting has all."""

    class Frail(methods.get("grey")):  # type: ignore[misc]
        def draw(self, y: Tensor, n: int, tau: float | None, noise: Noise) -> Tensor:
            x = super().draw(y, n, tau, noise)
            x[[i.endswith("0" if self.level == 0.5 else "1") for i in noise.ids]] = torch.nan
            return x

    methods._items["grey"] = Frail
    assert tune(grey, "grid.level=[0.45,0.5]", "tau=1", "metric=crps", "n=2") == 1
    said = capsys.readouterr().out
    assert said.count("(of 2 of 3 images)") == 2
    assert "best of 1 by crps on 2 validation images" in said
    assert "No setting has a value on all 3 images" in said
    assert "~" not in said


def test_a_wider_grid_goes_on(grey: Path) -> None:
    assert tune(grey, "grid.level=[0.1,0.5]", "tau=1") == 0
    before = len(CALLS)
    assert tune(grey, "grid.level=[0.1,0.5,0.9]", "tau=1") == 0
    assert {level for level, _ in CALLS[before:]} == {0.9}
    assert pd.read_csv(grey / "out" / "tune.csv")["level"].tolist() == [0.1, 0.5, 0.9]
    assert tune(grey, "grid.level=[0.5,0.9]", "tau=1") == 0  # what is no longer asked for is not compared
    assert pd.read_csv(grey / "out" / "tune.csv")["level"].tolist() == [0.5, 0.9]


def test_temperatures_and_statistics(grey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """tau is a part of the grid; a proper score is smallest at the best."""
    assert tune(grey, "methods.grey.level=0.5", "tau=[0.2,1]", "metric=crps", "scale=[4,8]") == 0
    said = capsys.readouterr().out
    assert said.count("    tau=1.0") == 2
    frame = pd.read_csv(grey / "out" / "tune.csv")
    assert frame["scale"].tolist() == [4, 4, 8, 8]
    assert (frame.groupby("scale")["crps"].idxmin() == [1, 3]).all()


def test_scores_that_images_do_not_tell_apart_are_marked(
    grey: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the three images two are nearer to a grey of 0.4 and one to 0.45; none is near to white."""
    monkeypatch.setattr("bench.report.stats.FEW", 3)  # signs of three images never agree beyond chance
    grid = ("grid.level=[0.4,0.45,1.0]", "tau=1")
    for metric in ("crps", "energy"):
        assert tune(grey, *grid, f"metric={metric}") == 0
        said = capsys.readouterr().out
        lines = [line for line in said.splitlines() if line.startswith("x4")]
        assert [[mark for mark in ("**", "~") if f" {mark} " in line] for line in lines] == [["**"], ["~"], []], said
        assert "1 others that these images do not tell from it" in said
    assert tune(grey / "noisy", *grid, "metric=lr_residual", "operator.sigma=0.05") == 0
    assert "~" not in capsys.readouterr().out  # no mean over images: never marked


def test_where_it_goes_does_not_depend_on_the_grid(grey: Path) -> None:
    def out(*words: str) -> Path:
        return read_tune(compose("tune", ["methods=[grey]", *words])).run.out

    assert out("++grid.level=[0.1,0.2]") == out("++grid.level=[0.3]", "++grid.shade=[a,b]")
    assert out("++grid.level=[0.1,0.2]") != out("++grid.level=[0.1,0.2]", "n=4")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "There is nothing to choose from"),
        (["grid.level=[]"], r"grid.level=\[\] is wrong: it should be one value or a list of at least one."),
        (["grid.level=[0.1,0.2]", "tau=[]"], r"tau=\[\] is wrong: it should be one value or a list of at least one."),
        (["grid.levle=[0.1,0.2]"], r"methods\.grey\.levle.*Did you mean"),
        (["grid.level=[0.1,2.0]"], r"methods\.grey\.level=2 is wrong: it should be at most 1|grey.level=2.0 is wrong"),
        (["grid.level=[0.1,0.2]", "metric=psnrr"], "Did you mean 'psnr'"),
        (["grid.level=[0.1,0.2]", "dataset.split=test"], "validation images only"),
        (["grid.level=[0.1,0.2]", "dataset=portraits256"], "portraits256 has no validation images"),
        (["grid.level=[0.1,0.2]", "metric=mmse_gap"], "mmse_gap is not defined"),
        (
            ["grid.level=[0.1,0.2]", "metric=apd_mse"],
            "apd_mse can be too large and too small, so that none is the best",
        ),
        (
            ["grid.level=[0.1,0.2]", "metric=lr_psnr", "operator.sigma=0.05"],
            r"With noise \(sigma 0.05\) more lr_psnr than 26.02 dB is fitted to the noise: choose metric=lr_residual",
        ),
        (["grid.level=[0.1,0.2]", "variants={a: {method: grey}}"], "tune takes one method"),
    ],
)
def test_mistakes(words: list[str], sentence: str, grey: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(grey, "tau=1", *words) == 1
    import re

    assert re.search(sentence, capsys.readouterr().err)


def test_it_takes_a_method() -> None:
    with pytest.raises(BenchError, match="tune method=NAME"):
        read_tune(compose("tune", ["methods=[bicubic,sr3]", "++grid.steps=[2,3]"]))
    assert main(["tune", "grid.steps=[2,3]"]) == 1


@pytest.mark.parametrize(
    ("name", "value", "right", "loss"),
    [
        ("c2st", 0.4, 0.5, 0.0), ("c2st", 0.6, 0.5, 0.1), ("rank_error", 0.2, 0.0, 0.2), ("apd_ratio_mse", 0.7, 1, 0.3),
        ("energy", 7.0, 6.5, 7.0),
    ],
)  # fmt: skip
def test_less_than_a_bounds_right_value_is_chance(name: str, value: float, right: float, loss: float) -> None:
    assert loss_of(Estimate(value, right=right), statistics.facts(name)) == pytest.approx(loss)
