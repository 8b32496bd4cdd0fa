"""Large files from elsewhere: weights and data, downloaded in one way.

A download goes on where an earlier attempt ended, in the same command (a connection that breaks) or a later one, which
``torch.hub`` does not do: it is written here by hand for that alone. What is on disk and what the server still has are
joined only if the server says that its file is the same (``If-Range``). A file whose hash nobody has published is
pinned when it first arrives: its sha256 is noted beside it and every later use is held against it.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from abc import ABC, abstractmethod
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from bench.errors import BenchError
from bench.files import disk_errors, read_json, replacing, sha256, write_atomic

CHUNK = 1 << 20
PINS = "pins.json"
TIMEOUT = 30.0
"""Seconds without an answer after which a connection counts as broken."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each further attempt after a connection broke; they count from the first again when bytes arrive."""
MARGIN = 100_000_000
"""Bytes that a download leaves free on the disk."""


@dataclass(frozen=True)
class KnownFile(ABC):
    """One file that is known by name.

    Attributes:
        name: what it is called here.
        file: its file name.
        used_by: method, metric or dataset, and setting.
        page: where it is described.
        licence: of its content.
        url: where it can be downloaded; None where a person must (Google Drive).
        size: bytes, where known.
        sha256: the published hash or its beginning, where known.

    """

    name: str
    file: str
    used_by: str
    page: str
    licence: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where it is kept."""

    @property
    def pins(self) -> Path:
        """Where the hashes are noted that nobody has published."""
        return self.folder / PINS

    @property
    @abstractmethod
    def by_hand(self) -> str:
        """How a person gives a file that they have."""

    def check(self, path: Path) -> None:  # noqa: B027 -- nothing to check for most
        """Raise BenchError where the content cannot be it; its length and hash are checked before."""

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / self.file

    @property
    def part(self) -> Path:
        """What has been downloaded of it."""
        return self.path.with_name(self.file + ".part")

    @property
    def validator(self) -> Path:
        """By what the server tells whether `part` is of the file that it has now (an ETag or a date)."""
        return self.path.with_name(self.file + ".part.version")


def state(known: KnownFile) -> str:
    """Say "here", "missing", or what part of it has been downloaded."""
    if known.path.is_file():
        return "here"
    return f"{known.part.stat().st_size / 1e6:.0f} MB of it" if known.part.is_file() else "missing"


def verify(known: KnownFile, path: Path) -> None:
    """Hold a file against what is known of it, or the hash that it had when it first arrived; pin it if there is none.

    Raises:
        BenchError: it is not that file.

    """
    own = path not in (known.path, known.part)
    mend = f"give the file {known.file} of {known.page}" if own else "delete it and fetch it again"
    actual = path.stat().st_size
    if known.size and actual != known.size:
        raise BenchError(f"{path} has {actual} bytes, {known.name} has {known.size}: {mend}.")
    known.check(path)
    found = sha256(path)
    pins = _pins(known)
    expected = known.sha256 or pins.get(known.file)
    if expected is not None and not found.startswith(expected):
        replaced = f", or remove its line in {known.pins} if its publisher has replaced it"
        raise BenchError(
            f"{path} is not {known.name}: its sha256 is {found[:16]}..., expected {expected[:16]}...; {mend}"
            f"{replaced if known.sha256 is None else ''}."
        )
    if expected is None:
        write_atomic(known.pins, json.dumps({**pins, known.file: found}, indent=1))


def get(known: KnownFile) -> Path:
    """Download a file, going on where an earlier attempt ended, and verify it.

    Raises:
        BenchError: no network, no address, no room on the disk, or not the file that is known.

    """
    from filelock import FileLock

    target = known.path
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):  # several processes may ask for it at once
            if target.is_file():
                verify(known, target)
                return target
            if known.url is None:
                raise BenchError(
                    f"{known.name} cannot be downloaded without a person: get {known.file} from "
                    f"{known.page}, then {known.by_hand}."
                )
            _pins(known)  # damaged ones are told of before anything is downloaded, and cost no download
            _receive(known, known.url)
            try:
                verify(known, known.part)
            except BenchError:
                _forget(known)
                raise
            known.part.replace(target)
            known.validator.unlink(missing_ok=True)
    return target


def add(known: KnownFile, source: Path) -> Path:
    """Take a local file.

    Raises:
        BenchError: the file is not there or is not the one that is known.

    """
    if not source.is_file():
        raise BenchError(f"{source} does not exist: give the file of {known.name}.")
    verify(known, source)
    with replacing(known.path) as temporary:
        shutil.copyfile(source, temporary)
    return known.path


def remote_size(known: KnownFile) -> int | None:
    """Bytes of a file that can be downloaded; None where its server does not answer or does not say."""
    if known.size or known.url is None:
        return known.size
    try:
        with urllib.request.urlopen(urllib.request.Request(known.url, method="HEAD"), timeout=10) as answer:
            return int(answer.headers.get("Content-Length", 0)) or None
    except (OSError, HTTPException, ValueError):
        return None


def describe(known: KnownFile, download: str = "to be downloaded from") -> str:
    """One line: that it is here, or where it comes from and its size.

    Args:
        known: the file.
        download: what stands before its address.

    """
    missing = state(known)
    if missing == "here":
        return f"{known.file}: here"
    if known.url is None:
        return f"{known.file}: {missing}; get it from {known.page}, then {known.by_hand}"
    size = remote_size(known)
    amount = f"{size / 1e6:.0f} MB" if size else "size unknown: its server does not answer"
    return f"{known.file}: {missing}; {download} {known.url} ({amount})"


def _pins(known: KnownFile) -> dict[str, str]:
    if not known.pins.is_file():
        return {}
    return dict(read_json(known.pins, dict[str, str], "delete it, and files are pinned anew"))


def _forget(known: KnownFile) -> None:
    known.part.unlink(missing_ok=True)
    known.validator.unlink(missing_ok=True)


class _BrokenError(Exception):
    """A connection ended before the file did."""


def _receive(known: KnownFile, url: str) -> None:
    """Bring all of the file into `part`, over as many connections as it takes while bytes arrive."""
    pauses = iter(PAUSES)
    arrived = False
    while True:
        before = known.part.stat().st_size if known.part.is_file() else 0
        try:
            _connect(known, url, before)
            return
        except HTTPError as error:
            if not arrived or error.code not in (408, 429, 500, 502, 503, 504):
                raise _unreachable(known, error) from error
            reason: Exception = error
        except (_BrokenError, URLError, TimeoutError, ConnectionError, HTTPException) as error:
            reason = error
        after = known.part.stat().st_size if known.part.is_file() else 0
        if after > before:
            arrived, pauses = True, iter(PAUSES)
        pause = next(pauses, None) if arrived else None  # a network that has given nothing yet is not there
        if pause is None:
            raise _unreachable(known, reason) from reason
        time.sleep(pause)


def _connect(known: KnownFile, url: str, begun: int) -> None:
    """Append what one connection gives to the first `begun` bytes, or begin anew where the server does."""
    from tqdm import tqdm

    headers = {}
    old = None
    if begun and known.validator.is_file():
        old = known.validator.read_text(errors="replace")
        if not (old and old.isascii() and old.isprintable()):  # damaged: nothing tells of which file the part is
            _forget(known)
            _connect(known, url, 0)
            return
    if begun:
        headers["Range"] = f"bytes={begun}-"
    if old:
        headers["If-Range"] = old
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if error.code != 416 or not begun:
            raise
        if _total(error.headers) == begun:  # all of it had arrived
            return
        _forget(known)  # more than there is: of another file
        _connect(known, url, 0)
        return
    with answer:
        version = _version(answer.headers)
        if answer.status == 206 and old and version and version != old:  # a server that does not know If-Range
            _forget(known)
            _connect(known, url, 0)
            return
        if answer.status != 206 or _first(answer.headers) != begun:  # the server gives the whole file
            if answer.status == 206:
                raise _BrokenError("the server sent another part of the file than was asked for")
            begun = 0
        length = answer.headers.get("Content-Length")
        total = begun + int(length) if length else None
        if known.size and total and total != known.size:
            raise BenchError(
                f"{known.url} has {total} bytes, {known.name} has {known.size}: its publisher has replaced it, or it "
                f"is another file; get {known.file} from {known.page}, then {known.by_hand}."
            )
        _check_disk(known, (total or known.size or 0) - begun, begun)
        if version:
            write_atomic(known.validator, version)
        else:
            known.validator.unlink(missing_ok=True)
        with (
            known.part.open("ab" if begun else "wb") as file,
            tqdm(total=total, initial=begun, unit="B", unit_scale=True, desc=known.name) as bar,
        ):
            while data := _read(answer):
                with disk_errors(known.part):
                    file.write(data)
                bar.update(len(data))
    actual = known.part.stat().st_size
    if total and actual != total:
        raise _BrokenError(f"the connection ended after {actual} of {total} bytes")


def _read(answer: Any) -> bytes:
    try:
        data: bytes = answer.read(CHUNK)
    except (OSError, HTTPException) as error:  # of the connection, not of the disk
        raise _BrokenError(str(error) or type(error).__name__) from error
    return data


def _version(headers: Any) -> str | None:
    """What tells a file of the server from one that replaces it; a weak tag does not say that bytes are the same."""
    tag: str | None = headers.get("ETag")
    date: str | None = headers.get("Last-Modified")
    return date if tag is None or tag.startswith("W/") else tag


def _first(headers: Any) -> int | None:
    """The first byte of a partial answer."""
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range") or "")
    return int(found[1]) if found else None


def _total(headers: Any) -> int | None:
    """The length of the whole file, from the answer to a range that it does not have."""
    found = re.fullmatch(r"bytes \*/(\d+)", headers.get("Content-Range") or "")
    return int(found[1]) if found else None


def _check_disk(known: KnownFile, size: int, begun: int) -> None:
    free = shutil.disk_usage(known.folder).free
    if not begun and known.part.is_file():  # it will be written over
        free += known.part.stat().st_size
    if size + MARGIN > free:
        raise BenchError(
            f"{known.name} needs {(size + MARGIN) / 1e6:.0f} MB in {known.folder}, {free / 1e6:.0f} MB are free: free "
            "some, or set BENCH_CACHE to a folder on a larger disk."
        )


def _unreachable(known: KnownFile, error: Exception) -> BenchError:
    return BenchError(
        f"{known.name} could not be downloaded from {known.url} ({error}): check the network and repeat the "
        f"command, which goes on where it ended, or {known.by_hand}."
    )
