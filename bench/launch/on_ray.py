"""Workers as actors on Ray: an existing cluster, or one that is started on this machine and ends with the command."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from dataclasses import asdict
from typing import Any

from bench.errors import BenchError
from bench.launch.parcel import ERROR, Parcel
from bench.launch.pool import Event, Job, Pool, answer, make_worker
from bench.launch.settings import LaunchConfig, check_cores, check_gpus, cores


class RayPool(Pool):
    """Actors, each with the cores and GPUs of the job.

    Args:
        job: what they are made for.
        config: address of the cluster, number of workers.

    Raises:
        BenchError: Ray is not installed, does not answer, or has less than the workers need.

    """

    def __init__(self, job: Job, config: LaunchConfig) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # its 15 would let workers starve beside anything else
        try:
            import ray
        except ImportError:
            raise BenchError("launch=ray needs the package ray: pip install 'diverse-sr-bench[cluster]'.") from None
        self._ray = ray
        self._job = job
        self._here = config.address is None
        self._started = not ray.is_initialized()
        if self._started:
            self._connect(config)
        there = ray.cluster_resources()
        if self._here:
            try:
                check_cores(config, int(there.get("CPU", 0)), job.threads, "this machine")
                check_gpus(config.workers or 1, job.gpus, int(there.get("GPU", 0)))
            except BenchError:
                self.close()
                raise
        if config.workers is not None:
            self.count = config.workers
        else:
            self.count = int(there.get("GPU", 0) // job.gpus if job.gpus else there.get("CPU", 0) // job.threads)
            if self.count < 1:
                what = f"{job.gpus} GPUs" if job.gpus else f"{job.threads} cores"
                self.close()
                raise BenchError(
                    f"The Ray cluster has no {what} for a worker: set launch.cpus or launch.gpus, or launch.workers "
                    "where it grows by itself."
                )
        self._actors: dict[int, Any] = {}
        self._refs: list[deque[Any]] = [deque() for _ in range(self.count)]
        self._ready = [False] * self.count

    def _connect(self, config: LaunchConfig) -> None:
        options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
        if self._here:
            # one machine: nothing listens to others, and no page of its own
            options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1",
                        "num_cpus": cores()}  # fmt: skip
        else:
            options["address"] = config.address
        before = signal.getsignal(signal.SIGTERM)
        terminated = False
        try:
            self._ray.init(**options)
        except SystemExit as end:  # of Ray's handler, which it has put there by now
            terminated = end.code == signal.SIGTERM and callable(before)
            if not terminated:
                raise
        except (ConnectionError, RuntimeError, ValueError, TimeoutError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            where = "Ray does not start here" if self._here else f"launch.address={config.address} does not answer"
            raise BenchError(f"{where}: {reason}") from error
        finally:
            if threading.current_thread() is threading.main_thread():  # Ray puts a handler of its own there
                signal.signal(signal.SIGTERM, before)
        if terminated:
            assert callable(before)
            before(signal.SIGTERM, None)

    def start(self, worker: int) -> None:
        """Start an actor; it waits where there are no free cores or GPUs."""
        job = self._job
        options = {"num_cpus": job.threads, "num_gpus": job.gpus, "max_restarts": 0}
        self._actors[worker] = self._ray.remote(_Actor).options(**options).remote(asdict(job))
        self._ready[worker] = False
        self._refs[worker] = deque([self._actors[worker].hello.remote()])

    def send(self, worker: int, task: Parcel) -> None:
        """Queue a task at an actor."""
        self._refs[worker].append(self._actors[worker].do.remote(task.to_bytes()))

    def events(self, timeout: float) -> list[Event]:
        """Wait for the first answer of any actor."""
        first = {refs[0]: worker for worker, refs in enumerate(self._refs) if refs}
        if not first:
            time.sleep(timeout)
            return []
        ready, _ = self._ray.wait(list(first), num_returns=len(first), timeout=0)
        if not ready:
            ready, _ = self._ray.wait(list(first), num_returns=1, timeout=timeout)
        return [self._event(first[ref]) for ref in ready]

    def _event(self, worker: int) -> Event:
        ref = self._refs[worker].popleft()
        try:
            content = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return self._died(worker, error)
        if self._ready[worker]:
            return Event(worker, "done", Parcel.from_bytes(content))
        if ERROR in content:
            self._refs[worker].clear()
            return Event(worker, "refused", reason=str(content[ERROR]))
        self._ready[worker] = True
        return Event(worker, "ready", Parcel(content))

    def _died(self, worker: int, error: Exception) -> Event:
        self._refs[worker].clear()
        self._ray.kill(self._actors[worker])  # whatever is left of it
        text = " ".join(str(error).split())
        node = getattr(error, "preempted", False) or node_is_gone(text)
        reason = "is gone with its node" if node else f"has died ({text[:300]})"
        return Event(worker, "died", reason=reason, innocent=node)

    def close(self) -> None:
        """End the actors, and Ray where it was started here."""
        for actor in getattr(self, "_actors", {}).values():
            self._ray.kill(actor)
        if self._started:
            self._shut_down()

    def _shut_down(self) -> None:
        """End Ray; its library takes every handler of SIGTERM away in doing so, after which a signal says nothing."""
        before = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or before is None:
            self._ray.shutdown()
            return
        ending = threading.Thread(target=self._ray.shutdown)
        ending.start()
        while ending.is_alive():
            ending.join(0.005)
            signal.signal(signal.SIGTERM, before)


def node_is_gone(text: str) -> bool:
    """Whether Ray says that an actor's node has gone, not its process.

    Its text on a process that was killed has the words node, died and terminated, too.
    """
    return "its node has died" in text or "node was terminated" in text


class _Actor:
    """One worker."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._facts: dict[str, Any]
        try:
            self._do, self._facts = make_worker(Job(**job))
        except BenchError as error:
            self._facts = {ERROR: str(error)}

    def hello(self) -> dict[str, Any]:
        """Facts, or why it cannot work."""
        return self._facts

    def do(self, task: bytes) -> bytes:
        """The answer to a task."""
        return answer(self._do, Parcel.from_bytes(task)).to_bytes()
