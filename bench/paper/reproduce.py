"""The paper at one command: its tables and figures, from one run directory.

Nothing is computed twice: the tables share their cells, the figures' samples are those of the run, and what a former
start has done is kept. What cannot be had (a method without weights) leaves its place empty, visibly.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from bench import download, weights
from bench.contract import methods
from bench.data import Dataset, datasets, make_dataset
from bench.errors import BenchError, near_matches
from bench.machine import device_name
from bench.metrics import resolve_metrics
from bench.metrics.perceptual import lpips_weights_missing
from bench.paper import plan
from bench.paper.appendix import write_appendix
from bench.paper.config import PICTURES, TABLES, Reproduction
from bench.paper.tables import Entry, write_paper_table
from bench.report.figures import (
    SAME_RUN,
    Strip,
    picture_grid,
    sample_heads,
    sample_picture,
    save,
    strips_of_image,
)
from bench.report.html.page import REPORT, write_report
from bench.report.tables import row_title
from bench.report.write import write_all
from bench.run.cell import CellKey
from bench.run.runner import Session, open_run
from bench.run.samples import read_picture
from bench.run.store import RunDir
from bench.run.study import done_rows, make_study, write_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FALLBACK = "stlpips_alex"
"""The perceptual distance where LPIPS' weights cannot be had."""


def reproduce(r: Reproduction) -> bool:
    """Print the plan and carry it out.

    Returns:
        whether nothing was left out and nothing failed.

    Raises:
        BenchError: the directory belongs to another configuration, or the disk is full.

    """
    dataset, complete = None, True
    if r.parts != ("figure6",):
        try:
            dataset = make_dataset(r.run.dataset)
            print(f"Dataset: {dataset.facts.title}, {len(dataset)} images of {dataset.size} pixels: here.")
        except BenchError as error:
            print(f"Dataset: missing: {error}")
            if offer := datasets.get(str(r.run.dataset["name"])).offer():
                print(f"Dataset: {offer}.")
            complete = False
    print(f"Device: {r.run.device} ({device_name(r.run.device)}). Results: {r.run.out}.")
    _get_weights(r)
    asked = r.run.perceptual
    r = _with_perceptual(r)
    if dataset is not None:
        probes, entries = _plan(r, dataset)
        complete = all(e.reason is None for lines in entries.values() for e in lines)
    if "figure6" in r.parts:
        print(_plan_study(r))
    if r.plan_only:
        return complete
    sys.stdout.flush()
    if dataset is not None:
        complete &= _run(r, entries, _picture_plans(r, dataset, probes), asked)
    if "figure6" in r.parts:
        complete &= _figure6(r)
    if dataset is not None or "figure6" in r.parts:
        folders = {"tables": r.run.out / "paper", "figures": r.run.out / "figures"}
        written = [f"{kind} in {folder}" for kind, folder in folders.items() if folder.is_dir()]
        written += [f"to look at: {r.run.out / REPORT}"] if (r.run.out / REPORT).is_file() else []
        print(f"\nWritten: {'; '.join(written)}.")
    return complete


def _configurations(r: Reproduction) -> list[Mapping[str, Any]]:
    used = [m.parameters for m in r.run.methods] if r.parts != ("figure6",) else []
    return [*used, *([r.study] if "figure6" in r.parts else [])]


def _get_weights(r: Reproduction) -> None:
    """Say which known checkpoints are needed, and fetch those that can be fetched."""
    needed = plan.needed_checkpoints(*_configurations(r))
    if r.run.perceptual in ("lpips_alex", "lpips_vgg") and set(r.parts) & set(TABLES):
        needed.append(weights.find(r.run.perceptual))
    for checkpoint in needed:
        print(f"Weights: {download.describe(checkpoint)}.")
    if r.plan_only or not r.download:
        return
    for checkpoint in needed:
        if not checkpoint.path.is_file() and checkpoint.url is not None:
            try:
                download.get(checkpoint)
            except BenchError as error:
                print(f"Left out: {error}")


def _with_perceptual(r: Reproduction) -> Reproduction:
    """Take shift-tolerant LPIPS where LPIPS' weights cannot be had; the tables name it, and later starts keep it."""
    wanted = r.run.perceptual
    if wanted not in ("lpips_alex", "lpips_vgg"):
        return r
    if RunDir(r.run.out).perceptual(wanted) is None and not lpips_weights_missing(wanted.removeprefix("lpips_")):
        return r
    print(f"{wanted} is not to be had: the tables have shift-tolerant LPIPS, which is not comparable with LPIPS.")
    return replace(r, run=r.run.model_copy(update={"perceptual": FALLBACK}))


def _plan(r: Reproduction, dataset: Dataset) -> tuple[list[plan.Probe], dict[str, list[Entry]]]:
    """Measure shortly; print what will be done, left out, and how long it takes."""
    probes = [plan.probe(m, scale, dataset, r.run) for scale in r.run.scales for m in r.run.methods]
    wanted = [name for name in TABLES if name in r.parts or ("plots" in r.parts and name != "appendix")]
    entries = {name: _entries(r, name, probes) for name in wanted}
    every = list({e.key: e for lines in entries.values() for e in lines}.values())
    if every:
        names, _ = resolve_metrics(r.run.metrics, r.run.perceptual)
        metrics = {scale: plan.metric_seconds(names, scale, dataset, r.run) for scale in r.run.scales}
        cost = plan.estimate(every, probes, r.run, RunDir(r.run.out), dataset, metrics)
        print("\n" + plan.table(every, probes, cost))
        workers = r.run.launch.workers or 1
        whole, shared = sum(cost.seconds.values()), f" with {workers} workers" if workers > 1 else ""
        print(f"\nTime: about {plan.duration(whole / workers)}{shared}. {plan.check_disk(r.run.out, cost.size)}")
    for p in probes:
        if p.reason:
            print(f"Left out: {p.config.label} x{p.scale}: {p.reason}")
    return probes, entries


def _entries(r: Reproduction, name: str, probes: Sequence[plan.Probe]) -> list[Entry]:
    """Lines of a table: all methods at one temperature or at several, or one method at several."""
    entries: list[Entry] = []
    if name == "appendix" and not r.run.statistics:
        return entries
    for p in probes:
        facts = methods.facts(p.config.name)
        if name == "table2" and p.config.label != r.reference:
            continue
        taus = {"table2": r.table2_taus, "appendix": r.appendix_taus}.get(name, (r.table1_tau,))
        for tau in taus if facts.uses_tau else (None,):
            key = CellKey(p.config.label, p.scale, tau)
            entries.append(Entry(key, p.config.name, row_title(facts.title, p.config.name, p.config.label), p.reason))
    return entries


@dataclass(frozen=True)
class _PicturePlan:
    """What a figure shows: image, key and label of its rows, and samples of each."""

    rows: Sequence[tuple[int, CellKey, str]]
    samples: int


def _run(
    r: Reproduction, entries: Mapping[str, Sequence[Entry]], pictures: Mapping[str, _PicturePlan], asked: str
) -> bool:
    """Run what the tables and figures need, all of it claimed before anything is sampled, and write them.

    Args:
        r: what to do.
        entries: the lines of the tables.
        pictures: the rows of the figures.
        asked: the perceptual distance that was asked for, which may not be to be had.

    """
    measured = list(dict.fromkeys(e.key for lines in entries.values() for e in lines if e.reason is None))
    drawn = [k for p in pictures.values() for _, k, _ in p.rows]
    keys = list(dict.fromkeys([*measured, *drawn]))
    complete = True
    if keys:
        with open_run(r.run, keys) as session:
            if asked != r.run.perceptual:
                session.directory.set_perceptual(asked, r.run.perceptual)
            session.measure(measured)
            _write_tables(r, session.directory, entries, bool(measured))
            complete &= _draw_pictures(r, session, pictures)
            for failure in session.failures:
                print(f"Failed: {failure['what']}: {failure['image'] or ''} {failure['reason']}")
            complete &= not session.failures
        if measured:
            write_report([session.directory], r.run.out / REPORT)
    for name, has_any in (
        *((n, any(e.reason is None for e in lines)) for n, lines in entries.items() if n in r.parts),
        *((n, bool(p.rows)) for n, p in pictures.items()),
    ):
        if not has_any:
            print(f"\n{name} is left out: no method of it can run.")
    return complete


def _write_tables(r: Reproduction, directory: RunDir, entries: Mapping[str, Sequence[Entry]], any_rows: bool) -> None:
    """Write the paper's tables, and the tables and figures of all that was run."""
    for name, lines in entries.items():
        if name in r.parts and any(e.reason is None for e in lines):
            write = write_appendix if name == "appendix" else write_paper_table
            print(f"\n{name}\n{write(directory, name, lines, r.run.out / 'paper', _where(r))}")
    if "plots" in r.parts and any_rows:
        write_all(directory)


def _where(r: Reproduction) -> str:
    """A sentence for tables that are not of the paper's images."""
    name = r.run.dataset["name"]
    if name == "ffhq256":
        return ""
    size = r.run.dataset.get("size")
    images = f"{name} at {size} pixels" if size else name
    return (
        f"Ours on {images} with other networks; the published figures are of FFHQ-256, so that there is no difference."
    )


def _picture_plans(r: Reproduction, dataset: Dataset, probes: Sequence[plan.Probe]) -> dict[str, _PicturePlan]:
    """Figures 1, 3, 4 and 5, as far as they are asked for."""
    wanted = [name for name in PICTURES if name in r.parts]
    indices = _chosen_images(dataset, r.ids, r.images) if wanted else []
    return {
        name: _PicturePlan(_picture_rows(r, name, probes, indices), 1 if name == "figure5" else r.samples)
        for name in wanted
    }


def _chosen_images(dataset: Dataset, ids: Sequence[str] | None, count: int) -> list[int]:
    """Indices of the images with these ids, or of the first `count`; BenchError for an id that is not there."""
    if ids is None:
        return list(range(min(count, len(dataset))))
    for name in ids:
        if name not in dataset.ids:
            raise BenchError(f"There is no image '{name}' in the dataset.{near_matches(name, dataset.ids)}")
    return [dataset.ids.index(name) for name in ids]


def _draw_pictures(r: Reproduction, session: Session, pictures: Mapping[str, _PicturePlan]) -> bool:
    complete = True
    for name, p in pictures.items():
        if not p.rows:
            continue
        images, keys = list(dict.fromkeys(i for i, _, _ in p.rows)), list(dict.fromkeys(k for _, k, _ in p.rows))
        if not session.draw(keys, images, p.samples):
            print(f"{name} is left out: not all of its samples could be drawn.")
            complete = False
            continue
        draw = _temperature_figure if name == "figure5" else _sample_figure
        save(draw(session.directory, p.rows, p.samples), r.run.out / "figures" / name)
    return complete


def _picture_rows(
    r: Reproduction, name: str, probes: Sequence[plan.Probe], indices: Sequence[int]
) -> list[tuple[int, CellKey, str]]:
    """Image, key and label of every row of a figure."""
    scale = {"figure3": 4, "figure4": 8}.get(name)
    one_method = name in ("figure1", "figure5")
    rows = []
    for index in indices[:1] if name == "figure5" else indices:
        for p in probes:
            facts = methods.facts(p.config.name)
            if p.reason or scale not in (None, p.scale) or (one_method and p.config.label != r.reference):
                continue
            taus: tuple[float | None, ...] = r.figure5_taus if name == "figure5" else (r.table1_tau,)
            title = row_title(facts.title, p.config.name, p.config.label)
            label = f"x{p.scale}" if one_method else title
            rows += [(index, CellKey(p.config.label, p.scale, t), label) for t in (taus if facts.uses_tau else (None,))]
    return rows


def _sample_figure(directory: RunDir, rows: Sequence[tuple[int, CellKey, str]], samples: int) -> Figure:
    """Rows LR | samples | HR, image by image; a new LR where the scale changes."""
    strips: list[Strip] = []
    for index, scale in dict.fromkeys((i, k.scale) for i, k, _ in rows):
        of_image = [(directory.cell(k), label) for i, k, label in rows if (i, k.scale) == (index, scale)]
        strips += strips_of_image(directory, index, of_image, samples, spread=False)
    return picture_grid(strips, sample_heads(samples, spread=False))


def _temperature_figure(directory: RunDir, rows: Sequence[tuple[int, CellKey, str]], samples: int) -> Figure:
    """A row per scale: LR | the same sample at rising temperature | HR."""
    strips = []
    taus = sorted({k.tau for _, k, _ in rows if k.tau is not None})
    for scale in dict.fromkeys(k.scale for _, k, _ in rows):
        keys = sorted((k for _, k, _ in rows if k.scale == scale), key=lambda k: k.tau or 0.0)
        index = rows[0][0]
        shown = [sample_picture(directory.cell(k), index, 0) for k in keys]
        ends = [read_picture(directory.image_folder(scale, index) / f"{end}.png", SAME_RUN) for end in ("lr", "hr")]
        strips.append(Strip(f"x{scale}", [ends[0], *shown, ends[1]]))
    return picture_grid(strips, ["LR", *(f"τ = {t:g}" for t in taus), "HR"])


def _plan_study(r: Reproduction) -> str:
    out = r.run.out / "figures" / "figure6"
    try:
        study = make_study(r.study)
        left = study.items - done_rows(r.study, r.run.seed, out)["item"].nunique()
    except BenchError as error:
        return f"figure6 is left out: {error}"
    seconds = study.seconds(torch.device(r.run.device)) if left else 0.0
    return f"figure6: {left} of {study.items} pieces to compute, about {plan.duration(left * seconds)}."


def _figure6(r: Reproduction) -> bool:
    try:
        write_study(r.study, r.run.seed, torch.device(r.run.device), r.run.out / "figures" / "figure6")
    except BenchError as error:
        print(f"figure6 is left out: {error}")
        return False
    return True
