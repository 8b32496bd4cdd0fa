"""``index.html`` of a folder of samples: everything that is in it, to look at."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench.files import read_json, write_atomic
from bench.report.figures import SPREAD
from bench.sample.draw import read_done
from bench.settings import written

EMBEDDED = 4_000_000
"""Bytes of pictures up to which they are within the page, so that it can be sent as one file; else it links to them."""
SHOWN = 256
"""Pixels that a picture's side has on the page, at least: small ones are enlarged without smoothing."""


def write_page(out: Path, failed: Mapping[str, str]) -> Path:
    """Write the page of a folder of samples.

    Args:
        out: the folder.
        failed: images without samples, and why.

    Returns:
        the page.

    """
    settings = read_json(out / "sample.json", dict[str, Any])
    done = list(read_done(out))
    files = [folder / name for folder, record in done for name in record["files"]]
    embed = sum(path.stat().st_size for path in files if path.is_file()) <= EMBEDDED
    images = [_entry(out, folder, record, embed) for folder, record in done]
    environment = Environment(
        loader=PackageLoader("bench.sample", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    shown = {k: written(v) for k, v in settings.items() if k not in ("title", "label", "method", "settings", "degrade")}
    shown |= {k: written(v) for k, v in settings["settings"].items()}
    page = environment.get_template("index.html").render(
        title=settings["title"], settings=shown, images=images, failed=dict(failed), spread=SPREAD, shown=SHOWN
    )
    write_atomic(out / "index.html", page)
    return out / "index.html"


def _entry(out: Path, folder: Path, record: Mapping[str, Any], embed: bool) -> dict[str, Any]:
    """What the template needs of one image."""
    pictures = []
    for name in record["files"]:
        stem = Path(name).stem
        size = record["low_size"] if stem == "lr" else record["size"]
        pictures.append(
            {
                "title": _title(stem),
                "alternative": f"{_title(stem)} of {record['image']}",
                "source": _source(out, folder / name, embed),
                "link": _link(out, folder / name),
                "height": size[0],
                "width": size[1],
            }
        )
    return {**record, "pictures": pictures}


def _title(stem: str) -> str:
    names = {"lr": "input", "mean": "mean", "deviation": "standard deviation", "hr": "truth"}
    return names.get(stem) or f"sample {stem.removeprefix('sample')}"


def _link(out: Path, path: Path) -> str:
    return quote(os.fsencode(path.relative_to(out).as_posix()))


def _source(out: Path, path: Path, embed: bool) -> str:
    if not embed:
        return _link(out, path)
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
