from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

STUB = Path(__file__).with_name("stub.py")


@pytest.fixture(scope="session")
def stub() -> ModuleType:
    """The module that is also torchrun's script."""
    spec = importlib.util.spec_from_file_location("stub_training", STUB)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
