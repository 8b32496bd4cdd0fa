"""The runner on the real bicubic method and on small methods that misbehave in one way each."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bench.contract import Facts, methods
from bench.data import make_dataset
from bench.errors import BenchError
from bench.metrics import Evaluation
from bench.operators.bicubic import Bicubic
from bench.report.tables import write_tables
from bench.run.cell import CellKey
from bench.run.evaluate import evaluate
from bench.run.runner import run
from bench.run.store import RunDir
from tests.bench.run.noisy import Configure, Noisy


def rows(directory: RunDir, label: str = "misfit", tau: float | None = 0.8, scale: int = 8) -> pd.DataFrame:
    return directory.cell(CellKey(label, scale, tau)).read("samples")


def test_bicubic_figures_agree_with_an_independent_computation(configure: Configure) -> None:
    """PSNR to 0.01 dB of scikit-image's metric on piq's imresize, both independent of ours."""
    import skimage.metrics
    from piq.functional.resize import imresize

    directory, complete = run(configure("limit=5", "scale=[4,8]"))
    assert complete
    dataset = make_dataset({"name": "synthfaces"})
    for scale in (4, 8):
        expected = []
        for i in range(5):
            hr = dataset.load(i)
            x = torch.from_numpy(hr).permute(2, 0, 1)[None].double() / 255
            low = (imresize(x, sizes=(64 // scale, 64 // scale)).clamp(0, 1) * 255).round() / 255
            up = (imresize(low, sizes=(64, 64), antialiasing=False).clamp(0, 1) * 255).round().byte()
            expected.append(skimage.metrics.peak_signal_noise_ratio(hr, up[0].permute(1, 2, 0).numpy(), data_range=255))
        measured = rows(directory, "bicubic", None, scale)["psnr"]
        np.testing.assert_allclose(measured, expected, atol=0.01)


def test_rows_and_files(configure: Configure, add) -> None:
    directory, complete = run(
        add(Noisy, configure("n=3", "tau=[0.1,0.8]", "metrics=[psnr,apd_mse,seconds,throughput]"))
    )
    assert complete
    frame = rows(directory)
    assert list(frame.columns) == ["method", "scale", "tau", "index", "image", "sample", "metrics", "psnr"]
    assert len(frame) == 9
    assert frame["sample"].tolist() == [0, 1, 2] * 3
    apd = {tau: directory.cell(CellKey("misfit", 8, tau)).read("images")["apd_mse"].mean() for tau in (0.1, 0.8)}
    assert apd[0.8] > 10 * apd[0.1]
    assert {p.name for p in (directory.path / "images/x8/000000").iterdir()} == {"hr.png", "lr.png"}
    names = {p.name for p in (directory.path / "cells/misfit_x8_tau0.1/samples").iterdir()}
    assert names == {f"{i:06d}_{j}.png" for i in range(3) for j in range(3)}
    environment = directory.path / "environment.json"
    assert "torch" in environment.read_text()
    timing = directory.cell(CellKey("misfit", 8, 0.8)).timing
    assert timing is not None
    assert timing["seconds"][0] > 0
    assert len(timing["noise_seconds"]) == len(timing["seconds"])
    assert timing["together"] == ["misfit_x8_tau0.1", "misfit_x8_tau0.8"]


def test_what_does_not_fit_beside_others_is_timed_alone(configure: Configure, add) -> None:
    class Large(Noisy):
        """Fits into memory only alone."""

        failed = False

        def draw(self, y, n, tau, noise):
            if noise.ids[0].startswith("timing") and not Large.failed:
                Large.failed = True
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().draw(y, n, tau, noise)

    directory, complete = run(add(Large, configure("limit=1", "metrics=[psnr,seconds]"), "bicubic"))
    assert complete
    timings = [directory.cell(CellKey(label, 8, tau)).timing for label, tau in (("misfit", 0.8), ("bicubic", None))]
    assert [t["together"] for t in timings if t] == [["misfit_x8_tau0.8"], ["bicubic_x8", "misfit_x8_tau0.8"]]


def test_a_method_that_fails_while_it_is_timed(configure: Configure, add) -> None:
    class Tired(Noisy):
        """Draws its images, but cannot be timed."""

        def draw(self, y, n, tau, noise):
            if noise.ids[0].startswith("timing"):
                raise ValueError("tired")
            return super().draw(y, n, tau, noise)

    directory, complete = run(add(Tired, configure("limit=1", "metrics=[psnr,seconds]"), "bicubic"))
    assert not complete
    assert directory.cell(CellKey("bicubic", 8, None)).timing
    assert directory.cell(CellKey("misfit", 8, 0.8)).timing is None
    assert "tired" in (directory.path / "failures.jsonl").read_text()


@pytest.mark.parametrize("overrides", [["batch=3"], ["batch=2", "limit=3"]])
def test_results_do_not_depend_on_the_batch(configure: Configure, add, tmp_path: Path, overrides: list[str]) -> None:
    one = rows(run(add(Noisy, configure()))[0])
    other = rows(run(add(Noisy, configure(*overrides, f"out={tmp_path / 'other'}")))[0])
    pd.testing.assert_frame_equal(one, other, rtol=1e-5)


def test_results_do_not_depend_on_the_limit_or_on_restarts(configure: Configure, add, tmp_path: Path) -> None:
    run(add(Noisy, configure("limit=1")))
    resumed = rows(run(add(Noisy, configure("limit=3")))[0])
    whole = rows(run(add(Noisy, configure(f"out={tmp_path / 'whole'}")))[0])
    pd.testing.assert_frame_equal(resumed, whole)


def test_a_finished_run_computes_nothing(configure: Configure, add, monkeypatch: pytest.MonkeyPatch) -> None:
    config = add(Noisy, configure())
    run(config)
    monkeypatch.setattr(Noisy, "draw", lambda *a: pytest.fail("sampled again"))
    assert run(config)[1]


def test_deterministic_methods_have_one_sample_and_no_spread(configure: Configure) -> None:
    directory, _ = run(configure("metrics=[psnr,apd_mse]"))
    assert rows(directory, "bicubic", None)["sample"].unique().tolist() == [0]
    assert (directory.cell(CellKey("bicubic", 8, None)).read("images")["apd_mse"] == 0).all()


def test_other_configuration_is_refused(configure: Configure) -> None:
    run(configure())
    with pytest.raises(BenchError, match=r"seed was 0, is 1.*another out=DIR"):
        run(configure("seed=1"))


def test_undeclared_scale_is_refused(configure: Configure, add) -> None:
    class Only4(Noisy):
        facts = Facts(title="Only 4", scales=(4,))

    with pytest.raises(BenchError, match="Only 4 does not do scale=8"):
        run(add(Only4, configure()))


def test_unknown_parameter_is_refused_before_anything_runs(configure: Configure) -> None:
    with pytest.raises(BenchError, match=r"methods\.bicubic\.sharpness is no setting"):
        run(configure("+methods.bicubic.sharpness=1"))


def test_one_bad_image_does_not_end_a_run(configure: Configure, image_folder: Path) -> None:
    (image_folder / "1.png").write_bytes(b"broken")
    Image.new("RGB", (10, 10)).save(image_folder / "2.png")
    directory, complete = run(configure("dataset=folder", f"dataset.path={image_folder}", "dataset.size=64", "limit=4"))
    assert not complete
    assert rows(directory, "bicubic", None)["image"].tolist() == ["0.png", "3.png"]
    assert [f["image"] for f in directory.failures] == ["1.png", "2.png"]
    Image.new("RGB", (80, 80)).save(image_folder / "1.png")  # mended: the next start takes it
    (image_folder / "2.png").unlink()
    Image.new("RGB", (80, 80)).save(image_folder / "2.png")
    directory, complete = run(configure("dataset=folder", f"dataset.path={image_folder}", "dataset.size=64", "limit=4"))
    assert complete
    assert len(rows(directory, "bicubic", None)) == 4


def test_a_name_that_is_not_utf8_is_an_image_like_any_other(configure: Configure, image_folder: Path) -> None:
    os.rename(image_folder / "1.png", os.fsencode(image_folder) + b"/caf\xe9.png")
    (image_folder / "2.png").unlink()
    (image_folder / "2.png").symlink_to(image_folder / "gone.png")
    directory, complete = run(configure("dataset=folder", f"dataset.path={image_folder}", "dataset.size=64", "limit=4"))
    assert not complete
    assert rows(directory, "bicubic", None)["image"].tolist() == ["0.png", "3.png", "caf\\udce9.png"]
    assert [(f["image"], f["reason"].endswith("is a link to what is not there.")) for f in directory.failures] == [
        ("2.png", True)
    ]


def test_nan_is_recorded_and_the_other_images_are_measured(configure: Configure, add) -> None:
    class Nan(Noisy):
        def draw(self, y, n, tau, noise):
            x = super().draw(y, n, tau, noise)
            for row, name in enumerate(noise.ids):
                if name == "test-000001":
                    x[row] = torch.nan
            return x

    directory, complete = run(add(Nan, configure("batch=3")))
    assert not complete
    assert rows(directory)["index"].unique().tolist() == [0, 2]
    assert directory.failures[0]["image"] == "test-000001"
    assert "NaN" in directory.failures[0]["reason"]


@pytest.mark.parametrize("kind", ["shape", "range", "dtype"])
def test_a_broken_contract_is_one_sentence_and_others_go_on(configure: Configure, add, kind: str) -> None:
    class Broken(Noisy):
        def draw(self, y, n, tau, noise):
            x = super().draw(y, n, tau, noise)
            return {"shape": x[:, 0], "range": x * 255, "dtype": x.double()}[kind]

    directory, complete = run(add(Broken, configure(), "bicubic"))
    assert not complete
    assert "broke the contract" in directory.failures[0]["reason"]
    assert len(rows(directory, "bicubic", None)) == 3


def test_a_bug_leaves_its_traceback_and_others_go_on(configure: Configure, add) -> None:
    class Bug(Noisy):
        def draw(self, y, n, tau, noise):
            raise ZeroDivisionError("oops")

    directory, complete = run(add(Bug, configure(), "bicubic"))
    assert not complete
    assert "ZeroDivisionError: oops" in directory.failures[0]["reason"]
    assert "in draw" in (directory.path / "errors" / "misfit_x8.txt").read_text()
    assert len(rows(directory, "bicubic", None)) == 3


def test_out_of_memory_halves_the_work_and_gives_the_same_rows(configure: Configure, add, tmp_path: Path) -> None:
    calls = []

    class Hungry(Noisy):
        def draw(self, y, n, tau, noise):
            calls.append((len(y), n))
            if len(y) * n > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().draw(y, n, tau, noise)

    directory, complete = run(add(Hungry, configure("batch=3", "n=5")))
    assert complete
    assert max(b * n for b, n in calls[-3:]) <= 2
    methods._items.pop("misfit")
    reference, _ = run(add(Noisy, configure("n=5", f"out={tmp_path / 'reference'}")))
    pd.testing.assert_frame_equal(rows(directory), rows(reference), rtol=1e-5)


def test_one_sample_that_does_not_fit_is_one_sentence(configure: Configure, add) -> None:
    class Huge(Noisy):
        def draw(self, y, n, tau, noise):
            raise torch.OutOfMemoryError("CUDA out of memory")

    directory, complete = run(add(Huge, configure()))
    assert not complete
    assert "more memory" in directory.failures[0]["reason"]


def test_out_of_memory_in_the_metrics_halves_the_images(
    configure: Configure, add, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.metrics.distortion import Psnr

    real = Psnr.__call__

    def hungry(self, e):
        if len(e.hr) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, e)

    monkeypatch.setattr(Psnr, "__call__", hungry)
    directory, complete = run(add(Noisy, configure("batch=3")))
    assert complete
    assert len(rows(directory)) == 15


def test_metrics_run_without_tf32_and_leave_the_methods_setting() -> None:
    seen = []

    def metric(e: Evaluation) -> torch.Tensor:
        seen.append(torch.backends.cudnn.allow_tf32)
        return torch.zeros(1, 1)

    before = torch.backends.cudnn.allow_tf32
    x = torch.zeros(1, 3, 16, 16)
    evaluate({"any": metric}, Evaluation(x, x[..., ::4, ::4], x[:, None], Bicubic(16, 4)))  # type: ignore[dict-item]
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32 == before


def test_full_disk_keeps_what_is_done(configure: Configure, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import bench.files

    real, count = os.fsync, iter(range(10**6))

    def fsync(fd: int) -> None:
        if next(count) > 16:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    monkeypatch.setattr(bench.files.os, "fsync", fsync)
    with pytest.raises(BenchError, match="the disk is full"):
        run(configure("limit=8", "save_samples=none"))
    monkeypatch.setattr(bench.files.os, "fsync", real)
    kept = len(rows(RunDir(tmp_path / "run"), "bicubic", None))
    assert 0 < kept < 8
    assert not list((tmp_path / "run").rglob("*.tmp"))
    assert run(configure("limit=8", "save_samples=none"))[1]


def test_two_runs_cannot_share_a_directory(configure: Configure) -> None:
    config = configure()
    with RunDir(config.out).lock(), pytest.raises(BenchError, match="Another run is working"):
        run(config)


@pytest.mark.parametrize("kills", [3])
def test_sigkill_at_any_point_and_resume_give_the_same_tables(tmp_path: Path, kills: int) -> None:
    settings = ["limit=40", "scale=[4,8]", "metrics=[psnr,ssim,brisque,apd_mse]", "device=cpu", "save_samples=all"]

    def command(out: Path) -> list[str]:
        return [sys.executable, "-m", "bench", "run", *settings, f"out={out}"]

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True)
    killed = tmp_path / "killed"
    for k in range(kills):
        process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while (
            len(list(killed.rglob("*.samples.parquet"))) <= 3 * k
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        time.sleep(0.05 * k)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command(killed), check=True, capture_output=True)
    for name in ("table.csv", "table.md", "table.tex", "differences.csv"):
        assert (killed / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    for path in (tmp_path / "whole" / "cells").glob("*/samples/*.png"):
        assert (killed / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()
    for name in ("samples", "images"):
        for path in (tmp_path / "whole" / "cells").glob(f"*/{name}.parquet"):
            other = killed / path.relative_to(tmp_path / "whole")
            pd.testing.assert_frame_equal(pd.read_parquet(path), pd.read_parquet(other), check_exact=True)


@pytest.mark.parametrize(
    ("sent", "code", "how", "workers"),
    [(signal.SIGINT, 130, "interrupted", 1), (signal.SIGTERM, 143, "terminated", 1),
     (signal.SIGTERM, 143, "terminated", 2)],
)  # fmt: skip
def test_ctrl_c_and_sigterm_are_one_sentence_and_keep_rows(
    sent: signal.Signals, code: int, how: str, workers: int, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    settings = ["limit=1000", "metrics=[psnr]", "device=cpu", "launch.cpus=1", f"launch.workers={workers}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "run", *settings, f"out={out}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(out.rglob("*.samples.parquet")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    last = errors.strip().splitlines()[-1]
    assert last == f"bench: {how}. What is done is kept; the same command goes on."
    assert "Traceback" not in errors
    assert list(out.rglob("*.samples.parquet"))
    assert not (out / "launch").exists()


def test_memory_stays_flat(configure: Configure) -> None:
    """Images are streamed: four times as many do not need more memory."""
    import tracemalloc

    peaks = []
    for limit in (50, 200):
        tracemalloc.start()
        run(configure(f"limit={limit}", "save_samples=none", f"out={configure().out}-{limit}"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 2**21  # 150 more images are 7 MB, their records 1.3


def test_tables_need_no_model(configure: Configure, add) -> None:
    directory, _ = run(add(Noisy, configure()))
    methods._items.pop("misfit")
    assert "Noisy" in write_tables(directory)


def test_cells_of_earlier_starts_stay_in_the_table(configure: Configure, add) -> None:
    run(configure())
    directory, _ = run(add(Noisy, configure()))
    text = write_tables(directory)
    assert "Noisy" in text
    assert "Bicubic" in text


def test_wrong_weights_for_existing_rows_are_refused(configure: Configure, add, tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"one")

    class Weighted(Noisy):
        def files(self):
            return {"network": weights}

    run(add(Weighted, configure("limit=1")))
    weights.write_bytes(b"two")
    with pytest.raises(BenchError, match=r"the weights 'network' were .*, are .*: add stale=recompute"):
        run(add(Weighted, configure("limit=2")))


def test_operator_is_exact_for_every_image() -> None:
    from bench.run.draw import observe

    dataset = make_dataset({"name": "synthfaces"})
    exact = Bicubic(64, 8, dtype=torch.float64)
    hr, y = observe(dataset, 0, exact, 0)
    assert hr.dtype == y.dtype == torch.float32
    assert torch.equal((y * 255).round() / 255, y)


def test_a_range_that_is_not_that_of_the_images_is_refused(configure: Configure) -> None:
    with pytest.raises(BenchError, match=r"operator\.range=\[0\.0, 255\.0\] is not that of synthfaces, \[0\.0, 1\.0\]"):
        run(configure("operator.range=[0,255]"))
