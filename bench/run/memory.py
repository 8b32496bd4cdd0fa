"""What a process that computes remembers, wherever it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Memory(Protocol):
    """A run directory, or on a worker what the driver has told and will be told."""

    def seen(self) -> dict[int, tuple[str, str]]:
        """Fingerprint and content of images whose content has been looked at."""

    def set_seen(self, seen: Mapping[int, tuple[str, str]]) -> None:
        """Replace what `seen` returns."""

    def rows_together(self, of: Mapping[str, Any]) -> int | None:
        """Rows together that have been chosen for a method on a device, None if none have."""

    def set_rows_together(self, of: Mapping[str, Any], rows: int) -> None:
        """Keep a choice of rows together."""

    def write_error(self, name: str, text: str) -> Path:
        """Keep the traceback of a method that failed; return where it is."""
