"""Wall time of sampling: batch 1 as in the paper, and the throughput at the best batch beside it.

Methods are timed in turns, in one process: every round calls each of them once, in an order of its own, so that what
the machine does meanwhile falls on all alike. Only ``Method.sample`` is timed, on inputs that are on the device
already; its noise is drawn before the clock starts, and that time is kept apart. cuDNN chooses its algorithms by
measuring them meanwhile, as a user would let it.

`choose_rows` finds how many rows go through a network together by the same search over samples instead of images.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.config import TimingConfig
from bench.contract import Method, Noise
from bench.machine import is_out_of_memory, release_memory
from bench.network import NetworkMethod
from bench.run.draw import failures_recorded

GAIN = 1.05
"""A doubled batch must raise the throughput by this factor for the search to go on."""
MOST_ROWS = 256
"""Rows together that are tried at most."""
MOST_REPEATS = 50
"""Repeats of a fast method at most."""
SHARE = 0.5
"""Of the budget that further repeats may take; the search for the throughput has the rest."""
NOISE_BYTES = 2**30
"""Noise that is drawn before a call at most; a call that asks for more gets the same again."""


@dataclass(frozen=True)
class Subject:
    """What is to be timed: a prepared method with y, float32 [1, 3, h, w] on the device, and its temperature."""

    method: Method
    y: Tensor
    tau: float | None


@dataclass(frozen=True)
class Timing:
    """Measured times.

    Attributes:
        seconds: one value per repeat, for one sample of one image.
        noise_seconds: what drawing the noise of each repeat took, beside `seconds`.
        throughput: samples per second at the best batch found, without the time of their noise.
        throughput_batch: that batch (images, one sample each).

    """

    seconds: list[float]
    noise_seconds: list[float]
    throughput: float
    throughput_batch: int

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class DrawnNoise(Noise):
    """Noise that is drawn before it is asked for.

    A first call (`recorded`) tells what a method asks for; from then on the same can be drawn in advance.

    Attributes:
        seconds: what drawing took, the copies to the device included.

    """

    def __init__(self, seed: int, ids: Sequence[str], samples: Sequence[int], device: torch.device) -> None:
        super().__init__(seed, ids, samples, device)
        self.seconds = 0.0
        self._asked: list[tuple[tuple[int, ...], Any, slice | None]] = []
        self._kept: dict[Hashable, list[Tensor]] = {}
        self._given: Counter[Hashable] = Counter()
        self._bytes = 0

    def like(self, asked: DrawnNoise) -> DrawnNoise:
        """Draw what another one was asked for, in its order."""
        self._asked = asked._asked
        for shape, draw, rows in self._asked:
            _synchronise(self.device)
            begun = time.perf_counter()
            drawn = super()._draw(shape, draw, rows)
            _synchronise(self.device)
            self.seconds += time.perf_counter() - begun
            kept = self._kept.setdefault(_kind(shape, draw, rows), [])
            if not kept or self._bytes < NOISE_BYTES:
                kept.append(drawn)
                self._bytes += drawn.nbytes
        return self

    def _draw(self, shape: tuple[int, ...], draw: Any, rows: slice | None) -> Tensor:
        kind = _kind(shape, draw, rows)
        if kept := self._kept.get(kind):
            self._given[kind] += 1
            return kept[(self._given[kind] - 1) % len(kept)]
        self._asked.append((shape, draw, rows))
        return super()._draw(shape, draw, rows)


def _kind(shape: tuple[int, ...], draw: Any, rows: slice | None) -> Hashable:
    return shape, draw, None if rows is None else (rows.start, rows.stop)


@dataclass
class _Timed:
    """A subject while it is timed: `asked` is what its calls at batch 1 ask of their noise."""

    subject: Subject
    seed: int
    asked: DrawnNoise | None = None
    seconds: list[float] = field(default_factory=list)
    noise_seconds: list[float] = field(default_factory=list)
    spent: float = 0.0
    error: Exception | None = None

    def repeat(self) -> None:
        """Call once; the first call is not counted and tells what noise there is to be drawn."""
        noise = self._noise(1)
        if self.asked is None:
            self._call(self.subject.y, noise)
            self.asked = noise
            return
        self.seconds.append(self._call(self.subject.y, noise.like(self.asked)))
        self.noise_seconds.append(noise.seconds)

    def batch(self, size: int) -> float | None:
        """Seconds of a second call with `size` images; None where memory does not suffice."""
        y = self.subject.y.repeat(size, 1, 1, 1)

        def both() -> float:
            asked = self._noise(size)
            self._call(y, asked)
            return self._call(y, self._noise(size).like(asked))

        return _unless_out_of_memory(both)

    def wants_more(self, config: TimingConfig) -> bool:
        """Whether it takes part in the next round."""
        if self.error is not None or len(self.seconds) >= max(MOST_REPEATS, config.repeats):
            return False
        return len(self.seconds) < config.repeats or self.spent + max(self.seconds) < SHARE * config.budget

    def _noise(self, images: int) -> DrawnNoise:
        return DrawnNoise(self.seed, [f"timing-{i}" for i in range(images)], [0], self.subject.y.device)

    def _call(self, y: Tensor, noise: Noise) -> float:
        return _seconds_of(self.subject.method, y, 1, self.subject.tau, noise)


def measure(subjects: Sequence[Subject], seed: int, config: TimingConfig) -> list[Timing | Exception]:
    """Time prepared methods on one image, in turns.

    A network takes all rows of a call together meanwhile, whatever its ``rows`` are.

    Args:
        subjects: what is compared.
        seed: of the noise and of the orders.
        config: repeats, warm-up calls, and the budget in seconds of each.

    Returns:
        for each subject its times, or what its method raised.

    """
    timed = [_Timed(s, seed) for s in subjects]
    with ExitStack() as stack:
        stack.enter_context(cudnn_chooses())
        for method in {id(s.method): s.method for s in subjects}.values():
            stack.enter_context(all_rows_together(method))
        for _ in range(config.warmup):
            for t in timed:
                _guarded(t, t.repeat)
        for t in timed:
            t.seconds, t.noise_seconds = [], []  # those of further warm-up calls
        order = np.random.default_rng(seed)
        while taking_part := [t for t in timed if t.wants_more(config)]:
            for i in order.permutation(len(taking_part)):
                _guarded(taking_part[i], taking_part[i].repeat)
        found = [t.error or _with_throughput(t, config) for t in timed]
    release_memory()
    return found


def _guarded(t: _Timed, call: Callable[[], object]) -> None:
    """Call, count the time, and keep what is raised."""
    if t.error is not None:
        return
    begun = time.perf_counter()
    try:
        call()
    except Exception as error:  # noqa: BLE001 -- one method's bug must not take the others' times
        t.error = error.with_traceback(None) if is_out_of_memory(error) else error  # its frames hold tensors
    t.spent += time.perf_counter() - begun


def _with_throughput(t: _Timed, config: TimingConfig) -> Timing | Exception:
    best, best_batch, last = 1 / float(np.median(t.seconds)), 1, float(np.median(t.seconds))
    size = 2
    while size <= config.max_batch and config.budget - t.spent > 4 * last:  # two calls of up to twice the time
        found: list[float | None] = []
        _guarded(t, lambda size=size, found=found: found.append(t.batch(size)))  # type: ignore[misc]
        if t.error is not None:
            return t.error
        if found[0] is None or size / found[0] < GAIN * best:
            break
        best, best_batch, last = size / found[0], size, found[0]
        size *= 2
    return Timing(t.seconds, t.noise_seconds, best, best_batch)


@contextmanager
def cudnn_chooses() -> Iterator[None]:
    """Let cuDNN choose its algorithms by measuring them for a while; images are drawn with fixed ones."""
    backend = torch.backends.cudnn
    before = backend.benchmark, backend.deterministic
    backend.benchmark, backend.deterministic = True, False
    try:
        yield
    finally:
        backend.benchmark, backend.deterministic = before


def choose_rows(method: NetworkMethod, y: Tensor, tau: float | None, seed: int, most: int = MOST_ROWS) -> int:
    """Find how many rows of one draw a network should take together: 1, 2, 4, ... while it gains and fits.

    Args:
        method: prepared for y's scale.
        y: float32 [1, 3, h, w] on the device.
        tau: temperature.
        seed: seed of the noise.
        most: rows of the largest draw that there will be.

    Returns:
        the rows with the highest throughput among those tried.

    """
    best, best_rows, rows = 0.0, 1, 1

    def both() -> float:
        time_once(method, y, tau, seed, rows)  # the first at a new size is slower
        return time_once(method, y, tau, seed, rows)

    with all_rows_together(method):
        while found := _unless_out_of_memory(both):
            # the largest draw needs no gain: a piece less, and none that is smaller than the others
            if rows / found < (best if rows == most else GAIN * best):
                break
            best, best_rows = rows / found, rows
            if rows >= min(most, MOST_ROWS):
                break
            rows = min(2 * rows, most, MOST_ROWS)
    release_memory()
    return best_rows


@contextmanager
def all_rows_together(method: Method) -> Iterator[None]:
    """Let a network take all rows of a draw together for a while."""
    if not isinstance(method, NetworkMethod):
        yield
        return
    before, method.rows = method.rows, sys.maxsize
    try:
        yield
    finally:
        method.rows = before


def time_once(method: Method, y: Tensor, tau: float | None, seed: int, samples: int = 1) -> float:
    """Seconds of one call for some samples of each row of y [B, 3, h, w], its noise included."""
    noise = Noise(seed, [f"timing-{i}" for i in range(len(y))], range(samples), y.device)
    return _seconds_of(method, y, samples, tau, noise)


def _seconds_of(method: Method, y: Tensor, samples: int, tau: float | None, noise: Noise) -> float:
    _synchronise(y.device)
    begun = time.perf_counter()
    with failures_recorded():
        method.sample(y, samples, tau, noise)
    _synchronise(y.device)
    return time.perf_counter() - begun


def _unless_out_of_memory(call: Callable[[], float]) -> float | None:
    try:
        return call()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    release_memory()
    return None


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
