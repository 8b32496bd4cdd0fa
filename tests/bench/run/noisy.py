"""A quick method that counts its samples, and its cell, for the tests of what is stored."""

from __future__ import annotations

from collections.abc import Callable

from bench.config import RunConfig
from bench.contract import Facts, Method
from bench.operators.bicubic import enlarge
from bench.run.cell import Cell, CellKey
from bench.run.store import RunDir

Configure = Callable[..., RunConfig]
KEY = CellKey("misfit", 8, 0.8)


class Noisy(Method):
    """Bicubic plus noise of strength tau: the simplest diverse method."""

    facts = Facts(title="Noisy")
    drawn = 0

    def draw(self, y, n, tau, noise):
        type(self).drawn += len(y) * n
        return (enlarge(y, self.operator.size)[:, None] + 0.1 * tau * noise.normal(3, *self.operator.size)).clamp(0, 1)


def cell(directory: RunDir) -> Cell:
    """The cell that the fixture `add` gives it."""
    return directory.cell(KEY)
