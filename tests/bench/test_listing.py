"""Listings: what plugins declare, in tables, without the libraries that they need."""

import resource
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from bench import listing
from bench.weights import folder_of_torch

HEAVY = ("torch", "diffusers", "pandas", "scipy", "matplotlib", "pyiqa")
TABLES = ("methods", "metrics", "data", "operators", "weights")


def cpu_seconds(code: str) -> tuple[float, str]:
    """User and system time of a Python process, less that of one that does nothing, and what it printed."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return spent() - before, done.stdout


@pytest.mark.parametrize("table", TABLES)
def test_a_listing_imports_no_heavy_library(table: str) -> None:
    _, printed = cpu_seconds(
        f"import sys, bench.listing\nbench.listing.{table}_table()\nprint([m for m in {HEAVY} if m in sys.modules])"
    )
    assert printed == "[]\n"


def test_a_listing_takes_less_than_a_third_of_the_time_of_torch() -> None:
    reference = min(cpu_seconds("import torch")[0] for _ in range(2))
    for table in TABLES:
        spent = min(cpu_seconds(f"import bench.listing as l; l.{table}_table()")[0] for _ in range(2))
        assert spent < 0.3 * reference, table


def test_methods() -> None:
    table = listing.methods_table()
    head, _, *rows = table.splitlines()
    assert head.split()[:5] == ["name", "title", "what", "it", "does"]
    bicubic = next(r for r in rows if r.startswith("bicubic "))
    assert "any linear operator" in bicubic
    assert "none" in bicubic
    sr3 = next(r for r in rows if r.startswith("sr3 "))
    assert "bicubic x4, x8" in sr3
    assert "2000" in sr3
    assert "MIT (shipped)" in sr3


def test_metrics() -> None:
    rows = listing.metrics_table().splitlines()
    assert any(r.split()[:4] == ["psnr", "↑", "dB", "sample"] for r in rows)
    assert any(r.startswith("apd_mse ") and "x 1e4" in r for r in rows)
    assert "pyiqa:NAME" in rows[-1]


def test_data_and_operators() -> None:
    rows = listing.data_table().splitlines()
    assert any(r.startswith("synthfaces ") and " 12 " in r for r in rows)
    assert any(r.startswith("folder ") and " all " in r for r in rows)
    rows = listing.operators_table().splitlines()
    assert any(r.startswith("bicubic ") and "MATLAB" in r for r in rows)
    assert any(r.startswith("average ") for r in rows)


def test_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "ffhq_10m.pt").write_bytes(bytes(3_000_000))
    rows = listing.weights_table().splitlines()
    assert any(r.split()[:4] == ["dps_ffhq256", "here", "3", "add"] for r in rows)
    assert any(r.split()[:3] == ["vdvae_ffhq256", "missing", "get"] for r in rows)
    shipped = next(r for r in rows if r.startswith("sr3/unet64_x8 "))
    assert "shipped" in shipped
    assert str(tmp_path / "weights") in rows[-1]


def test_torchs_folder_is_known_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for variables in ({}, {"XDG_CACHE_HOME": "/somewhere"}, {"TORCH_HOME": "~/there"}):
        for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert folder_of_torch() == Path(torch.hub.get_dir()) / "checkpoints"


@pytest.mark.parametrize(("kind", "registrar"), [("methods", "method"), ("metrics", "metric"), ("data", "dataset")])
def test_a_broken_plugin_is_named(kind: str, registrar: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_plugin.py").write_text(
        f"import a_package_that_nobody_has\n@register_{registrar}('broken')\nclass Broken:\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("broken", "broken_plugin", "any")
    monkeypatch.setattr("bench.registry.entry_points", lambda group: (point,))
    monkeypatch.setattr(listing._registry(kind), "broken", {})
    assert "broken" not in getattr(listing, f"{kind}_table")().split()
    assert listing.broken_plugins(kind) == [
        "plugin 'broken' could not be imported: ModuleNotFoundError: No module named 'a_package_that_nobody_has'"
    ]
