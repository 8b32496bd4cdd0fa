"""Workers that find their tasks in a folder which they share with the driver: processes here, or jobs on Slurm.

::

    FOLDER/job.json         what workers are made for
    FOLDER/driver           a counter that the driver raises; workers end where it stands still
    FOLDER/stop             workers end
    FOLDER/0/hello          of worker 0: which start this is, and its facts, or why it cannot work
    FOLDER/0/in/000007      a task; it goes when it is answered
    FOLDER/0/out/000007     the answer
    FOLDER/0/log            what it printed

Every file is whole or not there. Tasks are named by a number that rises, so that nothing is ever awaited twice.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from abc import abstractmethod
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.files import disk_errors, read_json, write_atomic, write_json
from bench.launch.parcel import ERROR, Parcel
from bench.launch.pool import Event, Job, Pool, answer, make_worker
from bench.launch.settings import check_gpus

LOOK = 0.05
"""Seconds between looks into a folder."""
BEAT = 5.0
"""Seconds between beats of the driver."""
SILENCE = 120.0
"""Seconds without a beat after which a worker takes the driver for dead; folders on a network may be late."""
ASK = 1.0
"""Seconds between questions whether a job goes on."""
GRACE = 5.0
"""Seconds that a worker has to end by itself."""
DESERTED = 75
"""Exit code of a worker whose driver is silent."""


class FolderPool(Pool):
    """Workers that look into `folder`, which nobody else uses; it is deleted when the pool is closed.

    Args:
        folder: on a disk that all workers see.
        job: what they are made for.
        count: how many are wanted.

    """

    def __init__(self, folder: Path, job: Job, count: int) -> None:
        self.folder = folder
        self.job = job
        self.count = count
        self._next = 0
        self._sent: list[deque[str]] = [deque() for _ in range(count)]
        self._start: list[str | None] = [None] * count
        """The start of a worker that has said hello."""
        self._heard = [(0, 0)] * count
        """Time and number of its file."""
        self._running = [False] * count
        self._answered = [0] * count
        """Tasks since a worker has begun."""
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / "job.json", asdict(job))
        write_atomic(folder / "driver", "0")
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()

    def _beat(self) -> None:
        count = 0
        while not self._closed.wait(BEAT):
            count += 1
            with contextlib.suppress(BenchError):  # a full disk is told of by what else is written
                write_atomic(self.folder / "driver", str(count))

    @abstractmethod
    def _launch(self, worker: int) -> None:
        """Start the process or job of a worker."""

    @abstractmethod
    def _ended(self, worker: int) -> tuple[str, bool] | None:
        """How the process or job of a worker has ended, and whether it was surely not its task; None if it has not."""

    def _is_away(self, worker: int) -> bool:
        """Whether the job of a worker that had begun waits in a queue again."""
        return False

    @abstractmethod
    def _end(self) -> None:
        """End all that has not ended by itself."""

    def _place(self, worker: int) -> Path:
        return self.folder / str(worker)

    def start(self, worker: int) -> None:
        """Start a worker, with nothing of what one of this number has left."""
        place = self._place(worker)
        for name in ("hello", "in", "out"):
            path = place / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        with disk_errors(place):
            for name in ("in", "out"):
                (place / name).mkdir(parents=True, exist_ok=True)
        self._sent[worker].clear()
        self._start[worker], self._heard[worker] = None, (0, 0)
        self._running[worker] = True
        self._launch(worker)

    def send(self, worker: int, task: Parcel) -> None:
        """Put a task into the folder of a worker."""
        name = f"{self._next:09d}"
        self._next += 1
        self._sent[worker].append(name)
        write_atomic(self._place(worker) / "in" / name, task.to_bytes())

    def events(self, timeout: float) -> list[Event]:
        """Look until something has happened."""
        end = time.monotonic() + timeout
        while True:
            found = [event for worker in range(self.count) for event in self._look(worker)]
            if found or time.monotonic() >= end:
                return found
            time.sleep(LOOK)

    def _look(self, worker: int) -> list[Event]:
        if not self._running[worker]:
            return []
        ended = self._ended(worker)  # before the answers are read: what it has answered by now counts
        found = [*self._hello(worker), *self._answers(worker)]
        if ended is not None and not any(e.kind in ("refused", "died") for e in found):
            self._running[worker] = False
            found.append(Event(worker, "died", reason=self._with_last_words(worker, ended[0]), innocent=ended[1]))
        elif self._start[worker] is not None and self._is_away(worker):
            self._forget(worker)
            self._start[worker] = None
            found.append(Event(worker, "away", reason="was preempted and waits in the queue", innocent=True))
        return found

    def _forget(self, worker: int) -> None:
        """Take back what a worker was sent."""
        for name in self._sent[worker]:
            (self._place(worker) / "in" / name).unlink(missing_ok=True)
        self._sent[worker].clear()

    def _hello(self, worker: int) -> list[Event]:
        """Whether a worker has begun, or begun anew, as a job does that was preempted and came back."""
        path = self._place(worker) / "hello"
        try:
            state = path.stat()
        except FileNotFoundError:
            return []
        if (state.st_mtime_ns, state.st_ino) == self._heard[worker]:
            return []
        self._heard[worker] = state.st_mtime_ns, state.st_ino
        said = read_json(path, dict[str, Any])
        before = self._start[worker]
        self._start[worker] = said["start"]
        self._answered[worker] = 0
        if ERROR in said:
            self._running[worker] = False
            return [Event(worker, "refused", reason=said[ERROR])]
        ready = Event(worker, "ready", Parcel(said["facts"]))
        if before is None:
            return [ready]
        self._forget(worker)
        return [Event(worker, "away", reason="was preempted and has come back", innocent=True), ready]

    def _answers(self, worker: int) -> list[Event]:
        found = []
        while self._sent[worker]:
            path = self._place(worker) / "out" / self._sent[worker][0]
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                break
            path.unlink()
            self._sent[worker].popleft()
            self._answered[worker] += 1
            try:
                found.append(Event(worker, "done", Parcel.from_bytes(content)))
            except ValueError as error:
                found.append(Event(worker, "done", Parcel({ERROR: f"its answer is damaged: {error}"})))
        return found

    def _with_last_words(self, worker: int, reason: str) -> str:
        """A reason, and what the worker printed last."""
        try:
            lines = (self._place(worker) / "log").read_text(errors="replace").split("\n")
        except OSError:
            lines = []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{reason} ({last})" if last else reason

    def close(self) -> None:
        """Ask all workers to end, see that they do, and delete the folder."""
        with contextlib.suppress(BenchError):
            write_atomic(self.folder / "stop", "")
        self._end()
        self._closed.set()
        self._heart.join()
        shutil.rmtree(self.folder, ignore_errors=True)


class ProcessPool(FolderPool):
    """Processes on this machine, each with GPUs of its own where the job wants them."""

    def __init__(self, folder: Path, job: Job, count: int) -> None:
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._devices = visible_gpus() if job.gpus else []
        check_gpus(count, job.gpus, len(self._devices))
        super().__init__(folder, job, count)

    def _launch(self, worker: int) -> None:
        threads = str(self.job.threads)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
        }
        if self.job.gpus:
            mine = self._devices[worker * self.job.gpus : (worker + 1) * self.job.gpus]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
        with (self._place(worker) / "log").open("wb") as log:
            self._processes[worker] = subprocess.Popen(
                [sys.executable, "-m", "bench.launch.folder", str(self.folder), str(worker), str(os.getpid())],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,  # Ctrl-C is for the driver, which ends them
            )  # fmt: skip

    def _ended(self, worker: int) -> tuple[str, bool] | None:
        code = self._processes[worker].poll()
        if code == DESERTED:
            return f"has heard nothing of this process for {SILENCE:.0f} seconds", True
        return None if code is None else (how_it_ended(code), False)

    def _end(self) -> None:
        deadline = time.monotonic() + GRACE
        for process in self._processes.values():
            busy = process.poll() is None
            while busy and time.monotonic() < deadline and not self._is_busy():
                busy = process.poll() is None
                time.sleep(LOOK)
            if process.poll() is None:
                process.kill()
            process.wait()

    def _is_busy(self) -> bool:
        return any(self._sent)


class SlurmPool(FolderPool):
    """Jobs of Slurm, one array of them at first; submitit's local executor in their place where `local`.

    Args:
        folder: on a disk that all nodes see.
        job: what workers are made for.
        count: jobs of the array.
        minutes: time limit of each.
        options: of sbatch.
        local: whether to try all of it on this machine.

    """

    def __init__(
        self, folder: Path, job: Job, count: int, minutes: int, options: dict[str, Any], local: bool = False
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise BenchError(
                "launch=slurm needs the package submitit: pip install 'diverse-sr-bench[cluster]'."
            ) from None
        if not local and shutil.which("sbatch") is None:
            raise BenchError(
                "launch=slurm needs Slurm's sbatch, which is not here: start it on a node of the cluster, or try it "
                "with launch.address=local."
            )
        super().__init__(folder, job, count)
        self._logs = folder.with_name(f"{folder.name}-jobs")
        self._executor = submitit.AutoExecutor(folder=self._logs, cluster="local" if local else "slurm")
        self._executor.update_parameters(
            name="bench", timeout_min=minutes, cpus_per_task=job.threads, gpus_per_node=job.gpus, tasks_per_node=1
        )
        if not local:
            self._executor.update_parameters(slurm_additional_parameters=options)
        self._jobs: dict[int, Any] = {}
        self._asked: dict[int, float] = {}
        self._looked: dict[int, float] = {}
        self._seen_running: set[int] = set()
        self._first: list[int] | None = []

    def _launch(self, worker: int) -> None:
        if self._first is None:  # one in the place of one that died
            self._jobs[worker] = self._executor.submit(Serve(str(self.folder), str(worker)))
            return
        self._first.append(worker)
        if len(self._first) == self.count:
            with self._executor.batch():  # one array
                jobs = [self._executor.submit(Serve(str(self.folder), str(w))) for w in self._first]
            self._jobs.update(zip(self._first, jobs, strict=True))
            self._first = None

    def _ended(self, worker: int) -> tuple[str, bool] | None:
        job = self._jobs.get(worker)
        if job is None or time.monotonic() < self._asked.get(worker, 0.0) + ASK:
            return None
        self._asked[worker] = time.monotonic()
        if not job.done():
            return None
        state = _state(job)
        if state == "TIMEOUT":  # of a task that takes longer than the job may
            return f"ended as {state} (launch.minutes)", self._answered[worker] > 0 or not self._sent[worker]
        return f"ended as {state}", state in ("NODE_FAIL", "PREEMPTED", "CANCELLED", "BOOT_FAIL")

    def _hello(self, worker: int) -> list[Event]:
        found = super()._hello(worker)
        if found:
            self._seen_running.discard(worker)
        return found

    def _is_away(self, worker: int) -> bool:
        job = self._jobs.get(worker)
        if job is None or time.monotonic() < self._looked.get(worker, 0.0) + ASK:
            return False
        self._looked[worker] = time.monotonic()
        state = _state(job)
        if state == "RUNNING":  # what Slurm says is late: a job that has come back may still be called waiting
            self._seen_running.add(worker)
        return worker in self._seen_running and state in ("PENDING", "REQUEUED")

    def _end(self) -> None:
        for job in self._jobs.values():
            if not job.done():
                job.cancel(check=False)


def _state(job: Any) -> str:
    """Slurm's word for where a job is; "CANCELLED by 1000" is CANCELLED."""
    return str(job.state).split(" ")[0]


class Serve:
    """A job of Slurm; after a preemption it is put into the queue again, where the cluster allows it."""

    def __init__(self, folder: str, worker: str) -> None:
        self.folder = folder
        self.worker = worker

    def __call__(self) -> None:
        """Do what the driver asks for."""
        serve(Path(self.folder), self.worker)

    def checkpoint(self) -> Any:
        """What is to be done when the job comes back; submitit calls it."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def serve(folder: Path, worker: str, parent: int | None = None) -> None:
    """Work until the driver says that it is enough, or is gone.

    Args:
        folder: see `FolderPool`.
        worker: its name in it.
        parent: the process that must be there, where it is on this machine.

    """
    place = folder / worker
    hello: dict[str, Any] = {"start": uuid.uuid4().hex}
    threading.Thread(target=_end_with_driver, args=(folder, parent), daemon=True).start()
    job = Job(**read_json(folder / "job.json", dict[str, Any]))
    try:
        do, facts = make_worker(job)
    except BenchError as error:
        write_json(place / "hello", hello | {ERROR: str(error)})
        return
    write_json(place / "hello", hello | {"facts": facts})
    while not (folder / "stop").exists():
        try:
            task = min((name for name in os.listdir(place / "in") if name.isdecimal()), default=None)
        except FileNotFoundError:  # of a driver that was killed; the next one has deleted it
            return
        if task is None:
            time.sleep(LOOK)
            continue
        path = place / "in" / task
        try:
            result = answer(do, Parcel.from_bytes(path.read_bytes()))
            write_atomic(place / "out" / task, result.to_bytes())
        except FileNotFoundError:  # taken back
            continue
        path.unlink(missing_ok=True)


def _end_with_driver(folder: Path, parent: int | None) -> None:
    """End this process when the driver's counter stands still, or the driver is no longer its parent."""
    beat, since = "", time.monotonic()
    while True:
        time.sleep(1.0)
        if parent is not None and os.getppid() != parent:
            os._exit(0)
        with contextlib.suppress(OSError):
            now = (folder / "driver").read_text()
            if now != beat:
                beat, since = now, time.monotonic()
        if time.monotonic() - since > SILENCE:
            os._exit(DESERTED)


def how_it_ended(code: int) -> str:
    """Say how a process ended by its exit code."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (", as when memory is short" if name == "SIGKILL" else "")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name]
    import torch

    return [str(k) for k in range(torch.cuda.device_count())] if torch.cuda.is_available() else []


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
