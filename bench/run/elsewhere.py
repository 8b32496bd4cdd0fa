"""A run with workers: what is left to do is dealt out, and what comes back is kept here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from bench.launch.parcel import Parcel
from bench.run.cell import Cell, CellKey
from bench.run.computing import Computed
from bench.run.worker import fill_task
from bench.run.workers import Work, Workers

if TYPE_CHECKING:
    from bench.run.runner import Frames, Session


class Elsewhere(Workers):
    """The workers of a session.

    Args:
        session: it has claimed its cells.

    """

    def __init__(self, session: Session) -> None:
        cells = map(session.directory.cell, session.keys)
        super().__init__(session, {c.folder.name: c.identity for c in cells if c.identity is not None})
        self._session = session
        self._rows: dict[tuple[str, int], int] = {}

    def measure(self, groups: Sequence[Sequence[Cell]]) -> None:
        """Compute rows of cells, given by method and scale."""
        session = self._session
        if not groups:
            return
        self._choose_rows(groups)
        work: list[Work] = []
        for cells in groups:
            for cell in cells:
                filling = session.incomplete(cell)
                before = session.rows(cell) if filling else None
                work += [w for batch in filling for w in self._filling(cell, batch, before)]
                work += [self._measuring(cell, batch) for batch in session.missing(cell)]
        self.deal(work)
        session.directory.amend_environment({"workers": self.facts})
        for cell in (c for cells in groups for c in cells):
            cell.compact()

    def time(self, keys: Sequence[CellKey]) -> None:
        """Time cells of one scale in turns, by one worker while the others are idle."""
        content = {"kind": "time", "cells": [vars(k) for k in keys]}

        def keep(answer: Parcel) -> None:
            self._session.keep_times((CellKey(**cell), found) for cell, found in answer.content.get("times", []))

        self.deal([Work(keys[0], [], lambda: self._with_rows(keys[0], Parcel(content)), keep)], alone=True)

    def draw(self, pictures: Sequence[tuple[CellKey, int]], samples: Mapping[CellKey, int]) -> None:
        """Draw samples of images, by cell and index, that are not measured; so many of each cell's."""

        def one(key: CellKey, index: int) -> Work:
            content = {"kind": "draw", "index": index, "n": samples[key]}
            return self._work(key, [index], lambda: Parcel(content), self._session.keep_drawn)

        self.deal([one(key, index) for key, index in pictures])

    # tasks

    def _filling(self, cell: Cell, batch: Sequence[int], before: Frames | None) -> list[Work]:
        """Metrics that are added to rows: of samples that are kept, and of samples that are drawn again."""
        session = self._session
        stored, drawn = session.split(cell, batch)

        def kept() -> Parcel:
            samples = {i: session.read(cell, i) for i in stored}
            return fill_task(session.lacking(cell, stored), samples, session.computing.judged(cell.key))

        def again() -> Parcel:
            return Parcel({
                "kind": "fill_again", "names": session.lacking(cell, drawn), "indices": drawn,
                "shown": session.shown(cell.key.scale, drawn),
            })  # fmt: skip

        parts = [(stored, kept), (drawn, again)]
        return [self._work(cell.key, i, make, lambda d: session.merge(d, before)) for i, make in parts if i]

    def _measuring(self, cell: Cell, batch: Sequence[int]) -> Work:
        session = self._session

        def make() -> Parcel:
            shown = session.shown(cell.key.scale, batch)
            return Parcel({"kind": "measure", "indices": list(batch), "shown": shown})

        return self._work(cell.key, batch, make, session.keep)

    def _work(
        self, key: CellKey, indices: Sequence[int], make: Callable[[], Parcel], keep: Callable[[Computed], None]
    ) -> Work:
        return self.work(key, indices, lambda: self._with_rows(key, make()), keep)

    def _with_rows(self, key: CellKey, task: Parcel) -> Parcel:
        rows = self._rows.get((key.label, key.scale))
        return Parcel({**task.content, "rows": rows}, task.arrays)

    def _choose_rows(self, groups: Sequence[Sequence[Cell]]) -> None:
        """Choose rows together once for all workers, measured by one of them while the others are idle."""
        session = self._session
        facts = self.facts[0]
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

            work.append(Work(key, [], lambda key=key: self._with_rows(key, Parcel({"kind": "rows"})), keep))  # type: ignore[misc]
        self.deal(work, alone=True)
