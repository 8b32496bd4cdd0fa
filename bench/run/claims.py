"""Claim the cells of a run: compare all that their rows depend on with what it is now, before anything is sampled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.config import RunConfig
from bench.contract import Method
from bench.errors import BenchError
from bench.run.cell import Cell, CellKey
from bench.run.draw import say
from bench.run.identity import (
    SHARED,
    as_json,
    differences,
    file_states,
    hashes,
    identity,
    is_unchanged,
    recorded_hashes,
)
from bench.run.images import Images
from bench.run.store import RunDir

HOW = "add stale=recompute, which sets the old rows aside and computes anew, or use another out=DIR"

Identities = dict[CellKey, dict[str, Any]]


@dataclass
class Claims:
    """What is compared, and with what.

    Attributes:
        config: the run.
        directory: where the cells are.
        images: as they are now.
        needs_method: whether a cell has anything to do that needs the method.
        load: loads a method by label and scale; None where it fails, which is a failure of this method alone.
        look: the same without a failure: it raises.

    """

    config: RunConfig
    directory: RunDir
    images: Images
    needs_method: Callable[[Cell], bool]
    load: Callable[[str, int], Method | None]
    look: Callable[[str, int], Method]

    def make(self, keys: Sequence[CellKey]) -> None:
        """Claim cells; rows of something else are refused or, with ``stale=recompute``, set aside.

        Raises:
            BenchError: rows of something else, in one sentence that names it. Nothing has been written then.

        """
        by_label = {m.label: m for m in self.config.methods}
        now = {k: identity(self.config, by_label[k.label], k) for k in keys}
        claimed = self.directory.claimed()
        for cell in claimed:
            cell.compact()
        others = [c for c in claimed if c.key not in now]
        stale = {cell.key for cell, _ in self._of_something_else(now, others)}
        stale |= {cell.key for cell in self._of_other_images(now, others)}
        stored = self._load_all(now, stale)
        for cell, reasons in self._of_something_else(now, others):
            say(f"{cell.folder}: {'; '.join(reasons)}: the old rows are in {cell.supersede().name}.")
            if not any(c.samples.kept for c in [*self._cells(now), *others] if c.key.scale == cell.key.scale):
                self.directory.drop_images(cell.key.scale)
        for cell, indices in self._of_other_images(now, others).items():
            self.directory.drop_images(cell.key.scale, indices)
            what = "1 image" if len(indices) == 1 else f"{len(indices)} images"
            say(f"{cell.folder}: {what} changed: the old rows are in {cell.supersede(indices).name}.")
        for key, (facts, files) in stored.items():
            self.directory.cell(key).claim(now[key], facts, files)

    def _cells(self, keys: Collection[CellKey]) -> list[Cell]:
        return [self.directory.cell(k) for k in keys]

    def _of_something_else(self, now: Identities, others: Sequence[Cell]) -> list[tuple[Cell, list[str]]]:
        """Cells whose rows are of something else than now, and what; BenchError where that is to be refused."""
        stale = []
        shared = {k: v for i in now.values() for k, v in i.items() if k in SHARED}
        for cell in [*self._cells(now), *others]:
            before = cell.identity
            if cell.is_empty:
                reasons = []
            elif before is None:
                reasons = ["nothing tells what they depend on (cell.json is gone)"]
            elif cell.key in now:
                reasons = differences(before, {"weights": before.get("weights"), **now[cell.key]})
            else:
                reasons = differences(before, shared, tuple(shared))
            if reasons:
                stale.append((cell, reasons))
        if stale and self.config.stale == "refuse":
            cell, reasons = stale[0]
            raise BenchError(f"{cell.folder}{_more(stale)} holds rows of something else: {'; '.join(reasons)}: {HOW}.")
        return stale

    def _of_other_images(self, now: Identities, others: Sequence[Cell]) -> dict[Cell, list[int]]:
        """Images, by cell, whose rows are of another content; BenchError where that is to be refused."""
        found = {}
        for cell in [*self._cells(now), *others]:
            contents = cell.contents()
            changed = self.images.changed(contents)
            if changed and self.config.stale == "refuse":
                raise BenchError(
                    f"{cell.folder} holds rows of another image: {contents[changed[0]][0]}{_more(changed)} is no "
                    f"longer what it was: {HOW}."
                )
            if changed:
                found[cell] = changed
        return found

    def _load_all(
        self, now: Identities, stale: Collection[CellKey]
    ) -> dict[CellKey, tuple[dict[str, Any], dict[str, Any]]]:
        """Load every method that has something to do and complete the identities with the hashes of its files.

        The last one is the first that will sample, so that it can stay loaded.

        Returns:
            facts and files of the cells that can be claimed.

        """
        stored: dict[CellKey, tuple[dict[str, Any], dict[str, Any]]] = {}
        order = [(m.label, scale) for scale in self.config.scales for m in self.config.methods]
        names = {m.label: m.name for m in self.config.methods}
        for label, scale in reversed(order):
            keys = [k for k in now if (k.label, k.scale) == (label, scale)]
            if all(self._is_finished(key, stale) for key in keys):
                cells = self._cells(keys)
                method = None if all(is_unchanged(cell) for cell in cells) else self._looked_at(label, scale)
                if method is None:
                    for cell in cells:
                        now[cell.key]["weights"] = recorded_hashes(cell)
                    continue
            else:
                method = self.load(label, scale)
            if method is not None:
                facts = asdict(method.facts) | {
                    "method": names[label], "evaluations": method.evaluations, "backward_passes": method.backward_passes
                }  # fmt: skip
                files = dict(method.files())
                weights = hashes(files)
                for key in keys:
                    now[key]["weights"] = weights
                    stored[key] = (as_json(facts), file_states(files))
        return stored

    def _looked_at(self, label: str, scale: int) -> Method | None:
        """A method whose rows are finished, loaded to see its files; None, and a sentence, where that cannot be."""
        try:
            return self.look(label, scale)
        except (BenchError, ImportError, MemoryError, OSError, RuntimeError) as error:
            say(
                f"{label} x{scale} cannot be loaded here, so that its finished rows stay as they are on record: {error}"
            )
            return None

    def _is_finished(self, key: CellKey, stale: Collection[CellKey]) -> bool:
        """Whether a cell needs its method no more, not even to compute its rows anew."""
        cell = self.directory.cell(key)
        before = cell.identity
        if before is None or key in stale or not cell.is_described or self.needs_method(cell):
            return False
        return self.config.stale == "refuse" or recorded_hashes(cell) == before.get("weights", {})


def _more(found: Collection[Any]) -> str:
    return f" (and {len(found) - 1} more)" if len(found) > 1 else ""
