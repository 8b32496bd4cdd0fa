"""Files from outside do not run code and do not leave their folder."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.weights import read_tensors


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("suffix", ["pt", "pth", "th", "bin"])
def test_a_pickle_with_code_is_refused_and_not_run(suffix: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / f"weights.{suffix}"
    path.write_bytes(pickle.dumps({"a": Payload(mark)}))
    with pytest.raises(BenchError, match=path.name):
        read_tensors(path)
    assert not mark.exists()


def test_no_module_loads_pickles_with_code() -> None:
    for folder in ("bench", "methods", "configs", "scripts"):
        for path in (Path(__file__).parents[2] / folder).rglob("*.py"):
            text = path.read_text()
            loads = text.count("torch.load(")
            assert text.count("weights_only=True") >= loads, path
            assert "import pickle" not in text, path
            assert "allow_pickle=True" not in text, path
