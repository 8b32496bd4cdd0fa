"""Reports of small real runs: three rendered faces, bicubic and the shipped CVDVAE."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from bench.cli import main
from bench.report.html.collect import Collected, collect
from bench.run.store import RunDir

WORDS = ["run", "methods=[bicubic,cvdvae]", "scale=[4,8]", "limit=3", "n=2", "device=cpu", "timing.repeats=1",
         "timing.budget=0.1", "metrics=[psnr,perceptual,lr_psnr,apd_mse,apd_perceptual,seconds]"]  # fmt: skip


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run directory, made by the command line; do not change it."""
    out = tmp_path_factory.mktemp("report") / "first"
    assert main([*WORDS, f"out={out}"]) == 0
    return RunDir(out)


@pytest.fixture(scope="session")
def collected(measured: RunDir) -> Collected:
    """What the report about `measured` shows; do not change it."""
    return collect([measured])


@pytest.fixture(scope="session")
def other(measured: RunDir) -> RunDir:
    """The same images and methods from another seed."""
    out = measured.path.with_name("second")
    assert main([*WORDS, f"out={out}", "scale=8", "seed=1", "statistics=false"]) == 0
    return RunDir(out)


@pytest.fixture(scope="session")
def both(measured: RunDir, other: RunDir) -> Path:
    """A report about two runs."""
    out = measured.path.with_name("both.html")
    assert main(["report", str(measured.path), str(other.path), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def script() -> str:
    """A name that would run a script where it is taken for HTML."""
    return "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def hostile(measured: RunDir, script: str, tmp_path: Path) -> RunDir:
    """A run whose images, methods and failures have such names."""
    shutil.copytree(measured.path, tmp_path / "hostile")
    run = RunDir(tmp_path / "hostile")
    for path in run.path.glob("cells/*/*.parquet"):
        frame = pd.read_parquet(path)
        frame["image"] = script + frame["index"].astype(str)
        frame.to_parquet(path, index=False)
    for path in run.path.glob("cells/*/facts.json"):
        facts = json.loads(path.read_text())
        path.write_text(json.dumps(facts | {"title": script, "citation": script}))
    run.set_failures([{"what": script, "image": script, "reason": script}])
    assert main(["report", str(run.path)]) == 0
    return run
