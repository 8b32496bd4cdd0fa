"""Errors that are shown to a person as one sentence, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 30
"""Names at most in a list of what is known."""


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
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    if close:
        return " Did you mean " + " or ".join(repr(c) for c in close) + "?"
    listed = ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "")
    return f" Known: {listed}." if known else ""
