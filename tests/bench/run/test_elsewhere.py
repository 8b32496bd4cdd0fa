"""Runs with workers, whatever dies: the same tables as one process. They are processes here, submitit's, or Ray's."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.config import MethodConfig, RunConfig
from bench.contract import methods
from bench.errors import BenchError
from bench.report.tables import write_tables
from bench.run.cell import CellKey
from bench.run.runner import run
from bench.run.store import RunDir

Configure = Callable[..., RunConfig]
HERE = Path(__file__).parent
KEY = CellKey("mortal", 8, 0.8)
QUICK = ["limit=7", "batch=2", "n=2", "metrics=[psnr,ssim,apd_mse]", "launch.cpus=1"]


@pytest.fixture
def mortal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install the method `mortal` where workers find it, and return what makes a configuration that runs it."""
    site = tmp_path / "site"
    (site / "misfit_workers-0.dist-info").mkdir(parents=True)
    shutil.copy(HERE / "misfit_workers.py", site)
    (site / "misfit_workers-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: misfit\nVersion: 0\n")
    (site / "misfit_workers-0.dist-info" / "entry_points.txt").write_text("[bench.methods]\nmortal = misfit_workers\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(site), str(HERE.parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    importlib.import_module("misfit_workers")

    def configure_mortal(config: RunConfig, **settings: Any) -> RunConfig:
        return config.model_copy(update={"methods": (MethodConfig("mortal", "mortal", settings),)})

    yield configure_mortal
    methods._items.pop("mortal", None)
    sys.modules.pop("misfit_workers", None)


def rows(directory: RunDir) -> tuple[pd.DataFrame, pd.DataFrame]:
    cell = directory.cell(KEY)
    return cell.read("samples"), cell.read("images")


def assert_equal(one: RunDir, other: RunDir) -> None:
    for a, b in zip(rows(one), rows(other), strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True)
    write_tables(one)
    write_tables(other)
    for name in ("table.csv", "table.md", "differences.csv"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
    pictures = [p.relative_to(one.path) for p in one.path.rglob("*.png")]
    assert pictures
    for p in pictures:
        assert (one.path / p).read_bytes() == (other.path / p).read_bytes()


@pytest.fixture
def one_process(configure: Configure, mortal, tmp_path: Path) -> RunDir:
    return run(mortal(configure(*QUICK, f"out={tmp_path / 'one'}")))[0]


def test_two_workers_of_which_one_dies_give_the_tables_of_one_process(
    configure: Configure, mortal, one_process: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configure(*QUICK, "launch.workers=2")
    directory, complete = run(mortal(config, once="test-000002", marker=str(tmp_path / "marker")))
    assert complete
    said = capsys.readouterr().err
    assert "ended with code 7" in said
    assert "another takes its work." in said
    assert_equal(one_process, directory)
    record = json.loads((directory.path / "environment.json").read_text())[-1]
    assert record["launch"] == {"name": "local", "workers": 2, "threads": 1}
    assert {w["threads"] for w in record["workers"]} == {1}
    assert not (directory.path / "launch").exists()


@pytest.mark.slow
def test_a_batch_that_always_kills_is_recorded_and_the_next_start_tries_it_again(
    configure: Configure, mortal, one_process: RunDir
) -> None:
    config = configure(*QUICK, "metrics=[psnr,ssim,apd_mse,seconds]", "launch.workers=2", "timing.budget=1e-9")
    directory, complete = run(mortal(config, always="test-000003"))
    assert not complete
    assert [f["image"] for f in directory.failures] == ["test-000002", "test-000003"]
    assert "its batch failed: it killed 3 workers; the last was killed by SIGKILL" in directory.failures[0]["reason"]
    frame, _ = rows(directory)
    assert sorted(frame["index"].unique()) == [0, 1, 4, 5, 6]
    timing = directory.cell(KEY).timing
    assert timing is not None
    assert timing["threads"] == 1


@pytest.mark.slow
def test_metrics_are_added_by_workers(configure: Configure, mortal, one_process: RunDir) -> None:
    shorter = [*QUICK, "metrics=[psnr]", "launch.workers=2"]
    run(mortal(configure(*shorter)))
    directory, complete = run(mortal(configure(*QUICK, "launch.workers=2")))
    assert complete
    for a, b in zip(rows(one_process), rows(directory), strict=True):
        pd.testing.assert_frame_equal(a, b, check_exact=True, check_like=True)


@pytest.mark.slow
def test_a_bug_is_a_failure_of_its_method_with_its_traceback(configure: Configure, mortal) -> None:
    directory, complete = run(mortal(configure(*QUICK, "launch.workers=2"), marker="broken"))
    assert not complete
    assert directory.failures[0]["reason"].startswith("ZeroDivisionError: oops (traceback in ")
    assert "in draw" in (directory.path / "errors" / "mortal_x8.txt").read_text()


def test_more_workers_than_cores_are_refused(configure: Configure, mortal) -> None:
    with pytest.raises(BenchError, match=r"1000 workers of 1 threads need 1000 cores, this machine has"):
        run(mortal(configure(*QUICK, "launch.workers=1000")))


@pytest.mark.slow
def test_jobs_of_submitit(configure: Configure, mortal, one_process: RunDir, tmp_path: Path) -> None:
    """Slurm's path with submitit's local executor; one job dies."""
    config = configure(*QUICK, "launch=slurm", "launch.workers=2", "launch.address=local")
    directory, complete = run(mortal(config, once="test-000002", marker=str(tmp_path / "marker")))
    assert complete
    assert_equal(one_process, directory)


def test_ray_of_this_machine(configure: Configure, mortal, one_process: RunDir, tmp_path: Path) -> None:
    """Two workers, one of which dies; nothing of Ray is left."""
    pytest.importorskip("ray")
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        config = configure(*QUICK, "launch=ray", "launch.workers=2")
        directory, complete = run(mortal(config, once="test-000002", marker=str(tmp_path / "marker")))
        os.kill(os.getpid(), signal.SIGTERM)  # Ray's library takes handlers away where Python does not see it
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert complete
    assert_equal(one_process, directory)
    assert received == [signal.SIGTERM]


@pytest.mark.slow
def test_a_batch_that_always_kills_is_recorded_on_ray_too(configure: Configure, mortal) -> None:
    """What Ray says of a process that was killed is not taken for a node that has gone."""
    pytest.importorskip("ray")
    config = configure(*QUICK, "launch=ray", "launch.workers=2")
    directory, complete = run(mortal(config, always="test-000003"))
    assert not complete
    assert [f["image"] for f in directory.failures] == ["test-000002", "test-000003"]
    assert "its batch failed: it killed 3 workers" in directory.failures[0]["reason"]
    assert sorted(rows(directory)[0]["index"].unique()) == [0, 1, 4, 5, 6]


@pytest.mark.slow
def test_a_node_that_is_lost(
    configure: Configure, mortal, one_process: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two simulated nodes; one is taken away while its worker works."""
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # else its workers starve beside other work
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    try:
        config = configure(*QUICK, "limit=24", "launch=ray", "launch.workers=2", f"launch.address={cluster.address}")
        lost = threading.Event()

        def lose() -> None:
            deadline = time.monotonic() + 120
            while not list(config.out.rglob("*.samples.parquet")) and time.monotonic() < deadline:
                time.sleep(0.05)
            cluster.remove_node(node, allow_graceful=False)
            lost.set()

        thread = threading.Thread(target=lose)
        thread.start()
        directory, complete = run(mortal(config, seconds=0.5))
        thread.join()
        assert lost.is_set()
        assert complete
        whole, _ = run(mortal(configure(*QUICK, "limit=24", f"out={one_process.path.with_name('whole')}")))
        assert_equal(whole, directory)
    finally:
        cluster.shutdown()


def test_without_ray_it_is_one_sentence(configure: Configure, mortal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        BenchError, match=r"launch=ray needs the package ray: pip install 'diverse-sr-bench\[cluster\]'"
    ):
        run(mortal(configure(*QUICK, "launch=ray", "launch.workers=2")))


def test_without_slurm_it_is_one_sentence(configure: Configure, mortal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BenchError, match=r"launch=slurm needs Slurm's sbatch, which is not here"):
        run(mortal(configure(*QUICK, "launch=slurm", "launch.workers=2")))
