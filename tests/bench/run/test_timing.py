import time

import pytest
import torch

from bench.config import TimingConfig
from bench.contract import Facts, Method
from bench.network import NetworkMethod, pieces
from bench.operators.bicubic import Bicubic
from bench.run.timing import choose_rows, measure


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only sleeping moves: machines that run tests may be busy."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, lambda: now[0])


class Sleeper(Method):
    """Takes a fixed time for a call and a little for each image, so that large batches pay."""

    facts = Facts(title="Sleeper")

    def __init__(self, call: float, image: float, limit: int = 10**6):
        self.call, self.image, self.limit = call, image, limit

    def draw(self, y, n, tau, noise):
        if len(y) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        time.sleep(self.call + self.image * len(y))
        return torch.zeros(len(y), n, 3, 8, 8)


class SleepyNetwork(NetworkMethod):
    """Takes a fixed time for a pass and a little for each row of it."""

    facts = Facts(title="Sleepy network")

    def __init__(self, call: float, row: float, limit: int = 10**6):
        super().__init__()
        self.call, self.row, self.limit = call, row, limit
        self.passes: list[int] = []

    def draw(self, y, n, tau, noise):
        assert not torch.is_grad_enabled()
        for piece in pieces(len(y) * n, self.rows):
            rows = piece.stop - piece.start
            if rows > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
            self.passes.append(rows)
            time.sleep(self.call + self.row * rows)
        return torch.zeros(len(y), n, 3, 8, 8)


def sleeper(call: float, image: float, limit: int = 10**6) -> Method:
    return Sleeper(call, image, limit).prepare(Bicubic(8, 4))


Y = torch.zeros(1, 3, 2, 2)


def config(**changes: float) -> TimingConfig:
    return TimingConfig(**({"warmup": 1, "repeats": 3, "budget": 20.0, "max_batch": 8} | changes))


def test_seconds_and_throughput() -> None:
    t = measure(sleeper(0.02, 0.002), Y, None, 0, config())
    assert len(t.seconds) == 3
    assert min(t.seconds) == pytest.approx(0.022)
    assert t.throughput_batch == 8
    assert t.throughput == pytest.approx(8 / 0.036)


def test_batches_that_do_not_pay_end_the_search() -> None:
    assert measure(sleeper(0.0, 0.01), Y, None, 0, config()).throughput_batch <= 2


def test_out_of_memory_ends_the_search() -> None:
    assert measure(sleeper(0.01, 0.0, limit=4), Y, None, 0, config()).throughput_batch == 4


def test_the_budget_is_kept() -> None:
    begun = time.monotonic()
    t = measure(sleeper(0.2, 0.0), Y, None, 0, config(budget=0.3, repeats=50, max_batch=64))
    assert time.monotonic() - begun < 1
    assert len(t.seconds) >= 1


def test_the_throughput_is_that_of_all_rows_together() -> None:
    method = SleepyNetwork(0.02, 0.002).prepare(Bicubic(8, 4))
    method.rows = 2
    t = measure(method, Y, None, 0, config())
    assert t.throughput_batch == 8
    assert t.throughput == pytest.approx(8 / 0.036)
    assert max(method.passes) == 8
    assert method.rows == 2  # as it was


@pytest.mark.parametrize(
    ("call", "row", "limit", "most", "rows"),
    [
        (0.05, 0.0001, 10**6, 5, 5),  # larger draws there will not be
        (0.05, 0.0001, 6, 64, 4),  # memory ends
        (0.0, 0.1, 10**6, 64, 1),  # nothing is gained
        (0.05, 0.0001, 0, 64, 1),  # not even one row fits
    ],
)
def test_rows_together(call: float, row: float, limit: int, most: int, rows: int) -> None:
    method = SleepyNetwork(call, row, limit).prepare(Bicubic(8, 4))
    assert choose_rows(method, Y, None, 0, most) == rows
    assert method.rows == 4  # as it was
