"""The methods of a run: one is loaded at a time, but for times, and what it raises is a failure of it alone."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from bench.config import RunConfig
from bench.contract import Method, methods
from bench.errors import BenchError, DiskError
from bench.machine import device_name, is_out_of_memory, release_memory
from bench.network import NetworkMethod
from bench.run.cell import CellKey
from bench.run.draw import Sampler
from bench.run.identity import compute_of
from bench.run.images import Images
from bench.run.memory import Memory
from bench.run.selection import prepared_method, short_form
from bench.run.timing import choose_rows


class LoadedMethods:
    """Methods by label and scale; the one that was asked for last stays loaded.

    Args:
        config: the run.
        memory: keeps tracebacks and the choices of rows together.
        images: for the observation that rows together are chosen with.
        fail: told of a method that failed, and why.

    """

    def __init__(self, config: RunConfig, memory: Memory, images: Images, fail: Callable[[str, str], None]) -> None:
        self.config = config
        self.memory = memory
        self.images = images
        self.broken: set[tuple[str, int]] = set()
        self.machine = {"device": device_name(config.device), "threads": torch.get_num_threads()}
        self._fail = fail
        self._by_label = {m.label: m for m in config.methods}
        self._at: tuple[str, int] | None = None
        self._method: Method | None = None
        self._sampler: Sampler | None = None
        self.check: Callable[[str, int, Method], None] = lambda label, scale, method: None
        """Called with every method that has been loaded; it may refuse it."""

    def samples(self, label: str) -> int:
        """Samples per image; a deterministic method gives one."""
        return 1 if methods.facts(self._by_label[label].name).deterministic else self.config.n

    def chooses_rows(self, label: str) -> bool:
        """Whether rows together are to be measured."""
        cls = methods.get(self._by_label[label].name)
        return issubclass(cls, NetworkMethod) and self.compute(label).get("rows", "auto") == "auto"

    def rows_of(self, label: str, scale: int) -> dict[str, Any]:
        """What a choice of rows together is of."""
        return {"label": label, "scale": scale, "compute": self.compute(label), **self.machine}

    def compute(self, label: str) -> dict[str, Any]:
        """A method's options of computing."""
        return compute_of(self._by_label[label])

    def method(self, label: str, scale: int) -> Method:
        """The method, loaded; the one that was loaded before is let go."""
        if self._method is None or self._at != (label, scale):
            self.let_go()
            method = prepared_method(self.config, self._by_label[label], self.images.dataset, scale)
            self.check(label, scale, method)
            self._method = method
            self._at = (label, scale)
        return self._method

    def several(self, labels: Sequence[str], scale: int) -> dict[str, Method]:
        """Load methods beside each other, the first ones that fit into memory; those that fail are failures.

        They stay in memory as long as the caller keeps them.
        """
        at, method = self._at, self._method
        self.let_go()
        found: dict[str, Method] = {}
        for label in labels:
            if method is not None and at == (label, scale):
                found[label], method = method, None
                continue
            with self.guarded(label, scale):
                try:
                    prepared = prepared_method(self.config, self._by_label[label], self.images.dataset, scale)
                    self.check(label, scale, prepared)
                    found[label] = prepared
                except (RuntimeError, MemoryError) as error:
                    if not found or not is_out_of_memory(error):
                        raise
                    break
        return found

    def try_method(self, label: str, scale: int) -> Method | None:
        """The method, loaded; None, and a failure, where it cannot be."""
        with self.guarded(label, scale):
            return self.method(label, scale)
        return None

    def sampler(self, label: str, scale: int) -> Sampler:
        """A sampler of the method, with its rows together chosen; the same one as long as the method stays loaded."""
        method = self.method(label, scale)
        if self._sampler is None:
            if isinstance(method, NetworkMethod) and method.compute.rows == "auto":
                method.rows = self._rows_together(method, label, scale)
            self._sampler = Sampler(method, label, self.config.seed, self.config.n, self.config.quantise)
        return self._sampler

    def _rows_together(self, method: NetworkMethod, label: str, scale: int) -> int:
        """Rows together: chosen once for a run directory, with few steps of an iterative method."""
        of = self.rows_of(label, scale)
        rows = self.memory.rows_together(of)
        if rows is None:
            y = self.images.any_observation(scale)
            if y is None:
                return method.rows
            m = self._by_label[label]
            short = short_form(m)
            timed = method if short is m else prepared_method(self.config, short, self.images.dataset, scale)
            assert isinstance(timed, NetworkMethod)
            rows = choose_rows(timed, y, self.config.taus[0], self.config.seed, self.samples(label) * self.config.batch)
            self.memory.set_rows_together(of, rows)
        return rows

    @contextmanager
    def guarded(self, label: str, scale: int) -> Iterator[None]:
        """Turn whatever a method raises into a failure of this method at this scale; a full disk is none of it."""
        try:
            yield
            return
        except DiskError:
            raise
        except BenchError as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 -- a method's bug must not take the other methods down
            report = self.memory.write_error(CellKey(label, scale, None).folder, traceback.format_exc())
            reason = f"{type(error).__name__}: {error} (traceback in {report})"
        self.broken.add((label, scale))
        self.let_go()
        self._fail(f"{label} x{scale}", reason)

    def let_go(self) -> None:
        """Give the memory of the loaded method back."""
        self._method = self._sampler = self._at = None
        release_memory()
