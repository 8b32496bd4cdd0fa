"""What pools make of how workers end, without a cluster: the words of Ray and the states of Slurm are given."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.files import write_json
from bench.launch.folder import DESERTED, ProcessPool, SlurmPool
from bench.launch.on_ray import RayPool, node_is_gone
from bench.launch.parcel import Parcel
from bench.launch.pool import Job
from bench.launch.settings import LaunchConfig, check_gpus

JOB = Job("json:loads", {}, 1)


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        (
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
            "Worker unexpectedly exits with a connection error code 2. (1) The process is killed by SIGKILL by OOM "
            "killer due to high memory usage; consider the OOMing node and preventing node deaths.",
            False,
        ),
        ("Task was killed due to the node running low on memory. Memory on the node (IP: 1.2.3.4) was 7.9GB; 3 workers "
         "were terminated and the process has died.", False),
        ("The actor died because its node has died. Node Id: 5a NodeID of the node it was on.", True),
        ("The actor died because its node was lost: the actor's node was terminated expectedly: drained", True),
    ],
)  # fmt: skip
def test_a_process_that_was_killed_is_no_node_that_has_gone(text: str, gone: bool) -> None:
    """The beginnings are those of Ray 2.60's own strings."""
    assert node_is_gone(text) is gone


def test_sigterm_while_ray_starts_is_the_commands_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray has a handler of its own in place by then, which ends the process with code 15 and without a word."""
    ray = pytest.importorskip("ray")

    class ReceivedError(Exception):
        pass

    def ours(number: int, frame: object) -> None:
        raise ReceivedError

    def init(**options: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray's
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    before = signal.signal(signal.SIGTERM, ours)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    try:
        with pytest.raises(ReceivedError):
            RayPool(JOB, LaunchConfig(name="ray"))
        assert signal.getsignal(signal.SIGTERM) is ours
    finally:
        signal.signal(signal.SIGTERM, before)


class FakeJob:
    """A job of submitit whose state is given."""

    state = "RUNNING"
    finished = False

    def done(self) -> bool:
        return self.finished

    def cancel(self, check: bool = True) -> None:
        pass


class Jobs(SlurmPool):
    """Slurm's path without Slurm; nothing is asked about less often than it is looked at."""

    def _launch(self, worker: int) -> None:
        self._jobs[worker] = FakeJob()

    def fake(self, worker: int) -> FakeJob:
        return self._jobs[worker]  # type: ignore[no-any-return]

    def say_hello(self, worker: int, start: str) -> None:
        write_json(self.folder / str(worker) / "hello", {"start": start, "facts": {"node": "n"}})

    def kinds(self) -> list[str]:
        self._asked.clear()
        self._looked.clear()
        return [event.kind for event in self.events(0.0)]


@pytest.fixture
def jobs(tmp_path: Path):
    pytest.importorskip("submitit")
    pool = Jobs(tmp_path / "launch", JOB, 1, 5, {}, local=True)
    yield pool
    pool.close()


def test_a_job_that_is_preempted_gives_its_tasks_back_while_it_waits_and_is_ready_when_it_returns(jobs: Jobs) -> None:
    jobs.start(0)
    jobs.fake(0).state = "PENDING"
    assert jobs.kinds() == []
    jobs.say_hello(0, "first")
    assert jobs.kinds() == ["ready"]  # Slurm is late in saying that it runs
    assert jobs.kinds() == []
    jobs.fake(0).state = "RUNNING"
    jobs.send(0, Parcel({"number": 1}))
    assert jobs.kinds() == []
    jobs.fake(0).state = "PENDING"
    assert jobs.kinds() == ["away"]
    assert list((jobs.folder / "0" / "in").iterdir()) == []
    assert jobs.kinds() == []
    jobs.say_hello(0, "second")
    assert jobs.kinds() == ["ready"]  # the state is still the old one
    assert jobs.kinds() == []


def test_a_job_that_comes_back_unseen_gives_its_tasks_back(jobs: Jobs) -> None:
    jobs.start(0)
    jobs.say_hello(0, "first")
    assert jobs.kinds() == ["ready"]
    jobs.send(0, Parcel({"number": 1}))
    jobs.say_hello(0, "second")
    assert jobs.kinds() == ["away", "ready"]


@pytest.mark.parametrize(
    ("state", "answered", "innocent"),
    [
        ("TIMEOUT", 0, False), ("TIMEOUT", 1, True), ("NODE_FAIL", 0, True), ("CANCELLED by 0", 0, True),
        ("FAILED", 0, False),
    ],
)  # fmt: skip
def test_a_task_is_guilty_of_a_job_that_ran_out_of_time_with_it_alone(
    jobs: Jobs, state: str, answered: int, innocent: bool
) -> None:
    jobs.start(0)
    jobs.say_hello(0, "first")
    assert jobs.kinds() == ["ready"]
    for number in range(answered + 1):
        jobs.send(0, Parcel({"number": number}))
    for path in sorted((jobs.folder / "0" / "in").iterdir())[:answered]:
        (jobs.folder / "0" / "out" / path.name).write_bytes(Parcel({}).to_bytes())
    assert jobs.kinds() == ["done"] * answered
    jobs.fake(0).state, jobs.fake(0).finished = state, True
    jobs._asked.clear()
    (event,) = jobs.events(0.0)
    assert (event.kind, event.innocent) == ("died", innocent)


def test_a_worker_whose_driver_was_silent_is_no_death_of_its_task(tmp_path: Path) -> None:
    class Ended:
        def poll(self) -> int:
            return DESERTED

        def wait(self) -> int:
            return DESERTED

    class Silent(ProcessPool):
        def _launch(self, worker: int) -> None:
            self._processes[worker] = Ended()  # type: ignore[assignment]

    pool = Silent(tmp_path / "launch", JOB, 1)
    pool.start(0)
    (event,) = pool.events(0.0)
    pool.close()
    assert (event.kind, event.innocent) == ("died", True)


def test_gpus_that_are_not_there_are_one_sentence() -> None:
    check_gpus(2, 1, 2)
    check_gpus(8, 0, 0)
    with pytest.raises(
        BenchError, match=r"2 workers of 1 GPUs need 2, this machine has 0: use a smaller launch\.workers"
    ):
        check_gpus(2, 1, 0)
