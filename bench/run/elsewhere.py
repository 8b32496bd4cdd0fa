"""A run with workers: what is left to do is dealt out, and what comes back is kept here."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from bench.launch.deal import Dealer, Task
from bench.launch.opening import open_pool
from bench.launch.parcel import Parcel
from bench.launch.pool import Job
from bench.run.cell import Cell, CellKey
from bench.run.computing import Computed
from bench.run.draw import say
from bench.run.worker import MAKE, settings_of_worker, unpack

if TYPE_CHECKING:
    from bench.run.runner import Frames, Session


class Elsewhere:
    """The workers of a session.

    Args:
        session: it has claimed its cells.

    """

    def __init__(self, session: Session) -> None:
        self._session = session
        config = session.config
        self._rows: dict[tuple[str, int], int] = {}
        cells = map(session.directory.cell, session.keys)
        identities = {c.folder.name: c.identity for c in cells if c.identity is not None}
        gpus = config.launch.gpus or 0
        settings = settings_of_worker(
            config, session.names, session.computing.kept, identities, "cuda:0" if gpus else config.device
        )
        job = Job(MAKE, settings, torch.get_num_threads(), gpus, os.getcwd())
        folder = config.out.absolute() / "launch" / uuid.uuid4().hex[:8]
        for left in folder.parent.glob("*/job.json"):  # of a start that was killed: its workers end
            shutil.rmtree(left.parent, ignore_errors=True)
        self._pool = open_pool(config.launch, job, folder)
        try:
            self._dealer = Dealer(self._pool, say)
        except BaseException:
            self._pool.close()
            raise

    def close(self) -> None:
        """End the workers."""
        self._pool.close()
        folder = self._session.config.out / "launch"
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def measure(self, groups: Sequence[Sequence[Cell]]) -> None:
        """Compute rows of cells, given by method and scale."""
        session = self._session
        if not groups:
            return
        self._choose_rows(groups)
        work: list[_Work] = []
        for cells in groups:
            for cell in cells:
                filling = session.incomplete(cell)
                before = session.rows(cell) if filling else None
                work += [w for batch in filling for w in self._filling(cell, batch, before)]
                work += [self._measuring(cell, batch) for batch in session.missing(cell)]
        self._deal(work)
        session.directory.amend_environment({"workers": self._dealer.facts})
        for cell in (c for cells in groups for c in cells):
            cell.compact()

    def time(self, keys: Sequence[CellKey]) -> None:
        """Time cells of one scale in turns, by one worker while the others are idle."""
        content = {"kind": "time", "cells": [vars(k) for k in keys]}

        def keep(answer: Parcel) -> None:
            self._session.keep_times((CellKey(**cell), found) for cell, found in answer.content.get("times", []))

        self._deal([_Work(keys[0], [], lambda: self._with_rows(keys[0], Parcel(content)), keep)], alone=True)

    def draw(self, pictures: Sequence[tuple[CellKey, int]], samples: Mapping[CellKey, int]) -> None:
        """Draw samples of images, by cell and index, that are not measured; so many of each cell's."""

        def one(key: CellKey, index: int) -> _Work:
            content = {"kind": "draw", "index": index, "n": samples[key]}
            return self._work(key, [index], lambda: Parcel(content), self._session.keep_drawn)

        self._deal([one(key, index) for key, index in pictures])

    # tasks

    def _filling(self, cell: Cell, batch: Sequence[int], before: Frames | None) -> list[_Work]:
        """Metrics that are added to rows: of samples that are kept, and of samples that are drawn again."""
        session = self._session
        stored, drawn = session.split(cell, batch)

        def kept() -> Parcel:
            arrays = {str(i): session.read(cell, i).numpy() for i in stored}
            return Parcel({"kind": "fill", "names": session.lacking(cell, stored)}, arrays)

        def again() -> Parcel:
            return Parcel({
                "kind": "fill_again", "names": session.lacking(cell, drawn), "indices": drawn,
                "shown": session.shown(cell.key.scale, drawn),
            })  # fmt: skip

        parts = [(stored, kept), (drawn, again)]
        return [self._work(cell.key, i, make, lambda d: session.merge(d, before)) for i, make in parts if i]

    def _measuring(self, cell: Cell, batch: Sequence[int]) -> _Work:
        session = self._session

        def make() -> Parcel:
            shown = session.shown(cell.key.scale, batch)
            return Parcel({"kind": "measure", "indices": list(batch), "shown": shown})

        return self._work(cell.key, batch, make, session.keep)

    def _work(
        self, key: CellKey, indices: Sequence[int], make: Callable[[], Parcel], keep: Callable[[Computed], None]
    ) -> _Work:
        """Work on images whose result is kept, without the images that have become others meanwhile."""
        session = self._session

        def unpacked(answer: Parcel) -> None:
            done = unpack(key, answer, session.images.operator(key.scale).range)
            same = [session.images.agrees(i.index, i.name, i.content) for i in done.images]
            keep(done if all(same) else done.only(same))

        return _Work(key, list(indices), lambda: self._with_rows(key, make()), unpacked)

    def _with_rows(self, key: CellKey, task: Parcel) -> Parcel:
        rows = self._rows.get((key.label, key.scale))
        return Parcel({**task.content, "cell": vars(key), "rows": rows}, task.arrays)

    # dealing

    def _deal(self, work: Sequence[_Work], alone: bool = False) -> None:
        """Have work done; what fails of it is a failure of the run."""
        session = self._session
        broken = session.loaded.broken

        def done(task: Task, answer: Parcel) -> None:
            assert isinstance(task, _Work)
            key = task.key
            for name, text in answer.content["errors"].items():
                session.directory.write_error(name, text)
            for failure in answer.content["failures"]:
                session.fail(**failure)
            if answer.content["broken"]:
                broken.add((key.label, key.scale))
            task.keep(answer)

        def failed(task: Task, reason: str) -> None:
            assert isinstance(task, _Work)
            if not task.indices:
                session.fail(task.key.folder, f"it could not be timed: {reason}")
            for index in task.indices:
                session.fail(task.key.folder, f"its batch failed: {reason}", session.images.dataset.ids[index])

        def skip(task: Task) -> bool:
            assert isinstance(task, _Work)
            return (task.key.label, task.key.scale) in broken

        self._dealer.deal(work, done, failed, skip, alone)

    def _choose_rows(self, groups: Sequence[Sequence[Cell]]) -> None:
        """Choose rows together once for all workers, measured by one of them while the others are idle."""
        session = self._session
        facts = self._dealer.facts[0]
        machine = {name: facts[name] for name in session.loaded.machine}
        work = []
        for cells in groups:
            key = cells[0].key
            if not session.loaded.chooses_rows(key.label) or not any(map(session.needs_samples, cells)):
                continue
            rows = session.directory.rows_together(session.loaded.rows_of(key.label, key.scale) | machine)
            if rows is not None:
                self._rows[key.label, key.scale] = rows
                continue

            def keep(answer: Parcel, at: tuple[str, int] = (key.label, key.scale)) -> None:
                if answer.content.get("rows") is not None:
                    self._rows[at] = answer.content["rows"]
                    session.directory.set_rows_together(answer.content["of"], answer.content["rows"])

            work.append(_Work(key, [], lambda key=key: self._with_rows(key, Parcel({"kind": "rows"})), keep))  # type: ignore[misc]
        self._deal(work, alone=True)


class _Work(Task):
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
        super().__init__(make, key.folder, max(len(indices), 1))
        self.key = key
        self.indices = indices
        self.keep = keep
