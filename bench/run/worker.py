"""A worker of a run: it computes what the driver deals out (`bench.launch`), and keeps nothing."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.config import RunConfig, run_config
from bench.contract import Method
from bench.data import make_dataset
from bench.errors import BenchError
from bench.launch.node import sha256_on_node
from bench.launch.parcel import Parcel
from bench.launch.pool import Do
from bench.machine import leave_modules_out_of_collections
from bench.run.cell import CellKey
from bench.run.computing import Computed, Computing, Judged, Known
from bench.run.identity import differences, identity
from bench.run.samples import as_picture

MAKE = "bench.run.worker:make"
"""How :class:`bench.launch.pool.Job` names `make`."""


def settings_of_worker(
    config: RunConfig, names: Sequence[str], kept: range, identities: Mapping[str, Any], device: str
) -> dict[str, Any]:
    """What `make` takes, as plain values.

    Args:
        config: the run.
        names: metrics by their own names.
        kept: images whose samples are to be kept.
        identities: what the rows of each cell depend on, by its folder: a worker must find the same.
        device: of the worker.

    """
    record = config.record() | {"out": str(config.out), "metrics": list(names), "device": device, "launch": {}}
    return {"config": record, "kept": [kept.start, kept.stop], "identities": dict(identities)}


def make(settings: Mapping[str, Any]) -> tuple[Do, dict[str, Any]]:
    """Make a worker; BenchError where the dataset or the device is not on this machine."""
    worker = _Worker(settings)
    return worker, worker.computing.loaded.machine


class _Told:
    """What the driver has told a worker, in the place of a run directory; see :class:`bench.run.memory.Memory`."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.rows: int | None = None
        self.errors: dict[str, str] = {}

    def seen(self) -> dict[int, tuple[str, str]]:
        return {}

    def set_seen(self, seen: Mapping[int, tuple[str, str]]) -> None:
        pass

    def rows_together(self, of: Mapping[str, Any]) -> int | None:
        return self.rows

    def set_rows_together(self, of: Mapping[str, Any], rows: int) -> None:
        pass

    def write_error(self, name: str, text: str) -> Path:
        self.errors[name] = text
        return error_file(self.out, name)


def error_file(out: Path, name: str) -> Path:
    """Where the driver will write a traceback."""
    return out / "errors" / f"{name}.txt"


class _Worker:
    """Does one task after the other; the method of the last one stays loaded."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        leave_modules_out_of_collections()
        self.config = run_config(settings["config"])
        self._identities = settings["identities"]
        self._told = _Told(self.config.out)
        self._failures: list[dict[str, Any]] = []
        dataset = make_dataset(self.config.dataset)
        self.computing = Computing(self.config, dataset, self._told, self._fail, self.config.metrics)
        self.computing.kept = range(*settings["kept"])
        self.computing.loaded.check = self._check
        self.computing.metrics  # noqa: B018 -- a worker that cannot load a metric cannot work

    def _fail(self, what: str, reason: str, image: str | None = None) -> None:
        self._failures.append({"what": what, "reason": reason, "image": image})

    def _check(self, label: str, scale: int, method: Method) -> None:
        """Raise BenchError where this machine has other weights or another version than the driver's."""
        m = next(m for m in self.config.methods if m.label == label)
        weights = {role: sha256_on_node(path) for role, path in method.files().items()}
        for folder, before in self._identities.items():
            key = CellKey.of_folder(folder)
            if key is None or (key.label, key.scale) != (label, scale):
                continue
            if found := differences(before, {**identity(self.config, m, key), "weights": weights}):
                raise BenchError(f"The worker on {platform.node()} has something else than the driver: {found[0]}.")

    def __call__(self, task: Parcel) -> Parcel:
        """Do a task; what fails of it is part of the answer."""
        content = task.content
        self._failures.clear()
        self._told.errors.clear()
        self._told.rows = content.get("rows")
        key = CellKey(**content["cell"])
        answer = Parcel({})
        with self.computing.loaded.guarded(key.label, key.scale):
            answer = KINDS[content["kind"]](self.computing, key, content, task.arrays)
        return Parcel(
            {
                **answer.content,
                "failures": self._failures,
                "errors": self._told.errors,
                "broken": (key.label, key.scale) in self.computing.loaded.broken,
            },
            answer.arrays,
        )


Arrays = Mapping[str, np.ndarray]


def _measure(computing: Computing, key: CellKey, content: Mapping[str, Any], arrays: Arrays) -> Parcel:
    return pack(computing.measure(key, content["indices"], content["shown"]), computing)


def _fill(computing: Computing, key: CellKey, content: Mapping[str, Any], arrays: Arrays) -> Parcel:
    stored = {int(name): torch.from_numpy(x) for name, x in arrays.items()}
    return pack(computing.fill(key, content["names"], stored, Judged(**content["judged"])), computing)


def _fill_again(computing: Computing, key: CellKey, content: Mapping[str, Any], arrays: Arrays) -> Parcel:
    return pack(computing.fill_again(key, content["names"], content["indices"], content["shown"]), computing)


def _draw(computing: Computing, key: CellKey, content: Mapping[str, Any], arrays: Arrays) -> Parcel:
    return pack(computing.draw(key, content["index"], content["n"]), computing)


def _time(computing: Computing, key: CellKey, content: Mapping[str, Any], arrays: Arrays) -> Parcel:
    times = computing.time([CellKey(**cell) for cell in content["cells"]])
    return Parcel({"times": [[vars(key), found] for key, found in times]})


def _rows(computing: Computing, key: CellKey, content: Mapping[str, Any], arrays: Arrays) -> Parcel:
    sampler = computing.loaded.sampler(key.label, key.scale)
    return Parcel({"rows": getattr(sampler.method, "rows", None), "of": computing.loaded.rows_of(key.label, key.scale)})


KINDS: dict[str, Callable[[Computing, CellKey, Mapping[str, Any], Arrays], Parcel]] = {
    "measure": _measure,
    "fill": _fill,
    "fill_again": _fill_again,
    "draw": _draw,
    "time": _time,
    "rows": _rows,
}


def fill_task(names: Sequence[str], samples: Mapping[int, Tensor], judged: Judged) -> Parcel:
    """A task: `bench.run.computing.Computing.fill`."""
    arrays = {str(i): x.cpu().numpy() for i, x in samples.items()}
    return Parcel({"kind": "fill", "names": list(names), "judged": vars(judged)}, arrays)


def pack(done: Computed, computing: Computing) -> Parcel:
    """What has been computed, for the way; samples of 8 bits as pictures."""
    of_images = computing.images.operator(done.key.scale).range
    arrays: dict[str, np.ndarray] = {}
    for name, values in done.values.items():
        if values.dtype == object:  # arrays of different lengths where some have failed
            arrays |= {f"statistic/{name}/{row}": np.asarray(v, float) for row, v in enumerate(values)}
        else:
            arrays[f"value/{name}"] = values
    for index, x in done.kept.items():
        if computing.rounded and of_images is not None:
            arrays[f"kept/{index}"] = np.stack([as_picture(s, of_images) for s in x])
        else:
            arrays[f"kept/{index}"] = x.float().cpu().numpy()
    for index, (hr, lr) in done.pictures.items():
        arrays |= {f"hr/{index}": hr, f"lr/{index}": lr}
    content = {
        "images": [[i.index, i.name, i.content] for i in done.images],
        "known": [sorted(k) for k in done.known],
        "names": list(done.values),
        "n": done.n,
    }
    return Parcel(content, arrays)


def unpack(key: CellKey, answer: Parcel, of_images: tuple[float, float] | None) -> Computed:
    """What `pack` has packed.

    Args:
        key: the cell.
        answer: the worker's.
        of_images: their range, as the cell's operator has it.

    """
    content, arrays = answer.content, answer.arrays
    if "images" not in content:  # the method failed
        return Computed(key)
    done = Computed(key, [Known(*i) for i in content["images"]], n=content["n"])
    done.known = [set(k) for k in content["known"]]
    for name in content["names"]:
        if f"value/{name}" in arrays:
            done.values[name] = arrays[f"value/{name}"]
        else:
            done.values[name] = np.empty(len(done.images), dtype=object)
            for row in range(len(done.images)):
                done.values[name][row] = arrays[f"statistic/{name}/{row}"]
    for name, x in arrays.items():
        kind, _, number = name.partition("/")
        if kind == "kept":
            done.kept[int(number)] = _samples(x, of_images)
        elif kind == "hr":
            done.pictures[int(number)] = x, arrays[f"lr/{number}"]
    return done


def _samples(x: np.ndarray, of_images: tuple[float, float] | None) -> Tensor:
    """Samples [n, 3, H, W] of pictures or of themselves."""
    if x.dtype != np.uint8:
        return torch.from_numpy(x)
    low, high = of_images or (0.0, 1.0)
    units = torch.from_numpy(x).permute(0, 3, 1, 2).float() / 255
    return units if (low, high) == (0.0, 1.0) else low + (high - low) * units
