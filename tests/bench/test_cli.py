"""The command line as a person meets it: one sentence for each mistake, and the promised files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.cli import COMMANDS, main

QUICK = ["device=cpu", "limit=2", "metrics=[psnr]"]


def bench(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rum"], "There is no command 'rum'. Did you mean 'run'?"),
        (["run", "scal=8"], "There is no setting 'scal'. Did you mean 'scale'?"),
        (["run", "dataset.siz=8"], "'dataset.size'"),
        (["run", "methods=[bicubc]"], "There is no method 'bicubc'. Did you mean 'bicubic'?"),
        (["run", "metrics=[psnrr]"], "There is no metric 'psnrr'. Did you mean 'psnr'"),
        (["run", "dataset=synthface"], "There is no dataset 'synthface'. Did you mean 'synthfaces'?"),
        (["run", "perceptual=lpips"], "There is no perceptual distance 'lpips'."),
        (["run", "scale"], "'scale' is not of the form key=value"),
        (["run", "scale=7"], "scale=7 does not divide the image size 64"),
        (["run", "scale=eight"], "scale=eight is not a whole number"),
        (["run", "tau=3"], "tau=3 is not a number above 0 and up to 1"),
        (["run", "n=0"], "n=0 is not a whole number of at least 1"),
        (["run", "methods=[]"], "methods is empty"),
        (["run", "dataset=folder"], "dataset.path has no value"),
        (["run", "dataset=folder", "dataset.path=/nowhere"], "dataset.path=/nowhere is no folder"),
        (["run", "device=cuda:99"], "device=cuda:99 is not there"),
        (["run", "device=tpu"], "device=tpu is no device"),
        (["tables", "/nowhere"], "/nowhere is no run directory"),
        (["check"], "check takes one method"),
        (["check", "method=bicubc"], "Did you mean 'bicubic'?"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = [f"out={tmp_path / 'run'}"] if words[0] == "run" else []
    assert main([*words, *out]) == 1
    errors = capfd.readouterr().err.strip()
    assert sentence in errors
    assert errors.startswith("bench: ")
    assert len(errors.splitlines()) == 1


def test_help_at_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    top = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in top
        with pytest.raises(SystemExit, match="0"):
            main([command, "--help"])
        text = capsys.readouterr().out
        assert f"python -m bench {command}" in text
        assert "xample" in text


def test_the_promised_command_and_files(tmp_path: Path) -> None:
    done = bench(
        "run", "methods=[bicubic]", "scale=8", "limit=3", "tau=0.5", "n=2", "seed=1", "device=cpu", f"out={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    assert "Bicubic" in done.stdout
    assert (
        "LPIPS weights are not on this machine" in done.stderr or "lpips_alex" in (tmp_path / "table.csv").read_text()
    )
    for name in (
        "table.csv",
        "table.tex",
        "table.md",
        "differences.csv",
        "config.yaml",
        "environment.json",
        "figures/samples_x8.png",
    ):
        assert (tmp_path / name).is_file(), name
    columns = set(pd.read_csv(tmp_path / "table.csv").columns)
    for name in ("psnr", "ssim", "brisque", "lr_psnr", "apd_mse_e4", "seconds"):
        assert {name, f"{name}_lo", f"{name}_hi"} <= columns
    assert {"scale", "method", "tau", "n_images"} <= columns
    again = bench("tables", str(tmp_path), "--paper")
    assert again.returncode == 0
    assert (tmp_path / "paper.csv").is_file()


def test_cfg_job_and_multirun(tmp_path: Path) -> None:
    shown = bench("run", "--cfg", "job", "scale=2")
    assert shown.returncode == 0
    assert "scale: 2" in shown.stdout
    swept = bench("run", "--multirun", *QUICK, "scale=4,8", f"out={tmp_path}/x${{scale}}")
    assert swept.returncode == 0, swept.stderr
    assert (tmp_path / "x4" / "table.csv").is_file()
    assert (tmp_path / "x8" / "table.csv").is_file()


def test_a_sweep_goes_on_after_a_bad_job(tmp_path: Path) -> None:
    swept = bench("run", "--multirun", *QUICK, "scale=7,8", f"out={tmp_path}/x${{scale}}")
    assert swept.returncode == 1
    assert "scale=7 does not divide" in swept.stderr
    assert (tmp_path / "x8" / "table.csv").is_file()


def test_a_sweep_on_a_cluster_says_what_failed(tmp_path: Path) -> None:
    swept = bench(
        "run", "--multirun", "hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path}/sweep", *QUICK, "scale=7,8",
        f"out={tmp_path}/x${{scale}}",
    )  # fmt: skip
    assert swept.returncode == 1
    assert "scale=7 does not divide" in swept.stderr
    assert (tmp_path / "x8" / "table.csv").is_file()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bench ch", "check"),
        ("bench run datas", "dataset="),
        ("bench run dataset=synth", "dataset=synthfaces"),
        ("bench run timing.re", "timing.repeats="),
    ],
)
def test_completion(line: str, expected: str) -> None:
    done = bench("-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
    assert expected in done.stdout.split(), done.stderr


def test_completion_installs() -> None:
    done = bench("-sc", "install=bash")
    assert "complete -o nospace" in done.stdout


def test_incomplete_runs_have_a_non_zero_code(image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "0.png").write_bytes(b"broken")
    done = bench(
        "run", *QUICK, "dataset=folder", f"dataset.path={image_folder}", "dataset.size=64", f"out={tmp_path / 'run'}"
    )
    assert done.returncode == 1
    assert "0.png cannot be decoded" in done.stderr
    assert "failures.jsonl" in done.stderr
    assert pd.read_csv(tmp_path / "run" / "table.csv")["n_images"].tolist() == [1, 1]


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for command, word in (("methods", "bicubic"), ("metrics", "stlpips_alex"), ("data", "portraits256")):
        assert main([command]) == 0
        assert word in capsys.readouterr().out


def test_check_prints_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "method=bicubic"]) == 0
    text = capsys.readouterr().out
    assert "pass  finite" in text
    assert "keeps the contract" in text


def test_third_party_method_without_touching_the_repository(tmp_path: Path) -> None:
    """A package with an entry point and a yaml file beside its module."""
    package = tmp_path / "sharpest"
    (package / "configs" / "methods").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "method.py").write_text(
        "from bench.contract import Facts, Method, register_method\n"
        "@register_method('sharpest')\n"
        "class Sharpest(Method):\n"
        "    facts = Facts(title='Sharpest', uses_tau=False, deterministic=True)\n"
        "    def __init__(self, amount): self.amount = amount\n"
        "    def draw(self, y, n, tau, noise):\n"
        "        x = self.operator.pinv(y) * self.amount\n"
        "        return x.clamp(0, 1)[:, None].expand(-1, n, -1, -1, -1).contiguous()\n"
    )
    (package / "configs" / "methods" / "sharpest.yaml").write_text("# @package methods.sharpest\namount: 1.0\n")
    info = tmp_path / "sharpest-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sharpest\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bench.methods]\nsharpest = sharpest.method\n")
    path = os.pathsep.join([str(tmp_path), os.getcwd()])
    words = ["methods=[bicubic,sharpest]", "methods.sharpest.amount=0.9", "scale=8", f"out={tmp_path / 'run'}"]
    done = bench("run", *QUICK, *words, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "run" / "table.csv")["method"].tolist() == ["bicubic", "sharpest"]
    checked = bench("check", "method=sharpest", PYTHONPATH=path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
