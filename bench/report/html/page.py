"""The page: templates, scripts and data in one HTML file that runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.files import write_atomic
from bench.report.html.collect import collect
from bench.report.html.pictures import pack
from bench.run.store import RunDir

REPORT = "report.html"
STYLES = ("page.css", "overview.css", "images.css")
SCRIPTS = ("data.js", "address.js", "overview.js", "pictures.js", "viewer.js", "images.js", "plots.js",
           "differences.js", "main.js")  # fmt: skip
"""In this order: a script uses what those before it define."""


def write_report(runs: Sequence[RunDir], path: Path) -> None:
    """Write a report about run directories to `path`; pictures that are too many go to ``NAME_pictures`` beside it.

    Raises:
        BenchError: a directory is no run directory or has a damaged file, or the disk is full.

    """
    found = collect(runs)
    folder = path.with_name(f"{path.stem}_pictures")
    pictures = pack(found, folder)
    found.content["pictures"] = pictures.index | {
        "folder": folder.name if pictures.files else None,
        "files": pictures.files,
        "thumbnails": pictures.thumbnails,
    }
    write_atomic(path, render(found.content, pictures.embedded))


def render(content: dict[str, Any], pictures: dict[str, str]) -> str:
    """Return the page.

    Args:
        content: of `Collected`, with where the pictures are.
        pictures: key to data URI, of those in the page.

    """
    import jinja2

    here = files(__package__)
    scripts = [inline_script(text) for text in (plotting(), *((here / "static" / s).read_text() for s in SCRIPTS))]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template("report.html.j2").render(
        content,
        title=" and ".join(run["name"] for run in content["runs"]),
        styles=[(here / "static" / name).read_text() for name in STYLES],
        scripts=scripts,
        hashes=[script_hash(text) for text in scripts],
        data=inline_json(content),
        embedded=inline_json(pictures),
    )


@cache
def plotting() -> str:
    """Vega, Vega-Lite and Vega-Embed (BSD 3-Clause, University of Washington Interactive Data Lab), as one script.

    The package that has them runs a whole JavaScript engine, which ends its process where address space is short.

    Raises:
        BenchError: it could not be started.

    """
    made = "import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle().encode())"
    done = subprocess.run([sys.executable, "-c", made], capture_output=True, check=False)
    bundle = done.stdout.decode()
    if done.returncode or not bundle:
        raise BenchError(
            f"report.html was not written: vl_convert, which makes its plotting script, ended with {done.returncode}, "
            "as it does where memory is limited (ulimit -v). All else is there; python -m bench report RUN_DIR writes "
            "it without that limit."
        )
    return f"(() => {{\n{bundle}\n}})();"  # its thousand names stay within a function; `vegaEmbed` leaves it


def inline_json(content: Any) -> str:
    """JSON that no name in it can end: characters that mean something to HTML are escaped."""
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def inline_script(text: str) -> str:
    """A script that can stand in HTML: within strings, where alone it occurs, the backslash changes nothing."""
    return text.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def script_hash(text: str) -> str:
    """What the page's policy knows a script by: one that came in through a name is not run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
