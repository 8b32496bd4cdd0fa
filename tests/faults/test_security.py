"""Files from outside do not run code and do not leave their folder."""

from __future__ import annotations

import ast
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
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            for call in calls:
                name = ast.unparse(call.func)
                words = {word.arg: ast.unparse(word.value) for word in call.keywords}
                if name == "torch.load":
                    assert words.get("weights_only") == "True", (path, call.lineno)
                assert words.get("allow_pickle", "False") == "False", (path, call.lineno)
            imported = {
                name.name.partition(".")[0]
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import)
                for name in node.names
            }
            assert not imported & {"pickle", "dill", "cloudpickle", "shelve", "joblib"}, path


def test_no_module_opens_archives() -> None:
    """So that none can write outside of a folder; what reads them is to be held to this first."""
    for folder in ("bench", "methods", "configs"):
        for path in (Path(__file__).parents[2] / folder).rglob("*.py"):
            text = path.read_text()
            assert not any(word in text for word in ("import tarfile", "import zipfile", "unpack_archive")), path
