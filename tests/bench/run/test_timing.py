import statistics
import time

import pytest
import torch

from bench.config import TimingConfig
from bench.contract import Facts, Method, Noise
from bench.network import NetworkMethod, pieces
from bench.operators.bicubic import Bicubic
from bench.run.timing import MOST_REPEATS, NOISE_BYTES, DrawnNoise, Subject, Timing, choose_rows, measure


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


def alone(method: Method, **changes: float) -> Timing:
    (found,) = measure([Subject(method, Y, None)], 0, config(**changes))
    assert isinstance(found, Timing)
    return found


def test_seconds_and_throughput() -> None:
    t = alone(sleeper(0.02, 0.002))
    assert len(t.seconds) == MOST_REPEATS
    assert min(t.seconds) == pytest.approx(0.022)
    assert t.throughput_batch == 8
    assert t.throughput == pytest.approx(8 / 0.036)


def test_batches_that_do_not_pay_end_the_search() -> None:
    assert alone(sleeper(0.0, 0.01)).throughput_batch <= 2


def test_out_of_memory_ends_the_search() -> None:
    assert alone(sleeper(0.01, 0.0, limit=4)).throughput_batch == 4


@pytest.mark.parametrize(("budget", "repeats"), [(1e-9, 3), (0.7, 3), (3.0, 6), (100.0, MOST_REPEATS)])
def test_a_budget_limits_what_is_more_than_the_repeats(budget: float, repeats: int) -> None:
    begun = time.monotonic()
    t = alone(sleeper(0.2, 0.0), budget=budget, max_batch=1)
    assert len(t.seconds) == repeats
    assert time.monotonic() - begun == pytest.approx(0.2 * (1 + repeats))


class Named(Sleeper):
    """Notes its calls."""

    def __init__(self, name: str, calls: list[str], seconds: float = 0.01) -> None:
        super().__init__(seconds, 0.0)
        self.name, self.calls = name, calls

    def draw(self, y, n, tau, noise):
        self.calls.append(self.name)
        return super().draw(y, n, tau, noise)


def test_methods_are_timed_in_turns() -> None:
    calls: list[str] = []
    subjects = [Subject(Named(name, calls).prepare(Bicubic(8, 4)), Y, None) for name in "abc"]
    measure(subjects, 0, config(repeats=7, budget=1e-9))
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(rounds) == 8
    assert all(set(r) == set("abc") for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1  # no method always comes after the same


def test_a_drift_of_the_machine_falls_on_all_alike() -> None:
    """Every call takes 1% longer than the one before: repeats one after the other would differ by a fifth."""
    calls: list[str] = []

    class Slowing(Named):
        def draw(self, y, n, tau, noise):
            self.call = 0.01 * 1.01 ** len(self.calls)
            return super().draw(y, n, tau, noise)

    subjects = [Subject(Slowing(name, calls).prepare(Bicubic(8, 4)), Y, None) for name in "ab"]
    a, b = (statistics.median(t.seconds) for t in measure(subjects, 0, config(repeats=20, budget=1e-9)))
    assert a == pytest.approx(b, rel=0.02)


def test_one_that_raises_leaves_the_others_their_times() -> None:
    class Broken(Sleeper):
        def draw(self, y, n, tau, noise):
            raise ValueError("no")

    subjects = [Subject(m.prepare(Bicubic(8, 4)), Y, None) for m in (Broken(0, 0), Sleeper(0.01, 0))]
    broken, good = measure(subjects, 0, config())
    assert isinstance(broken, ValueError)
    assert isinstance(good, Timing)


class Drawing(Method):
    """Takes a second, and draws noise in pieces; what it drew is noted."""

    facts = Facts(title="Drawing")

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def draw(self, y, n, tau, noise):
        self.seen += [noise.normal(5), noise.uniform(2, rows=slice(0, 1)), noise.normal(5)]
        time.sleep(1)
        return noise.normal(3, 8, 8).clamp(0, 1)


def test_noise_is_drawn_before_the_clock_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.randn

    def slow(*arguments, **options):
        time.sleep(0.25)
        return real(*arguments, **options)

    monkeypatch.setattr(torch, "randn", slow)
    t = alone(Drawing().prepare(Bicubic(8, 4)), budget=1e-9)
    assert t.seconds == pytest.approx([1.0] * 3)
    assert t.noise_seconds == pytest.approx([0.75] * 3)


def test_noise_drawn_in_advance_is_what_would_have_been_drawn() -> None:
    method, seen = Drawing().prepare(Bicubic(8, 4)), []
    for make in (DrawnNoise, Noise):
        noise = make(3, ["image"], [0], torch.device("cpu"))
        if isinstance(noise, DrawnNoise):
            asked = DrawnNoise(3, ["image"], [0], torch.device("cpu"))
            method.sample(Y, 1, None, asked)
            noise.like(asked)
        method.seen = []
        x = method.sample(Y, 1, None, noise)
        seen.append([*method.seen, x])
    for a, b in zip(*seen, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_noise_in_advance_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert NOISE_BYTES == 2**30
    monkeypatch.setattr("bench.run.timing.NOISE_BYTES", 30)
    asked, noise = (DrawnNoise(3, ["image"], [0], torch.device("cpu")) for _ in range(2))
    for _ in range(6):
        asked.normal(4)
    noise.like(asked)
    drawn = [noise.normal(4) for _ in range(6)]
    torch.testing.assert_close(drawn[:2], drawn[2:4])
    torch.testing.assert_close(drawn[:2], drawn[4:])
    assert not torch.equal(drawn[0], drawn[1])


def test_cudnn_chooses_its_algorithms_meanwhile_only(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, seen = torch.backends.cudnn, []
    monkeypatch.setattr(backend, "benchmark", False)
    monkeypatch.setattr(backend, "deterministic", True)

    class Asking(Sleeper):
        def draw(self, y, n, tau, noise):
            seen.append((backend.benchmark, backend.deterministic))
            return super().draw(y, n, tau, noise)

    alone(Asking(0.01, 0).prepare(Bicubic(8, 4)))
    assert set(seen) == {(True, False)}
    assert (backend.benchmark, backend.deterministic) == (False, True)


def test_the_throughput_is_that_of_all_rows_together() -> None:
    method = SleepyNetwork(0.02, 0.002).prepare(Bicubic(8, 4))
    method.rows = 2
    t = alone(method)
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
