"""What only a GPU can tell; `scripts/gpu` runs these, and everything else that is measured on one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scripts.measure_gpu import Measurement, shipped_methods

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


@pytest.mark.parametrize("label", shipped_methods())
def test_samples_are_those_of_the_cpu(label: str, tmp_path: Path) -> None:
    found = Measurement("cuda", small=True, folder=tmp_path, public=None).equal(label)
    assert found["float32"] < 1e-4
    assert all(change < 0.5 for change in found.values())


def test_a_run_on_the_gpu_gives_the_table_of_the_cpu(tmp_path: Path) -> None:
    import pandas as pd

    from bench.cli import main

    tables = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        words = ["methods=[bicubic,cvdvae]", "scale=8", "limit=2", "n=2", f"device={device}", f"out={out}"]
        assert main(["run", *words]) == 0
        tables[device] = pd.read_csv(out / "table.csv")
    for name in ("psnr", "stlpips_alex", "brisque"):
        assert tables["cuda"][name].to_numpy() == pytest.approx(tables["cpu"][name].to_numpy(), rel=2e-3)


def test_memory_that_does_not_suffice_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.cli import main

    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(0.0005)
    try:
        words = ["methods=[dps]", "scale=8", "limit=1", "methods.dps.steps=2", "device=cuda", f"out={tmp_path}"]
        assert main(["run", *words]) != 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "memory" in capsys.readouterr().err
    assert 0 < free <= total
