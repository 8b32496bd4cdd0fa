"""The command line as a person meets it: one sentence for each mistake, and the promised files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench.cli import COMMANDS, HYDRA_COMMANDS, main
from bench.errors import BenchError

QUICK = ["device=cpu", "limit=2", "metrics=[psnr]"]


def bench(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "bench", *words, **environment)


def python(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=os.environ | environment)


def sentence_of(words: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """What a command that must fail says, which must be one sentence."""
    assert main(words) == 1
    errors = capfd.readouterr().err.strip()
    assert errors.startswith("bench: ")
    assert len(errors.splitlines()) == 1
    return errors


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["rum"], "There is no command 'rum'. Did you mean 'run'?"),
        (["run", "methods=[bicubc]"], "There is no method 'bicubc'. Did you mean 'bicubic'?"),
        (["run", "metrics=[psnrr]"], "There is no metric 'psnrr'. Did you mean 'psnr'"),
        (["run", "dataset=synthface"], "There is no dataset 'synthface'. Did you mean 'synthfaces'?"),
        (["run", "operator=bicubc"], "There is no operator 'bicubc'. Did you mean 'bicubic'?"),
        (["run", "network/unett@methods.dps.unet=small64"], "There is no group 'network/unett'. Did you mean"),
        (["run", "perceptual=lpips"], "There is no perceptual distance 'lpips'."),
        (["run", "metrics=[psnr]", "perceptual=foo"], "There is no perceptual distance 'foo'. Known: lpips_alex"),
        (["run", "operator.sigma=nan"], "operator.sigma=nan is wrong: give the standard deviation"),
        (["run", "operator.sigma=inf"], "operator.sigma=inf is wrong"),
        (["run", "operator.range=[1,0]"], "operator.range=[1,0] is wrong: give the smallest and the largest intensity"),
        (["run", f"variants={{{'v' * 300}: {{method: bicubic}}}}"], "it has 300 letters, use 100 at most"),
        (["run", "variants={a: {method: dps, steps: 0}}"], "variants.a.steps=0 is wrong: it should be at least 2"),
        (["run", "scale"], "'scale' is not of the form key=value"),
        (["run", "methods=[0]"], "methods=[0]: wrong: groups take names"),
        (["run", "methods=[0]", "dataset=synthfaces"], "bench: methods=[0]: wrong: groups take names"),
        (["check", "method=0"], "methods=[0]: wrong: groups take names"),
        (["train", "method=0"], "recipe=0: wrong: groups take names"),
        (["run", "+n=4"], "There is a setting 'n' already: write n=VALUE, without +."),
        (["run", "out=${nothing}"], "refers to what is not there: Interpolation key 'nothing' not found"),
        (["run", "scale=7"], "scale=7 does not divide the image size 64"),
        (["run", "methods=[]"], "methods is empty"),
        (["run", "dataset=folder"], "dataset.path has no value"),
        (["run", "dataset=folder", "dataset.path=/nowhere"], "dataset.path=/nowhere is no folder"),
        (["run", "device=cuda:99"], "device=cuda:99 is not there"),
        (["run", "device=tpu"], "device=tpu is no device"),
        (["tables", "/nowhere"], "/nowhere is no run directory"),
        (["measure"], "measure takes a run directory"),
        (["measure", "/nowhere"], "/nowhere is no run directory"),
        (["measure", "/nowhere", "metric=[psnr]"], "There is no setting 'metric'. Did you mean 'metrics'"),
        (["export", "/nowhere"], "/nowhere is no run directory"),
        (["compare", "/nowhere", "/nowhere"], "/nowhere is no run directory"),
        (["compare", "/nowhere", "/nowhere", "tolerance=3"], "tolerance=3 is wrong: it should be a group of settings"),
        (["check"], "check takes one method"),
        (["check", "method=bicubc"], "Did you mean 'bicubic'?"),
        (["train"], "train takes one method"),
        (["train", "method=vdvea"], "There is no training 'vdvea'. Did you mean 'vdvae'"),
        (["figure"], "figure needs a name"),
        (["figure", "ku"], "There is no figure 'ku'. Did you mean 'uk'?"),
        (["reproduce"], "reproduce needs a part"),
        (["reproduce", "table3", "dataset=synthfaces"], "There is no part 'table3'. Did you mean 'table2'"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], sentence: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = [f"out={tmp_path / 'run'}"] if words[0] == "run" and not words[-1].startswith("out=") else []
    assert sentence in sentence_of([*words, *out], capfd)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "scal=8"], "There is no setting 'scal'. Did you mean 'scale'"),
        (["run", "timing.repeat=8"], "There is no setting 'timing.repeat'. Did you mean 'timing.repeats'?"),
        (["run", "dataset.siz=8"], "There is no setting 'dataset.siz'. Did you mean 'dataset.size'"),
        (["run", "+dataset.siz=8"], "dataset.siz is no setting of synthfaces. Did you mean 'size'"),
        (["run", "operator.sgma=1"], "There is no setting 'operator.sgma'. Did you mean 'operator.sigma'?"),
        (["run", "+operator.sgma=1"], "operator.sgma is no setting of bicubic. Did you mean 'sigma'?"),
        (["run", "+sed=8"], "sed is no setting. Did you mean 'seed'"),
        (["run", "+timing.repeat=8"], "timing.repeat is no setting. Did you mean 'repeats'?"),
        (["run", "methods=[dps]", "methods.dps.stpes=4"], "'methods.dps.stpes'. Did you mean 'methods.dps.steps'?"),
        (
            ["run", "methods=[cvdvae]", "methods.cvdvae.prior.widht=4"],
            "There is no setting 'methods.cvdvae.prior.widht'. Did you mean 'methods.cvdvae.prior.width'",
        ),
        (["run", "methods.cvdvae.prior.width=4"], "cvdvae is not among the methods bicubic"),
        (["run", "methods=[dps]", "methods.dps.steps.x=4"], "methods.dps.steps is a value, not a group of settings"),
        (["run", "methods=[dps]", "methods.dps.precision=bf16"], "Did you mean 'methods.dps.compute.precision'?"),
        (["run", "methods=[dps]", "+methods.dps.precison=bf16"], "of dps. Did you mean 'compute.precision'"),
        (["run", "methods=[dps]", "precision=bf16"], "'precision'. Did you mean 'methods.dps.compute.precision'?"),
        (["run", "methods=[dps]", "methods.dps.row=3"], "Did you mean 'methods.dps.compute.rows'?"),
        (
            ["run", "methods=[dps]", "methods.dps.batch=4"],
            "There is no setting 'methods.dps.batch'. Did you mean 'batch'?",
        ),
        (["run", "methods=[dps]", "methods.dps.foo=4"], "Known: methods.dps.clip, methods.dps.compute, "),
        (["run", "methods=[dps]", "+methods.dps.unet.foo=1"], "methods.dps.unet.foo is no setting of dps. Known: "),
        (["run", "+methods.bicubic.foo=1"], "methods.bicubic.foo is no setting of bicubic. It has none."),
        (["train", "method=vdvae", "lrr=1"], "There is no setting 'lrr'. Did you mean 'lr'"),
        (["train", "method=vdvae", "method.network.prior.wdth=3"], "Did you mean 'method.network.prior.width'"),
        (["train", "method=vdvae", "+method.network.wights=a"], "of vdvae. Did you mean 'weights'"),
        (["reproduce", "table1", "dataset=synthfaces", "pictures.imags=3"], "Did you mean 'pictures.images'"),
        (["figure", "uk", "study.cdes=3"], "There is no setting 'study.cdes'. Did you mean 'study.codes'"),
    ],
)
def test_unknown_settings_get_near_matches_at_every_depth(
    words: list[str], sentence: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert sentence in sentence_of([*words, "device=cpu", f"out={tmp_path / 'run'}"], capfd)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# @package methods.mine\na: [1, 2\n", "mine.yaml, line 3, column 1: this is no YAML (expected ',' or ']'"),
        ("# @package methods.mine\na: 1\n b: 2\n", "mine.yaml, line 3, column 3: this is no YAML"),
        ("- a\n- b\n", "methods=['a', 'b'] is no group of settings"),
        ("# @package methods.mine\n- a\n", "methods.mine=['a'] is wrong: it should be a group of settings"),
    ],
)
def test_a_damaged_yaml_file_is_one_sentence(
    text: str, sentence: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.yaml").write_text(text)
    words = ["run", "methods=[mine]", "--config-dir", str(tmp_path), "device=cpu", f"out={tmp_path / 'run'}"]
    assert sentence in sentence_of(words, capfd)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "scale=eight"], "scale=eight is wrong: it should be a whole number."),
        (["run", "scale=[4,x]"], "scale=x is wrong: it should be a whole number."),
        (["run", "scale=[]"], "scale=[] is wrong: it should be one value or a list of at least one."),
        (["run", "scale=1"], "scale=1 is wrong: it should be at least 2."),
        (["run", "tau=3"], "tau=3 is wrong: it should be at most 1."),
        (["run", "tau=0"], "tau=0 is wrong: it should be above 0."),
        (["run", "n=0"], "n=0 is wrong: it should be at least 1."),
        (["run", "n=true"], "n=true is wrong: it should be a whole number."),
        (["run", "quantise=1"], "quantise=1 is wrong: it should be true or false."),
        (["run", "timing.budget=x"], "timing.budget=x is wrong: it should be a number."),
        (["run", "timing=3"], "timing=3 is wrong: it should be a group of settings."),
        (["run", "images=400:200"], "images=400:200 is wrong: it should be a range, as 200:400"),
        (["run", "images=4"], "images=4 is wrong: it should be a range"),
        (["run", "stale=maybe"], "stale=maybe is wrong: it should be 'refuse' or 'recompute'."),
        (["run", "save_samples=some"], "save_samples=some is wrong: it should be 'auto', 'all' or 'none'."),
        (["run", "save_budget=lots"], "save_budget=lots is wrong: it should be a size, as 500MB"),
        (["run", "launch=slum"], "There is no option of launch, 'slum'. Did you mean 'slurm'?"),
        (["run", "launch.workers=0"], "launch.workers=0 is wrong: it should be at least 1."),
        (["run", "launch=slurm"], "launch=slurm needs launch.workers=N"),
        (["run", "launch.address=auto"], "launch.address is of a Ray cluster: add launch=ray"),
        (["run", "dataset.size=abc"], "dataset.size=abc is wrong: it should be a whole number."),
        (["run", "operator.sigma=abc"], "operator.sigma=abc is wrong: it should be a number."),
        (["run", "operator.range=[0]"], "operator.range is wrong: it should have more values."),
        (["run", "methods=[dps]", "methods.dps.steps=abc"], "methods.dps.steps=abc is wrong: it should be a whole"),
        (["run", "methods=[dps]", "methods.dps.compute.rows=0"], "compute.rows=0 is wrong: it should be at least 1 or"),
        (["run", "methods=[dps]", "methods.dps.unet.multipliers=[1,x]"], "multipliers=x is wrong"),
        (["train", "method=vdvae", "budget=long"], "budget=long is wrong: it should be a time, as 48h"),
        (["train", "method=vdvae", "lr=0"], "lr=0 is wrong: it should be above 0."),
        (["train", "method=vdvae", "betas=[0.9]"], "betas is wrong: it should have more values."),
        (["train", "method=vdvae", "schedule=linear"], "schedule=linear is wrong: it should be 'constant', 'cosine'"),
        (["reproduce", "table1", "dataset=synthfaces", "table2.tau=2"], "table2.tau=2 is wrong: it should be at most"),
        (["reproduce", "table1", "dataset=synthfaces", "plan=2"], "plan=2 is wrong: it should be true or false."),
        (["figure", "uk", "study.codes=x"], "study.codes=x is wrong: it should be a whole number."),
    ],
)
def test_wrong_values_are_one_sentence_that_names_the_key(
    words: list[str], sentence: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert sentence in sentence_of([*words, "device=cpu", f"out={tmp_path / 'run'}"], capfd)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("variants={dps20: {method: dsp}}", "There is no method 'dsp'. Did you mean 'dps'"),
        ("variants={bicubic: {method: bicubic}}", "there is a row 'bicubic' already"),
        ("variants={a/b: {method: bicubic}}", "'a/b' cannot be the name of rows: use letters, digits and - _ . +"),
        ("variants={dps20: {steps: 3}}", "variants.dps20 has no method: write variants={dps20: {method: NAME, ...}}."),
        ("variants={dps20: {method: dps, stpes: 3}}", "variants.dps20.stpes is no setting of dps. Did you mean"),
        ("variants={dps20: {method: dps, steps: x}}", "variants.dps20.steps=x is wrong: it should be a whole number."),
        ("variants=3", "variants=3 is wrong: it should be a group of settings"),
        ("+methods.dps2={method: dps, steps: 4}", "write 'variants={dps2: {method: dps, steps: 4}}'."),
    ],
)
def test_wrong_variants_are_one_sentence(
    word: str, sentence: str, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert sentence in sentence_of(["run", word, "device=cpu", f"out={tmp_path / 'run'}"], capfd)


def test_variants_are_rows_beside_those_of_methods(tmp_path: Path) -> None:
    settings = "method: dps, unet: {size: 64}"
    words = [f"variants={{dps2: {{{settings}, steps: 2}}, dps3: {{{settings}, steps: 3}}}}", "scale=8", "n=1"]
    assert main(["run", *QUICK, "limit=1", *words, f"out={tmp_path}"]) == 0
    assert pd.read_csv(tmp_path / "table.csv")["method"].tolist() == ["bicubic", "dps2", "dps3"]


@pytest.mark.parametrize("operator", [["operator=bicubic", "operator.sigma=0.05"], ["operator=average"]])
def test_operators_and_noise(operator: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "method=bicubic", "device=cpu", *operator]) == 0
    assert main(["run", *QUICK, "scale=8", *operator, f"out={tmp_path / 'run'}"]) == 0
    capfd.readouterr()
    refused = sentence_of(["run", *QUICK, "methods=[bicubic,cvdvae]", *operator, f"out={tmp_path / 'no'}"], capfd)
    assert f"CVDVAE does not do {operator[-1]}: it does bicubic x4, x8" in refused
    assert not (tmp_path / "no").exists()


def test_an_error_of_the_task_is_not_one_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import bench.run.runner
    import bench.training.trainer

    def fail(*_: object) -> None:
        raise ValueError("in the middle")

    monkeypatch.setattr(bench.run.runner, "run", fail)
    monkeypatch.setattr(bench.training.trainer.Trainer, "fit", fail)
    with pytest.raises(ValueError, match=r"^in the middle$"):
        main(["run", *QUICK, f"out={tmp_path}"])
    with pytest.raises(ValueError, match=r"^in the middle$"):
        main(["train", "method=vdvae", "device=cpu", "precision=32", f"out={tmp_path}"])
    assert "composed" not in capfd.readouterr().err

    with pytest.raises(ValueError, match=r"^in the middle$"):  # a sweep goes on, and each error is shown
        main(["run", "--multirun", *QUICK, "seed=0,1", f"out={tmp_path}", f"hydra.sweep.dir={tmp_path / 'sweep'}"])
    assert capfd.readouterr().err.count("ValueError: in the middle") == 1

    def mendable(*_: object) -> None:
        raise BenchError("Turn it off and on.")

    monkeypatch.setattr(bench.run.runner, "run", mendable)
    assert sentence_of(["run", *QUICK, f"out={tmp_path}"], capfd) == "bench: Turn it off and on."


def test_an_interrupted_sweep_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import bench.run.runner

    seen = []

    def interrupt(config: object) -> None:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.run.runner, "run", interrupt)
    words = [f"out={tmp_path}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert main(["run", "--multirun", *QUICK, "seed=0,1", *words]) == 130
    assert len(seen) == 1


def test_help_at_every_level(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    top = capsys.readouterr().out
    for command in COMMANDS:
        assert f"  {command} " in top
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"python -m bench {command}" in text
        assert "xample" in text


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("run", ["scale=[4,8]", "(one or a list: whole number from 2)", "timing.max_batch=64", "save_budget=500MB"]),
        ("run", ["methods   bicubic, cvdvae,", "operator  average, bicubic", "variants={dps20: {method: dps"]),
        ("check", ["scale=4", "limit=2"]),
        ("train", ["lr=0.0002", "vdvae_ffhq256", "(constant or cosine or plateau or multistep)", "budget=null"]),
        ("reproduce", ["table2.tau=[0.1,0.8]", "pictures.samples=3", "seed=0", "apd_images=500"]),
        ("figure", ["study     uk", "seed=0"]),
    ],
)
def test_help_tells_every_setting(command: str, lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    for line in lines:
        assert line in text


LIGHT = [["--help"], *([c, "--help"] for c in COMMANDS), ["methods"], ["data"], ["operators"], ["weights"], ["metrics"]]


def test_help_and_lists_import_no_network_library() -> None:
    code = f"""
import sys
from bench.cli import main
for words in {LIGHT}:
    assert main(words) == 0
    heavy = [m for m in ("torch", "diffusers", "pandas", "matplotlib") if m in sys.modules]
    assert not heavy, (words, heavy)
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_run_of_bicubic_imports_nothing_of_the_others(tmp_path: Path) -> None:
    code = f"""
import sys
from bench.cli import main
assert main(["run", "methods=[bicubic]", "scale=8", *{QUICK}, "out={tmp_path}"]) == 0
heavy = [m for m in ("diffusers", "lightning_fabric", "lightning", "tensorboard", "torch.utils.tensorboard")
         if m in sys.modules]
assert not heavy, heavy
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr


def test_help_takes_less_than_a_third_of_the_time_of_torch() -> None:
    def seconds(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python(*words).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    reference = min(seconds("-c", "import torch") for _ in range(2))
    for words in (["--help"], ["run", "--help"], ["train", "--help"]):
        assert min(seconds("-m", "bench", *words) for _ in range(2)) < 0.3 * reference, words


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
    assert main(["tables", str(tmp_path), "--paper"]) == 0
    assert (tmp_path / "paper.csv").is_file()


def test_cfg_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--cfg", "job", "scale=2"]) == 0
    shown = capsys.readouterr().out
    assert "scale: 2" in shown
    assert "save_budget: 500MB" in shown
    assert main(["train", "--cfg", "job", "method=vdvae"]) == 0
    assert "schedule: cosine" in capsys.readouterr().out  # the recipe's, over the default


def test_a_sweep_goes_on_after_a_bad_job(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = [f"out={tmp_path}/x${{scale}}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    assert main(["run", "--multirun", *QUICK, "scale=7,4,8", *words]) == 1
    assert "scale=7 does not divide" in capfd.readouterr().err
    assert (tmp_path / "x4" / "table.csv").is_file()
    assert (tmp_path / "x8" / "table.csv").is_file()


def test_a_sweep_on_a_cluster_says_what_failed(tmp_path: Path) -> None:
    swept = bench(
        "run", "--multirun", "hydra/launcher=submitit_local", f"hydra.sweep.dir={tmp_path}/sweep", *QUICK, "scale=7,8",
        f"out={tmp_path}/x${{scale}}",
    )  # fmt: skip
    assert swept.returncode == 1
    assert "scale=7 does not divide" in swept.stderr
    assert "composed" not in swept.stderr
    assert (tmp_path / "x8" / "table.csv").is_file()


@pytest.mark.parametrize(
    ("installed", "sentence"),
    [
        (False, "pip install 'diverse-sr-bench[cluster]'."),
        (True, "There is no option of hydra/launcher, 'submitit_no'."),
    ],
)
def test_a_missing_launcher_is_one_sentence(
    installed: bool, sentence: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.composing.importlib.util.find_spec", lambda name: object() if installed else None)
    assert main(["run", "--multirun", "hydra/launcher=submitit_no", *QUICK]) == 1
    assert sentence in capfd.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bench ch", "check"),
        ("bench run datas", "dataset="),
        ("bench run dataset=synth", "dataset=synthfaces"),
        ("bench run timing.re", "timing.repeats="),
        ("bench train lo", "log_every="),
        ("bench sample cv", "cvdvae"),
        ("bench sample cvdvae face.png degr", "degrade="),
        ("bench sample cvdvae face.png operator=av", "operator=average"),
        ("bench measure results/run stat", "statistics="),
        ("bench compare results/a results/b tol", "tolerance="),
    ],
)
def test_completion(
    line: str, expected: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert main(["-sc", "query=bash"]) == 0
    assert expected in capfd.readouterr().out.split()


def test_completion_installs(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["-sc", "install=bash"]) == 0
    assert "complete -o nospace" in capfd.readouterr().out


def test_incomplete_runs_have_a_non_zero_code(
    image_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (image_folder / "0.png").write_bytes(b"broken")
    words = ["dataset=folder", f"dataset.path={image_folder}", "dataset.size=64", f"out={tmp_path / 'run'}"]
    assert main(["run", *QUICK, *words]) == 1
    errors = capfd.readouterr().err
    assert "0.png cannot be decoded" in errors
    assert "failures.jsonl" in errors
    assert pd.read_csv(tmp_path / "run" / "table.csv")["n_images"].tolist() == [1, 1]


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for command, word in (
        ("methods", "bicubic"), ("metrics", "stlpips_alex"), ("data", "portraits256"), ("operators", "average"),
        ("weights", "ffhq_10m.pt"),
    ):  # fmt: skip
        assert main([command]) == 0
        assert word in capsys.readouterr().out


def test_wrong_usage_of_plain_commands_is_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "--all"]) == 2
    assert main([]) == 2
    assert "unrecognized arguments" in capsys.readouterr().err


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
        "    def __init__(self, amount: float): self.amount = amount\n"
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
    dull = "variants={dull: {method: sharpest, amount: 0.5}}"
    done = bench("run", *QUICK, *words, dull, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv(tmp_path / "run" / "table.csv")["method"].tolist() == ["bicubic", "sharpest", "dull"]
    checked = bench("check", "method=sharpest", PYTHONPATH=path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    wrong = bench("run", *QUICK, "methods=[sharpest]", "methods.sharpest.amount=much", PYTHONPATH=path)
    assert wrong.stderr.strip() == "bench: methods.sharpest.amount=much is wrong: it should be a number."


def test_every_command_that_hydra_composes_has_a_help() -> None:
    from bench.help import COMMANDS as HELP

    assert set(HELP) == set(HYDRA_COMMANDS)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        ImportError("x.so: failed to map segment from shared object"),
    ],
)
def test_no_memory_is_one_sentence(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: list[str]) -> int:
        raise error

    monkeypatch.setitem(COMMANDS, "methods", fail)
    assert main(["methods"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("bench: out of memory. What is done is kept")
    assert said.count("\n") == 1


def test_a_signal_while_python_ends_does_not_change_the_exit_code(tmp_path: Path) -> None:
    """Libraries take a second to end, in which all is written already."""
    program = (
        "import atexit, os, signal, sys, time\n"
        "import bench.cli\n"
        "def late():\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT); time.sleep(0.2)\n"
        "atexit.register(late)\n"
        "sys.argv = ['bench', '--help']\n"
        "bench.cli.entry()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
