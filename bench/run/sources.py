"""Whether the code of methods, operators and metrics is what it was when the first rows of a run were made.

Settings, weights, images and versions are compared for every cell (`identity`), and rows of others are refused. An
edited source may give the same values or others, which nobody but its author knows: it is said, not refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from pathlib import Path

from bench.config import RunConfig
from bench.contract import methods
from bench.files import read_json, sha256, write_json
from bench.metrics import metrics
from bench.operators import operators
from bench.run.store import RunDir

FILE = "sources.json"


def changed_sources(config: RunConfig, names: Collection[str], directory: RunDir) -> str:
    """Note the sources of what a run uses, and say which have changed since the first rows; "" where none has.

    A method is another one with each version. Of a plugin the file of its class counts, not what it imports.

    Args:
        config: the run, with all its cells claimed.
        names: of its metrics.
        directory: where the hashes are kept.

    """
    path = directory.path / FILE
    noted = read_json(path, dict[str, str], "delete it") if path.is_file() else {}
    with_rows = {str((cell.identity or {}).get("method")) for cell in directory.cells() if not cell.is_empty}
    changed = []
    for kind, name, of in _used(config, names):
        found = inspect.getsourcefile(of)
        if found is None or not Path(found).is_file():
            continue
        key = f"{kind} {name}" + (f" version {methods.facts(name).version}" if kind == "method" else "")
        now = sha256(Path(found))
        made = name in with_rows if kind == "method" else bool(with_rows)
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


def _used(config: RunConfig, names: Collection[str]) -> Iterator[tuple[str, str, type]]:
    """Kind, name and class of all that a run uses."""
    for name in dict.fromkeys(m.name for m in config.methods):
        yield "method", name, methods.get(name)
    operator = str(config.operator["name"])
    yield "operator", operator, operators.get(operator)
    for name in names:
        if name in metrics.names():
            yield "metric", name, metrics.get(name)
