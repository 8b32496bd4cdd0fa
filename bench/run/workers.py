"""Workers of a command that keeps what they compute: they are opened, get work on cells, and are closed."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from bench.config import RunConfig
from bench.launch.deal import Dealer, Task
from bench.launch.opening import open_pool
from bench.launch.parcel import Parcel
from bench.launch.pool import Job
from bench.run.cell import CellKey
from bench.run.computing import Computed, Computing
from bench.run.draw import say
from bench.run.store import RunDir
from bench.run.worker import MAKE, settings_of_worker, unpack


class Driver(Protocol):
    """Who deals work out and keeps the results.

    Attributes:
        config: the run, with where it is launched; the GPUs are the workers' where each has some.
        directory: it is held by this process.
        names: metrics by their own names.
        computing: what computes here.

    """

    config: RunConfig
    directory: RunDir
    names: list[str]
    computing: Computing

    def fail(self, what: str, reason: str, image: str | None = None) -> None:
        """Record a failure."""


class Workers:
    """The workers of a driver.

    Args:
        driver: whose they are.
        identities: what the rows of each cell depend on, by its folder; a worker must find the same.

    """

    def __init__(self, driver: Driver, identities: Mapping[str, Any]) -> None:
        self._driver = driver
        config = driver.config
        gpus = config.launch.gpus or 0
        settings = settings_of_worker(
            config, driver.names, driver.computing.kept, identities, "cuda:0" if gpus else config.device
        )
        job = Job(MAKE, settings, torch.get_num_threads(), gpus, os.getcwd())
        folder = driver.directory.path.absolute() / "launch" / uuid.uuid4().hex[:8]
        for left in folder.parent.glob("*/job.json"):  # of a start that was killed: its workers end
            shutil.rmtree(left.parent, ignore_errors=True)
        self._pool = open_pool(config.launch, job, folder)
        try:
            self._dealer = Dealer(self._pool, say)
        except BaseException:
            self._pool.close()
            raise

    @property
    def facts(self) -> list[dict[str, Any]]:
        """Facts of the workers that are ready, waiting for the first one; BenchError where none can start."""
        return self._dealer.facts

    def close(self) -> None:
        """End the workers."""
        self._pool.close()
        folder = self._driver.directory.path / "launch"
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def work(
        self, key: CellKey, indices: Sequence[int], make: Callable[[], Parcel], keep: Callable[[Computed], None]
    ) -> Work:
        """Work on images whose result is kept, without the images that have become others meanwhile."""
        images = self._driver.computing.images

        def unpacked(answer: Parcel) -> None:
            done = unpack(key, answer, images.operator(key.scale).range)
            same = [images.agrees(i.index, i.name, i.content) for i in done.images]
            keep(done if all(same) else done.only(same))

        return Work(key, list(indices), make, unpacked)

    def deal(self, work: Sequence[Work], alone: bool = False) -> None:
        """Have work done; what fails of it is a failure of the run.

        Args:
            work: begun in this order.
            alone: one worker at a time while all others are idle.

        """
        driver = self._driver
        broken = driver.computing.loaded.broken

        def done(task: Task, answer: Parcel) -> None:
            assert isinstance(task, Work)
            key = task.key
            for name, text in answer.content["errors"].items():
                driver.directory.write_error(name, text)
            for failure in answer.content["failures"]:
                driver.fail(**failure)
            if answer.content["broken"]:
                broken.add((key.label, key.scale))
            task.keep(answer)

        def failed(task: Task, reason: str) -> None:
            assert isinstance(task, Work)
            if not task.indices:
                driver.fail(task.key.folder, f"it could not be timed: {reason}")
            for index in task.indices:
                ids = driver.computing.images.dataset.ids
                driver.fail(task.key.folder, f"its batch failed: {reason}", ids[index])

        def skip(task: Task) -> bool:
            assert isinstance(task, Work)
            return (task.key.label, task.key.scale) in broken

        self._dealer.deal(work, done, failed, skip, alone)


class Work(Task):
    """A task on a cell, and what is done with its answer.

    Args:
        key: the cell.
        indices: of the images; none where it is timed.
        make: makes what the worker is sent.
        keep: told of the answer.

    """

    def __init__(
        self, key: CellKey, indices: Sequence[int], make: Callable[[], Parcel], keep: Callable[[Parcel], None]
    ) -> None:
        super().__init__(lambda: self._of_cell(make()), key.folder, max(len(indices), 1))
        self.key = key
        self.indices = indices
        self.keep = keep

    def _of_cell(self, parcel: Parcel) -> Parcel:
        return Parcel({**parcel.content, "cell": vars(self.key)}, parcel.arrays)
