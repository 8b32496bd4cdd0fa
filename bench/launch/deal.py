"""Deal tasks out to workers: who is idle gets the next one; who dies costs the task that it was doing, no more."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from bench.errors import BenchError
from bench.launch.parcel import ERROR, Parcel
from bench.launch.pool import Event, Pool

AHEAD = 2
"""Tasks that a worker has at most, so that it need not wait for the next one."""
KILLS = 3
"""Workers that a task may kill."""
LOSSES = 10
"""Workers that a task, or a worker's beginning, may lose to nodes that went and jobs that were ended."""
PATIENCE = 30.0
"""Seconds without any worker after which a person is told that they wait."""
NEVER = 10**9
"""Seconds, and items, between lines of progress that tqdm would show by itself; it shows what `_show` tells it."""
SHOWN = 8
"""Workers that the line of progress shows one by one."""


@dataclass
class Task:
    """A piece of work.

    Attributes:
        make: makes what the worker is sent, when it is sent.
        name: for the line of progress, as "dps_x8"; tasks of one name take equally long per item.
        size: its items, as images.

    """

    make: Callable[[], Parcel]
    name: str
    size: int = 1
    kills: int = 0
    losses: int = 0


@dataclass
class _Worker:
    """The driver's view of one worker."""

    state: str = "starting"  # ready, refused
    facts: dict[str, Any] = field(default_factory=dict)
    tasks: deque[Task] = field(default_factory=deque)
    since: float = 0.0
    """When it began with its first task."""
    failed_starts: int = 0
    lost_starts: int = 0


class Dealer:
    """Deals tasks to the workers of a pool, which stay from one `deal` to the next.

    Args:
        pool: the workers.
        say: prints a line for a person.

    """

    def __init__(self, pool: Pool, say: Callable[[str], None]) -> None:
        self.pool = pool
        self._say = say
        self._workers = [_Worker() for _ in range(pool.count)]
        self._seconds: dict[str, tuple[float, int]] = {}
        self._shown = 0.0
        for number in range(pool.count):
            pool.start(number)

    @property
    def facts(self) -> list[dict[str, Any]]:
        """Facts of the workers that are ready, waiting for the first one.

        Raises:
            BenchError: none can start.

        """
        since: float | None = time.monotonic()
        while not any(w.state == "ready" for w in self._workers):
            for event in self.pool.events(1.0):
                self._begin_or_end(event)
            if since is not None and time.monotonic() - since > PATIENCE:
                self._say(f"No worker of {self.pool.count} has begun yet: they wait for cores, GPUs or a queue.")
                since = None
        return [w.facts for w in self._workers if w.state == "ready"]

    def deal(
        self,
        tasks: Sequence[Task],
        done: Callable[[Task, Parcel], None],
        failed: Callable[[Task, str], None],
        skip: Callable[[Task], bool] = lambda task: False,
        alone: bool = False,
    ) -> None:
        """Have tasks done, begun in their order.

        Args:
            tasks: the work.
            done: told of each that is done, with what the worker answered.
            failed: told of each that cannot be done, and why: it has killed `KILLS` workers, was lost with `LOSSES`, or
                raised an error.
            skip: whether a task is no longer wanted, asked before it is sent.
            alone: one worker at a time while all others are idle, as where times are measured.

        Raises:
            BenchError: no worker can start.

        """
        waiting = deque(tasks)
        with tqdm(
            total=sum(t.size for t in tasks), disable=alone, mininterval=NEVER, miniters=NEVER,
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]",
        ) as bar:  # fmt: skip
            while waiting or any(w.tasks for w in self._workers):
                self._send(waiting, failed, skip, alone, bar)
                for event in self.pool.events(1.0):
                    worker = self._workers[event.worker]
                    if event.kind == "done":
                        task, result = self._finished(worker, event)
                        bar.update(task.size)
                        self._conclude(task, result, done, failed)
                    else:
                        self._take_back(worker, event, waiting, failed, bar)
                        self._begin_or_end(event)
                self._show(bar, waiting)

    def _send(
        self, waiting: deque[Task], failed: Callable[[Task, str], None], skip: Callable[[Task], bool], alone: bool,
        bar: Any,
    ) -> None:  # fmt: skip
        """Give every idle worker a task, then another ahead while all could have one: the last are for who is idle."""
        for most in range(1, 2 if alone else AHEAD + 1):
            for number, worker in enumerate(self._workers):
                if most > 1 and len(waiting) < sum(w.state != "refused" for w in self._workers):
                    return
                while waiting and skip(waiting[0]):
                    bar.update(waiting.popleft().size)
                busy = alone and any(w.tasks for w in self._workers)
                if waiting and not busy and worker.state == "ready" and len(worker.tasks) < most:
                    task = waiting.popleft()
                    try:
                        parcel = task.make()
                    except BenchError as error:
                        bar.update(task.size)
                        failed(task, str(error))
                        continue
                    if not worker.tasks:
                        worker.since = time.monotonic()
                    worker.tasks.append(task)
                    self.pool.send(number, parcel)

    def _finished(self, worker: _Worker, event: Event) -> tuple[Task, Parcel]:
        """The task that a worker has answered, and the answer."""
        task = worker.tasks.popleft()
        now = time.monotonic()
        seconds, items = self._seconds.get(task.name, (0.0, 0))
        self._seconds[task.name] = seconds + now - worker.since, items + task.size
        worker.since = now
        worker.failed_starts = worker.lost_starts = 0
        assert event.result is not None
        return task, event.result

    @staticmethod
    def _conclude(
        task: Task, result: Parcel, done: Callable[[Task, Parcel], None], failed: Callable[[Task, str], None]
    ) -> None:
        if ERROR in result.content:
            failed(task, str(result.content[ERROR]))
        else:
            done(task, result)

    def _take_back(
        self, worker: _Worker, event: Event, waiting: deque[Task], failed: Callable[[Task, str], None], bar: Any
    ) -> None:
        """Take the tasks of a worker that died; the one that it was doing may have been the reason."""
        if event.kind not in ("died", "away") or not worker.tasks:
            return
        first = worker.tasks[0]
        first.kills += not event.innocent
        first.losses += event.innocent
        if first.kills >= KILLS or first.losses >= LOSSES:
            worker.tasks.popleft()
            bar.update(first.size)
            what = f"it killed {KILLS} workers" if first.kills >= KILLS else f"it was lost with {LOSSES} workers"
            failed(first, f"{what}; the last {event.reason}")
        waiting.extendleft(reversed(worker.tasks))
        worker.tasks.clear()

    def _begin_or_end(self, event: Event) -> None:
        """Note that a worker is ready, or start another in its place."""
        worker = self._workers[event.worker]
        node = worker.facts.get("node", "")
        if event.kind == "ready":
            assert event.result is not None
            worker.state, worker.facts = "ready", dict(event.result.content)
        elif event.kind == "died":
            started = worker.state == "ready"
            worker.failed_starts += not (started or event.innocent)
            worker.lost_starts += not started and event.innocent
            worker.state, worker.facts = "starting", {}
            if worker.failed_starts < KILLS and worker.lost_starts < LOSSES:
                self._say_taken(event, node)
                self.pool.start(event.worker)
                return
            worker.state = "refused"
            self._none_left(f"it {event.reason}")
        elif event.kind == "away":
            worker.state, worker.facts = "starting", {}
            self._say_taken(event, node)
        elif event.kind == "refused":
            worker.state = "refused"
            self._say(f"Worker {event.worker} cannot work: {event.reason}")
            self._none_left(event.reason)

    def _say_taken(self, event: Event, node: str) -> None:
        self._say(f"Worker {event.worker}{f' on {node}' if node else ''} {event.reason}; another takes its work.")

    def _none_left(self, reason: str) -> None:
        if all(w.state == "refused" for w in self._workers):
            raise BenchError(f"No worker can start: {reason}")

    def _show(self, bar: Any, waiting: deque[Task]) -> None:
        """Show every worker, the rate of all, and the time left."""
        now = time.monotonic()
        if now - self._shown < (0.5 if sys.stderr.isatty() else 30.0) and bar.n < bar.total:
            return
        self._shown = now
        ready = [w for w in self._workers if w.state == "ready"]
        each = [f"{w.tasks[0].name} {_clock(now - w.since)}" if w.tasks else "idle" for w in ready[:SHOWN]]
        more = f" and {len(ready) - SHOWN} more" if len(ready) > SHOWN else ""
        rate = bar.n / max(bar.format_dict["elapsed"], 1e-9)
        left = self._left([*waiting, *(t for w in self._workers for t in w.tasks)], max(len(ready), 1))
        bar.set_description_str(f"{len(ready)}/{self.pool.count} workers ", refresh=False)
        bar.set_postfix_str(f"{rate:.3g} images/s, {_clock(left)} left; {'; '.join(each)}{more}")

    def _left(self, tasks: Sequence[Task], workers: int) -> float | None:
        """Seconds that tasks will take, from what those of the same name took; None before any is done."""
        seconds, items = (sum(x) for x in zip(*self._seconds.values(), strict=True)) if self._seconds else (0.0, 0)
        if not items:
            return None

        def one(name: str) -> float:
            known, count = self._seconds.get(name, (0.0, 0))
            return known / count if count else seconds / items

        return sum(one(t.name) * t.size for t in tasks) / workers


def _clock(seconds: float | None) -> str:
    """As 0:07 or 26:40:00; a question mark for what is not known."""
    if seconds is None:
        return "?"
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
