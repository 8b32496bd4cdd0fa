import time

import pytest
import torch

from bench.config import TimingConfig
from bench.contract import Facts, Method
from bench.run.timing import measure


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


Y = torch.zeros(1, 3, 2, 2)


def config(**changes: float) -> TimingConfig:
    return TimingConfig(**({"warmup": 1, "repeats": 3, "budget": 20.0, "max_batch": 8} | changes))


def test_seconds_and_throughput() -> None:
    t = measure(Sleeper(0.02, 0.002), Y, None, 0, config())
    assert len(t.seconds) == 3
    assert min(t.seconds) == pytest.approx(0.022, abs=0.01)
    assert t.throughput_batch == 8
    assert t.throughput == pytest.approx(8 / 0.036, rel=0.3)


def test_batches_that_do_not_pay_end_the_search() -> None:
    assert measure(Sleeper(0.0, 0.01), Y, None, 0, config()).throughput_batch <= 2


def test_out_of_memory_ends_the_search() -> None:
    assert measure(Sleeper(0.01, 0.0, limit=4), Y, None, 0, config()).throughput_batch == 4


def test_the_budget_is_kept() -> None:
    begun = time.monotonic()
    t = measure(Sleeper(0.2, 0.0), Y, None, 0, config(budget=0.3, repeats=50, max_batch=64))
    assert time.monotonic() - begun < 2
    assert len(t.seconds) >= 1
