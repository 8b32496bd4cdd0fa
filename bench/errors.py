"""Errors that are shown to a person as one sentence, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 30
"""Names at most in a list of what is known."""
NESTED = 0.81
"""Likeness from which on a setting in another group is meant: "precison" and "precision", not "batch" and "patch"."""


class BenchError(Exception):
    """Something the user can mend; its text says what is wrong and how."""


class ImageError(BenchError):
    """An input image that cannot be used; the run records it and goes on with the others."""


class DiskError(BenchError):
    """A file cannot be written: no fault of a method, and nothing that is computed could be kept."""


class OutOfMemoryError(BenchError):
    """One single sample does not fit into the device's memory."""


def near_matches(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'a' or 'b'?"`` for the names close to `word`, else a list of what is known."""
    known = sorted(set(known))
    return _meant(difflib.get_close_matches(word, known, n=3, cutoff=0.5)) or _listed(known)


def near_settings(word: str, known: Iterable[str], prefix: str = "") -> str:
    """As `near_matches` for the names below a group of settings, which it shows behind `prefix`.

    One in a nested group, as "compute.rows", is found by its last part, if that is equal or nearly so.
    """
    known = sorted(set(known))
    likeness = {name: difflib.SequenceMatcher(None, name.rpartition(".")[2], word).ratio() for name in known}
    close = [name for name in known if likeness[name] >= (NESTED if "." in name else 0.5)]
    equal = [name for name in close if likeness[name] == 1]
    best = equal or sorted(close, key=lambda name: -likeness[name])
    return _meant(prefix + name for name in best[:3]) or _listed([prefix + name for name in known])


def _meant(names: Iterable[str]) -> str:
    names = [repr(name) for name in names]
    return f" Did you mean {' or '.join(names)}?" if names else ""


def _listed(known: list[str]) -> str:
    listed = ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "")
    return f" Known: {listed}." if known else ""
