"""Files that are written in full or not at all, hashes, and the cache folder."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from bench.errors import BenchError, DiskError


def cache_dir() -> Path:
    """Folder for downloads: ``$BENCH_CACHE`` or ``~/.cache/diverse-sr-bench``."""
    return Path(os.environ.get("BENCH_CACHE") or Path.home() / ".cache" / "diverse-sr-bench")


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Hash settings: plain values, in any order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def file_identity(path: Path) -> list[Any]:
    """What tells a file's content without reading it: where it is, its size, and when it last changed.

    Hashing the contents of FFHQ's 70000 originals takes minutes at every start, this a second. The time of the last
    change of the inode (ctime) is among it, which no program can set: a file that replaces another of the same size
    and date of modification (from an archive, or copied with its date) is told apart.
    """
    try:
        s = path.stat()
    except OSError:
        return [str(path.resolve()), None]
    return [str(path.resolve()), s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]


def _in_cache(path: Path) -> bool:
    try:
        return path.absolute().is_relative_to(cache_dir().absolute())
    except RuntimeError:  # there is no home
        return False


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a failed write into one sentence.

    Raises:
        DiskError: the disk is full or not writable, or something is in the way.

    """
    goes_on = "What is done is kept; the same command goes on."
    try:
        yield
    except OSError as error:
        elsewhere = "set BENCH_CACHE to another folder" if _in_cache(path) else "choose another out=DIR"
        in_the_way = f"a file is where a folder should be: move it away, or {elsewhere}."
        why = {
            errno.ENOSPC: f"the disk is full: free some space. {goes_on}",
            errno.EDQUOT: f"the disk quota is used up: free some space. {goes_on}",
            errno.EACCES: f"the folder is not writable: {elsewhere}.",
            errno.EROFS: f"the disk is read-only: {elsewhere}.",
            errno.ENOENT: f"there is no such folder, and none can be made: {elsewhere}.",
            errno.EEXIST: in_the_way,
            errno.ENOTDIR: in_the_way,
            errno.EISDIR: f"a folder is where a file should be: move it away, or {elsewhere}.",
            errno.ENAMETOOLONG: "the name is too long: choose a shorter one.",
        }.get(error.errno or 0, f"{error}. {goes_on}")
        raise DiskError(f"Could not write {path}: {why}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` in full, or not at all where the block raises.

    Raises:
        DiskError: the disk is full or not writable.

    """
    with _beside(path) as temporary:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file in full or not at all; DiskError if the disk is full or not writable."""
    with _beside(path) as temporary, temporary.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Name of a temporary file, which the block writes to the disk, and which then takes the place of `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


RUN_LENGTHS = 3
"""Z_RLE among zlib's strategies."""


def write_png(path: Path, image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] as PNG atomically."""
    buffer = io.BytesIO()
    # a third of the time of level 6, for faces of 64 pixels with no more bytes than level 1 has without run lengths;
    # a texture that repeats itself takes more
    Image.fromarray(image).save(buffer, format="PNG", compress_level=1, compress_type=RUN_LENGTHS)
    write_atomic(path, buffer.getvalue())


def read_json(path: Path, shape: Any = Any, mend: str = "delete it and run again") -> Any:
    """Read JSON.

    Args:
        path: the file.
        shape: the type that its content must have, as a type hint or a pydantic model.
        mend: what a person can do where it is damaged.

    Raises:
        BenchError: the file is damaged or of another shape.

    """
    try:
        content = json.loads(path.read_text())
        TypeAdapter(shape).validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise BenchError(f"{path} is not what a run writes ({reason}): {mend}.") from error
    except (ValueError, OSError, RecursionError) as error:
        raise BenchError(f"{path} cannot be read ({error}): {mend}.") from error
    return content
