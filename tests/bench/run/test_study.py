from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes

from bench.errors import BenchError
from bench.run.study import Study, register_study, studies, write_study

CALLS: list[int] = []
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _study() -> Iterator[None]:
    @register_study("squares")
    class Squares(Study):
        def __init__(self, items: int, stop: int = 99) -> None:
            self.items, self.stop = items, stop

        def compute(self, item: int, seed: int, device: torch.device) -> pd.DataFrame:
            if item == self.stop:
                raise KeyboardInterrupt
            CALLS.append(item)
            return pd.DataFrame({"square": [item**2, seed]})

        def plot(self, frame: pd.DataFrame, axes: Axes) -> None:
            axes.plot(frame["item"], frame["square"])

    CALLS.clear()
    yield
    studies._items.pop("squares")


def test_pieces_that_are_done_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"name": "squares", "items": 4}
    real = studies.get("squares").compute

    def interrupted(self: Study, item: int, seed: int, device: torch.device) -> pd.DataFrame:
        if item == 2:
            raise KeyboardInterrupt
        return real(self, item, seed, device)

    monkeypatch.setattr(studies.get("squares"), "compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_study(settings, 7, CPU, tmp_path / "f")
    monkeypatch.undo()
    frame = write_study(settings, 7, CPU, tmp_path / "f")
    assert CALLS == [0, 1, 2, 3]
    assert frame["item"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert frame["square"].tolist() == [0, 7, 1, 7, 4, 7, 9, 7]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "f.csv"), frame)
    assert (tmp_path / "f.png").is_file()


def test_other_settings_do_not_mix(tmp_path: Path) -> None:
    write_study({"name": "squares", "items": 1}, 0, CPU, tmp_path / "f")
    with pytest.raises(BenchError, match="other settings"):
        write_study({"name": "squares", "items": 2}, 0, CPU, tmp_path / "f")
    with pytest.raises(BenchError, match="other settings"):
        write_study({"name": "squares", "items": 1}, 1, CPU, tmp_path / "f")


def test_damaged_files(tmp_path: Path) -> None:
    write_study({"name": "squares", "items": 1}, 0, CPU, tmp_path / "f")
    (tmp_path / "f.json").write_text("{")
    with pytest.raises(BenchError, match="damaged"):
        write_study({"name": "squares", "items": 1}, 0, CPU, tmp_path / "f")
    (tmp_path / "f.json").unlink()
    with pytest.raises(BenchError, match="in the way"):
        write_study({"name": "squares", "items": 1}, 0, CPU, tmp_path / "f")
