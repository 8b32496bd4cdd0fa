"""Workers as the driver sees them, wherever they are."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from bench.errors import BenchError
from bench.launch.parcel import ERROR, Parcel

Do = Callable[[Parcel], Parcel]
"""What a worker does with a task."""


@dataclass(frozen=True)
class Job:
    """What workers are made for.

    Attributes:
        make: "module:name" of a callable from `settings` to (`Do`, facts of the worker as plain values).
        settings: plain values.
        threads: of each worker.
        gpus: of each worker.
        cwd: the folder that relative paths are meant from, where a worker has it too.

    """

    make: str
    settings: Mapping[str, Any]
    threads: int
    gpus: int = 0
    cwd: str = "."


@dataclass(frozen=True)
class Event:
    """What has become of a worker or of its task.

    Attributes:
        worker: its number.
        kind: "ready" (`result` has its facts), "refused" (it cannot work: `reason`), "done" (`result` is the answer to
            the first task that it was sent and has not answered), "died", or "away" (its job waits in a queue again and
            will be ready later, by itself).
        result: see there.
        reason: why it died, refused or is away.
        innocent: whether it surely was not its task that it died of (its node is gone, or was taken from it).

    """

    worker: int
    kind: Literal["ready", "refused", "done", "died", "away"]
    result: Parcel | None = None
    reason: str = ""
    innocent: bool = False


class Pool(ABC):
    """Workers by number; closing it ends them."""

    count: int
    """Workers that are wanted."""

    @abstractmethod
    def start(self, worker: int) -> None:
        """Start a worker, again where one of this number has died."""

    @abstractmethod
    def send(self, worker: int, task: Parcel) -> None:
        """Give a worker a task; it does them in the order in which they came."""

    @abstractmethod
    def events(self, timeout: float) -> list[Event]:
        """What has happened; wait for something, `timeout` seconds at most."""

    @abstractmethod
    def close(self) -> None:
        """End all workers, whatever they are doing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def make_worker(job: Job) -> tuple[Do, dict[str, Any]]:
    """Make a worker of a job in this process: what it does, and its facts with its node and process.

    Raises:
        BenchError: it cannot be made here.

    """
    if Path(job.cwd).is_dir():
        os.chdir(job.cwd)
    import torch

    torch.set_num_threads(job.threads)
    module, _, name = job.make.partition(":")
    do, facts = getattr(importlib.import_module(module), name)(job.settings)
    return do, {"node": platform.node(), "pid": os.getpid(), **facts}


def answer(do: Do, task: Parcel) -> Parcel:
    """What a worker says to a task: whatever it raises is an answer too."""
    try:
        return do(task)
    except BenchError as error:
        return Parcel({ERROR: str(error)})
    except Exception as error:  # noqa: BLE001 -- a bug costs this task, and the driver tells of it
        traceback.print_exc(file=sys.stderr)
        return Parcel({ERROR: f"{type(error).__name__}: {error}"})
