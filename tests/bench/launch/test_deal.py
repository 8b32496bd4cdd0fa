"""Dealing out work, with workers that are scripted: no process is started."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import pytest

from bench.errors import BenchError
from bench.launch.deal import KILLS, LOSSES, Dealer, Task
from bench.launch.parcel import ERROR, Parcel
from bench.launch.pool import Event, Pool


class Scripted(Pool):
    """Workers that do one step at each look: begin, or answer; `deaths` tells at which tasks how often one dies."""

    def __init__(
        self, count: int, deaths: Mapping[int, int] | None = None, refusing: tuple[int, ...] = (), unable: bool = False
    ):
        self.count = count
        self.deaths = dict(deaths or {})
        self.refusing, self.unable = refusing, unable
        self.queues: list[deque[Parcel] | None] = [None] * count
        self.starts = [0] * count
        self.innocent = False
        self.away = False
        self.most_at_once = 0
        self.done: list[tuple[int, int]] = []

    def start(self, worker):
        self.queues[worker] = None
        self.starts[worker] += 1

    def send(self, worker, task):
        self.queues[worker].append(task)
        self.most_at_once = max(self.most_at_once, sum(bool(q) for q in self.queues))

    def events(self, timeout):
        return [event for w in range(self.count) if (event := self.step(w)) is not None]

    def step(self, w):
        if w in self.refusing:
            self.refusing = tuple(r for r in self.refusing if r != w)
            return Event(w, "refused", reason="there is no dataset")
        if self.queues[w] is None:
            if self.unable:
                return Event(w, "died", reason="ended with code 1", innocent=self.innocent)
            self.queues[w] = deque()
            return Event(w, "ready", Parcel({"node": f"node{w}"}))
        if not self.queues[w]:
            return None
        number = self.queues[w].popleft().content["number"]
        if self.deaths.get(number, 0):
            self.deaths[number] -= 1
            if self.away:
                self.queues[w] = None
                return Event(w, "away", reason="waits in the queue", innocent=True)
            return Event(w, "died", reason="was killed by SIGKILL", innocent=self.innocent)
        self.done.append((w, number))
        return Event(w, "done", Parcel({ERROR: "it is odd"} if number == 13 else {"square": number**2}))

    def close(self):
        pass


def deal(pool: Scripted, numbers, **options):
    said, squares, failed = [], {}, {}
    tasks = {n: Task(lambda n=n: Parcel({"number": n}), "squares") for n in numbers}
    named = {id(t): n for n, t in tasks.items()}
    Dealer(pool, said.append).deal(
        list(tasks.values()),
        lambda task, result: squares.update({named[id(task)]: result.content["square"]}),
        lambda task, reason: failed.update({named[id(task)]: reason}),
        **options,
    )
    return said, squares, failed


@pytest.mark.parametrize("workers", [1, 2, 5, 20])
def test_every_task_is_done_once_in_their_order(workers: int) -> None:
    pool = Scripted(workers)
    _, squares, failed = deal(pool, range(12))
    assert squares == {n: n**2 for n in range(12)}
    assert not failed
    assert sorted(n for _, n in pool.done) == list(range(12))
    first = [n for w, n in pool.done if w == pool.done[0][0]]
    assert first == sorted(first)
    if workers == 2:
        assert {w for w, _ in pool.done} == {0, 1}


def test_the_last_tasks_are_for_who_is_idle() -> None:
    class Late(Scripted):  # the second worker is ready after the first has got its task
        def events(self, timeout):
            self.looks = getattr(self, "looks", 0) + 1
            return super().events(timeout) if self.looks > 2 else [self.step(self.looks - 1)]

    pool = Late(2)
    _, squares, _ = deal(pool, range(2))
    assert len(squares) == 2
    assert {w for w, _ in pool.done} == {0, 1}


def test_who_dies_costs_its_task_which_another_takes() -> None:
    pool = Scripted(2, deaths={3: 1, 4: KILLS - 1})
    said, squares, failed = deal(pool, range(8))
    assert squares == {n: n**2 for n in range(8)}
    assert not failed
    assert sum(pool.starts) == 2 + KILLS
    assert said[0].endswith("was killed by SIGKILL; another takes its work.")


def test_a_task_that_always_kills_fails_and_the_others_are_done() -> None:
    pool = Scripted(2, deaths={3: 100})
    _, squares, failed = deal(pool, range(8))
    assert sorted(squares) == [0, 1, 2, 4, 5, 6, 7]
    assert failed == {3: "it killed 3 workers; the last was killed by SIGKILL"}
    assert 100 - pool.deaths[3] == KILLS


def test_a_task_that_is_lost_again_and_again_fails_too() -> None:
    """As one that takes longer than a job may."""
    pool = Scripted(2, deaths={3: 100})
    pool.innocent = True
    _, squares, failed = deal(pool, range(8))
    assert sorted(squares) == [0, 1, 2, 4, 5, 6, 7]
    assert failed == {3: f"it was lost with {LOSSES} workers; the last was killed by SIGKILL"}


def test_workers_whose_nodes_go_while_they_begin_are_not_started_forever() -> None:
    pool = Scripted(2, unable=True)
    pool.innocent = True
    with pytest.raises(BenchError, match="No worker can start: it ended with code 1"):
        deal(pool, range(3))
    assert pool.starts == [LOSSES, LOSSES]


def test_who_waits_in_a_queue_again_is_not_started_twice_and_others_take_its_tasks() -> None:
    pool = Scripted(2, deaths={3: 1})
    pool.away = True
    said, squares, failed = deal(pool, range(8))
    assert squares == {n: n**2 for n in range(8)}
    assert not failed
    assert pool.starts == [1, 1]
    assert said[0].endswith("waits in the queue; another takes its work.")


def test_an_error_is_no_death() -> None:
    pool = Scripted(1)
    _, squares, failed = deal(pool, [12, 13, 14])
    assert failed == {13: "it is odd"}
    assert sorted(squares) == [12, 14]
    assert pool.starts == [1]


def test_alone_means_one_at_a_time_and_the_others_idle() -> None:
    pool = Scripted(3)
    _, squares, _ = deal(pool, range(5), alone=True)
    assert pool.most_at_once == 1
    assert len({w for w, _ in pool.done}) == 1
    assert len(squares) == 5


def test_what_is_no_longer_wanted_is_not_sent() -> None:
    pool = Scripted(1)
    seen: list[int] = []
    tasks = [Task(lambda n=n: Parcel({"number": n}), "squares") for n in range(6)]

    def skip(task: Task) -> bool:
        return task is not tasks[0] and bool(seen)

    Dealer(pool, print).deal(tasks, lambda t, r: seen.append(r.content["square"]), lambda t, r: None, skip)
    assert seen == [0, 1]  # the second was at the worker already


def test_a_worker_that_cannot_work_is_left_out() -> None:
    said, squares, _ = deal(Scripted(2, refusing=(0,)), range(4))
    assert len(squares) == 4
    assert said == ["Worker 0 cannot work: there is no dataset"]


@pytest.mark.parametrize(
    ("pool", "reason"),
    [
        (Scripted(2, refusing=(0, 1)), "No worker can start: there is no dataset"),
        (Scripted(2, unable=True), "No worker can start: it ended with code 1"),
    ],
)
def test_without_workers_it_ends_in_a_sentence(pool: Scripted, reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        deal(pool, range(4))
    assert max(pool.starts) <= KILLS


def test_a_task_that_cannot_be_made_fails_alone() -> None:
    def damaged() -> Parcel:
        raise BenchError("3.png is damaged")

    failed = []
    tasks = [Task(damaged, "x"), Task(lambda: Parcel({"number": 1}), "x")]
    pool = Scripted(1)
    Dealer(pool, print).deal(tasks, lambda t, r: None, lambda t, reason: failed.append(reason))
    assert failed == ["3.png is damaged"]
    assert pool.done == [(0, 1)]
