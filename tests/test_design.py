"""docs/design.md is true: who may import whom, and where things are."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DESIGN = (ROOT / "docs" / "design.md").read_text()
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


def test_rooms_import_as_the_design_says() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "3 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("bench/files.py", "def late():\n    from bench import config", "Rooms import downwards only BROKEN"),
        ("bench/run/draw.py", "from methods import bicubic", "The suite knows no method BROKEN"),
        ("methods/bicubic.py", "from bench import metrics", "and errors BROKEN"),
        ("bench/attic.py", "", "Rooms import downwards only BROKEN"),
    ],
    ids=["upwards, in a function", "a method by name", "a method that measures", "a room without a place"],
)
def test_a_breach_is_found(file: str, line: str, contract: str, tmp_path: Path) -> None:
    for source in [*(ROOT / "bench").rglob("*.py"), *(ROOT / "methods").rglob("*.py"), ROOT / "pyproject.toml"]:
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text())
    path = tmp_path / file
    path.write_text((path.read_text() if path.exists() else '"""New."""\n') + f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1
    assert contract in done.stdout


def test_the_table_of_rooms_is_that_of_the_linter() -> None:
    rows = re.findall(r"^\| \d+ \| (.+?) \|", DESIGN, re.MULTILINE)
    rooms = [sorted(re.findall(r"`bench/(\w+)(?:\.py|/)`", row)) for row in rows]
    assert rooms == [sorted(layer.split(" | ")) for layer in LINTER["contracts"][0]["layers"]]


def test_every_place_that_is_named_is_there() -> None:
    for path in re.findall(r"`((?:bench|configs|methods)/[\w./]*)`", DESIGN):
        assert "NAME" in path or (ROOT / path).exists(), path
    for folder in re.findall(r"`((?:bench|configs|methods)/[\w/]*)(?:NAME|FAMILY)", DESIGN):
        assert (ROOT / folder).is_dir(), folder
