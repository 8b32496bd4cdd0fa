"""A small part of the campaign; all of it by ``python -m tests.faults`` (docs/reliability.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = [["kill-run", "damage-run"], ["term-train", "kill-train"], ["kill-worker", "two", "late"]]


@pytest.mark.parametrize("faults", FAULTS, ids=" ".join)
def test_afterwards_the_tables_are_equal_or_one_sentence_says_what_to_do(faults: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults", "--share", "0.03", "--folder", str(tmp_path), "--only", *faults]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
