"""Whether the code of methods, operators and metrics is what it was when the first rows of a run were made.

Settings, weights, images and versions are compared for every cell (`identity`), and rows of others are refused. An
edited source may give the same values or others, which nobody but its author knows: it is said, not refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.contract import methods
from bench.errors import BenchError
from bench.files import read_json, sha256, write_json
from bench.metrics import metrics
from bench.operators import operators
from bench.registry import Registry
from bench.run.store import RunDir

FILE = "sources.json"


def changed_sources(directory: RunDir, used: Collection[str], operator: str, names: Collection[str]) -> str:
    """Note the sources of what a run uses, and say which have changed since they were noted; "" where none has.

    They are noted when they are first used while there are rows or samples, or anew while there are none. A method is
    another one with each version. Of a plugin the file of its class counts, not what it imports.

    Args:
        directory: where the hashes are kept, with all cells claimed.
        used: names of methods; those that cannot be imported are left out.
        operator: name of the operator.
        names: of metrics.

    """
    path = directory.path / FILE
    noted = read_json(path, dict[str, str], "delete it") if path.is_file() else {}
    filled = {str((cell.identity or {}).get("method")) for cell in directory.claimed() if not cell.is_empty}
    changed = []
    for kind, name, source in _sources(used, operator, names):
        key = f"{kind} {name}" + (f" version {methods.facts(name).version}" if kind == "method" else "")
        now = sha256(source)
        made = name in filled if kind == "method" else bool(filled)
        if made and noted.get(key, now) != now:
            changed.append(f"{kind} {name}")
        else:
            noted[key] = now
    write_json(path, noted)
    if not changed:
        return ""
    return (
        f"The source of {' and '.join(changed)} has changed since the first rows in {directory.path} were made. If it "
        "gives other values now, old and new ones are mixed: use another out=DIR, or raise the method's version and "
        "add stale=recompute."
    )


def _sources(used: Collection[str], operator: str, names: Collection[str]) -> Iterator[tuple[str, str, Path]]:
    """Kind, name and source file of all that can be imported and has one."""
    wanted: list[tuple[str, str, Registry[Any]]] = [("method", n, methods) for n in used]
    wanted += [("operator", operator, operators), *(("metric", n, metrics) for n in names if n in metrics.names())]
    for kind, name, registry in wanted:
        with suppress(BenchError, OSError, TypeError):  # a class of a notebook has no file
            if (found := inspect.getsourcefile(registry.get(name))) and Path(found).is_file():
                yield kind, name, Path(found)
