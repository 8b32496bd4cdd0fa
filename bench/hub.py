"""Repositories of the Hugging Face hub, by name: ``hf:OWNER/NAME@COMMIT``.

Files are kept where huggingface_hub keeps them (``HF_HOME``). A name without a commit stands for the newest one of the
day it is first used: that commit is noted, and holds from then on, so that what is published later changes no result.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.files import cache_dir, disk_errors, read_json, write_atomic

PREFIX = "hf:"
COMMIT = re.compile(r"[0-9a-f]{40}")


def is_name(text: str) -> bool:
    """Whether a text names a repository of the hub."""
    return text.startswith(PREFIX)


def fetch(name: str, files: Sequence[str]) -> Path:
    """Return the folder of a repository at its commit, with those of some files that it has; they are fetched once.

    Args:
        name: "hf:OWNER/NAME@COMMIT" or "hf:OWNER/NAME".
        files: paths within the repository, or patterns as ``*/config.json``.

    Raises:
        BenchError: a name of another form, no such repository or commit, or no connection and not all files here.

    """
    repository, _, commit = name.removeprefix(PREFIX).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository) or (commit and not COMMIT.fullmatch(commit)):
        raise BenchError(
            f"{name} names no repository of the hub: write hf:OWNER/NAME@COMMIT with the 40 digits of a commit, or "
            "hf:OWNER/NAME."
        )
    from huggingface_hub import snapshot_download

    try:
        commit = commit or _pinned(repository)
        return Path(snapshot_download(repository, revision=commit, allow_patterns=list(files)))
    except BenchError:
        raise
    except Exception as error:  # its errors and those of its HTTP library, which is another one in each major version
        raise BenchError(
            f"{name} could not be fetched from the Hugging Face hub ({_first_line(error)}): check the name and the "
            "connection, or copy the repository here by other means and give its folder."
        ) from error


def _pinned(repository: str) -> str:
    """The commit that a repository had when it was first used here."""
    from filelock import FileLock
    from huggingface_hub import HfApi

    path = cache_dir() / "weights" / "hub.json"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):  # several processes may ask at once
        mend = "delete it, and repositories are pinned anew"
        pins: dict[str, str] = read_json(path, dict[str, str], mend) if path.is_file() else {}
        if repository not in pins:
            pins[repository] = str(HfApi().model_info(repository).sha)
            write_atomic(path, json.dumps(pins, indent=1))
        return pins[repository]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
