"""Draw and keep samples of one's own images.

Of every image there is a folder with ``lr.png``, ``sample0.png`` and so on, ``mean.png``, ``deviation.png``, with
``degrade`` also ``hr.png``, and ``done.json``, which is written last: an image that has it is not drawn again.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.contract import Noise
from bench.data import content_of
from bench.data.folder import printable
from bench.data.images import EXTENSIONS, list_images, read_rgb
from bench.errors import BenchError, DiskError, ImageError
from bench.files import digest, disk_errors, read_json, write_atomic, write_json, write_png
from bench.load import LoadedMethod, make_method
from bench.machine import is_out_of_memory, release_memory
from bench.operators import make_operator, operator_kind
from bench.report.figures import deviation_map
from bench.run.draw import Sampler, finite_images, observe_pixels, say, to_image
from bench.run.identity import as_json, differences, hashes
from bench.run.samples import as_picture
from bench.run.store import RunDir
from bench.sample.config import SampleConfig
from bench.sample.fitting import Fitted, fit_image, places

UNITS = (0.0, 1.0)
TILES = 16
"""Tiles that are given to the method together."""


@dataclass(frozen=True)
class Source:
    """A file to be sampled: where it is, its name for people, and the folder of its samples below ``out``."""

    path: Path
    name: str
    folder: str


@dataclass(frozen=True)
class Outcome:
    """What became of the images: the folders with samples, in order, and of the others a sentence by name."""

    done: list[Path]
    failed: dict[str, str]


def find_sources(path: Path, out: Path) -> list[Source]:
    """The image, or all images below a folder, ordered by name; those below `out`, samples, are left out.

    Raises:
        BenchError: there is none.

    """
    if path.is_dir():
        below = out.resolve()
        files = [p for p in list_images(path) if below not in p.resolve().parents]
        if not files:
            raise BenchError(f"There are no images (png, jpg, webp, bmp, tiff) in {path}.")
        relative = [p.relative_to(path) for p in files]
    elif path.exists() or path.is_symlink() or path.suffix.lower() in EXTENSIONS:
        files, relative = [path], [Path(path.name)]
    else:
        raise BenchError(f"{path} is neither an image nor a folder: give one that is there.")
    stems = Counter(p.with_suffix("") for p in relative)
    folders = [p.with_suffix("") if stems[p.with_suffix("")] == 1 else p for p in relative]
    if len(set(folders)) < len(folders):  # as of a.png, a.jpg and a.png.jpg
        folders = relative
    return [
        Source(f, printable(r.as_posix()), printable(d.as_posix()))
        for f, r, d in zip(files, relative, folders, strict=True)
    ]


def sample_images(config: SampleConfig) -> Outcome:
    """Sample all images that are not done yet; one that fails costs no other.

    Raises:
        BenchError: nothing can be done: no images, a wrong setting, missing weights, samples of something else in the
            folder, or a full disk.

    """
    facts = make_method(config.method).facts
    if config.scale is not None:
        kind, sigma = operator_kind(config.operator, config.scale), float(config.operator.get("sigma", 0.0))
        if reason := facts.refuses(kind, config.scale, sigma):
            raise BenchError(f"{reason}.")
    sources = find_sources(config.input, config.out)
    with RunDir(config.out).lock():
        _claim(config)
        failed: dict[str, str] = {}
        by_scale: dict[int, list[Source]] = {}
        for source in sources:  # the images themselves would fill the memory
            try:
                by_scale.setdefault(_read(config, source).scale, []).append(source)
            except ImageError as error:
                failed[source.name] = str(error)
        for scale, found in sorted(by_scale.items()):
            loaded = LoadedMethod(make_method(config.method), config.operator, scale, config.device)
            for source in found:
                try:
                    _sample(config, loaded, source, _read(config, source))
                except DiskError:
                    raise
                except BenchError as error:
                    failed[source.name] = str(error)
                except Exception as error:  # noqa: BLE001 -- a method's bug must not cost the other images
                    failed[source.name] = f"{source.name}: {_reason(error, config, source)}"
            del loaded
            release_memory()
    return Outcome([config.out / s.folder for s in sources if s.name not in failed], failed)


def _reason(error: Exception, config: SampleConfig, source: Source) -> str:
    """One sentence for what a method raised, with the place of its traceback."""
    if is_out_of_memory(error):
        return f"one sample does not fit into the memory of {config.device}: use compute.rows=1, or a smaller image."
    report = config.out / "errors" / f"{digest(source.name)[:8]}.txt"
    write_atomic(report, traceback.format_exc())
    return f"{type(error).__name__}: {' '.join(str(error).split())} (traceback in {report})."


def _read(config: SampleConfig, source: Source) -> Fitted:
    image = read_rgb(source.path)
    return fit_image(image, source.name, make_method(config.method), config.scale, config.fit, config.degrade)


def _claim(config: SampleConfig) -> None:
    """Write what the samples of this folder depend on; BenchError where there are samples of something else."""
    now = as_json(config.shared())
    path = config.out / "sample.json"
    if (config.out / "config.yaml").is_file():
        raise BenchError(f"{config.out} is a run directory, where samples would be mixed in: use another out=DIR.")
    if path.is_file() and (reasons := differences(read_json(path, dict[str, Any]), now)):
        raise BenchError(
            f"{config.out} holds samples of something else: {'; '.join(reasons)}: use another out=DIR, or move it away."
        )
    write_json(path, now)


def _sample(config: SampleConfig, loaded: LoadedMethod, source: Source, fitted: Fitted) -> None:
    """Draw the samples of one image, unless they are there."""
    pixels = np.array(fitted.image)
    height, width = pixels.shape[:2]
    if config.degrade:
        height, width = height // fitted.scale, width // fitted.scale
    method = loaded.prepared(*(fitted.tile or (height, width)))
    folder = config.out / source.folder
    record = as_json(
        {
            "image": source.name,
            "scale": fitted.scale,
            "content": content_of(pixels),
            "tile": fitted.tile,
            "weights": hashes(method.files()),
            "note": fitted.note,
        }
    )
    before = read_json(folder / "done.json", dict[str, Any]) if (folder / "done.json").is_file() else {}
    if before.items() >= record.items() and all((folder / name).is_file() for name in before["files"]):
        return
    _check_replaced(config, source, before, record)
    hr, y = _observed(config, source, pixels, fitted.scale)
    sampler = Sampler(method, config.method.label, config.seed, config.n, round=False)
    tau = config.tau if method.facts.uses_tau else None
    x = _drawn(sampler, y.to(loaded.device), fitted, tau).cpu()
    if not finite_images(x[None]).all():
        raise ImageError(f"{source.name}: {method.facts.title} returned NaN or infinite values.")
    _keep(folder, record | {"fit": config.fit}, y, x, hr)
    say(f"{source.name}: {len(x)} {'sample' if len(x) == 1 else 'samples'} at scale={fitted.scale}")


def _check_replaced(config: SampleConfig, source: Source, before: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Say that samples of an image that was replaced are; ImageError where other settings would replace them."""
    if not before or before.items() >= record.items():  # none, or some of them were deleted
        return
    other = ""
    if config.scale is not None and before["scale"] != record["scale"]:
        other = f"at scale={before['scale']}"
    elif before.get("fit", config.fit) != config.fit:
        other = f"with fit={before['fit']}"
    elif before["weights"] != record["weights"]:
        other = "of other weights"
    if other:
        raise ImageError(
            f"{source.name}: {config.out / source.folder} holds samples {other}: use another out=DIR, or move it away."
        )
    say(f"{source.name}: the image is no longer what it was, its former samples are replaced")


def _observed(config: SampleConfig, source: Source, pixels: np.ndarray, scale: int) -> tuple[Tensor | None, Tensor]:
    """The truth [3, H, W], where it is known, and y [3, h, w]."""
    if not config.degrade:
        return None, to_image(pixels).float()
    operator = make_operator(config.operator, scale, pixels.shape[:2], dtype=torch.float64)
    return observe_pixels(pixels, source.name, operator, config.seed)


def _drawn(sampler: Sampler, y: Tensor, fitted: Fitted, tau: float | None) -> Tensor:
    """Samples [n, 3, H, W] of y [3, h, w], keyed by the content of y as ``load_method(...).sample`` does."""

    def draw(rows: Tensor) -> Tensor:
        return sampler(rows, Noise.of_content(rows, 1, sampler.seed).ids, tau)

    if fitted.tile is None:
        return draw(y[None])[0]
    height, width = fitted.tile
    corners = list(places((y.shape[1], y.shape[2]), fitted.tile))
    tiles = torch.stack([y[:, i : i + height, j : j + width] for i, j in corners])
    s = fitted.scale
    whole = torch.empty(len(sampler.samples), 3, y.shape[1] * s, y.shape[2] * s, device=y.device)
    for first in range(0, len(tiles), TILES):
        drawn = draw(tiles[first : first + TILES])
        for x, (i, j) in zip(drawn, corners[first : first + TILES], strict=True):
            whole[:, :, i * s : (i + height) * s, j * s : (j + width) * s] = x
    return whole


def _keep(folder: Path, record: dict[str, Any], y: Tensor, x: Tensor, hr: Tensor | None) -> None:
    """Write the pictures of an image, and last what they are."""
    with disk_errors(folder):
        (folder / "done.json").unlink(missing_ok=True)
        for old in folder.glob("sample*.png"):
            old.unlink()
    samples = [as_picture(sample, UNITS) for sample in x]
    pictures = {"lr": as_picture(y, UNITS), **{f"sample{j}": picture for j, picture in enumerate(samples)}}
    pictures["mean"] = as_picture(x.mean(0), UNITS)
    if len(samples) > 1:
        pictures["deviation"] = deviation_map(samples)
    if hr is not None:
        pictures["hr"] = as_picture(hr, UNITS)
    for name, picture in pictures.items():
        write_png(folder / f"{name}.png", picture)
    figures = {
        "deviation": float(x.double().var(0).mean(0).sqrt().mean()) if len(x) > 1 else None,
        "psnr_sample": None if hr is None else float(np.mean([_psnr(sample, hr) for sample in x])),
        "psnr_mean": None if hr is None else _psnr(x.mean(0), hr),
    }
    sizes = {"low_size": list(y.shape[1:]), "size": list(x.shape[2:])}
    write_json(folder / "done.json", record | sizes | figures | {"files": [f"{name}.png" for name in pictures]})


def _psnr(x: Tensor, hr: Tensor) -> float:
    """PSNR in dB of an image as it is saved, with 8 bits; at most 80, as tables have it."""
    difference = as_picture(x, UNITS).astype(np.float64) / 255 - hr.double().permute(1, 2, 0).numpy()
    return float(-10 * np.log10((difference**2).mean() + 1e-8))


def read_done(out: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders of images with samples, and their ``done.json``, ordered by name."""
    for path in sorted(out.rglob("done.json")):
        yield path.parent, read_json(path, dict[str, Any])
