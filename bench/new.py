"""``python -m bench new KIND NAME``: a plugin that works at once, its settings and its test, to be changed from there.

The files are made from the texts in ``bench/templates``, within this repository or as a package of one's own.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from bench.errors import BenchError, near_matches
from bench.files import write_atomic

TEMPLATES = Path(__file__).parent / "templates"
WORDS = ("data", "data_facts", "dataset", "evaluation", "facts", "image", "method", "metric", "metric_facts", "noise",
         "operator", "operator_facts", "separable", "tensor")  # fmt: skip
"""Names whose class would hide one that the templates import."""
WORDS_OF_YAML = ("false", "inf", "nan", "no", "none", "null", "off", "on", "true", "yes")
"""What is read as another value than text, or means that there is none."""
LONGEST = 50
"""Letters of a name, which is a part of the names of files and folders."""


@dataclass(frozen=True)
class Kind:
    """Where plugins of a kind are.

    Attributes:
        package: that of the repository's own.
        registry: where their registry is, as "module:name".
        group: of entry points; also tells the registry's package.
        configs: folder of their yaml files; None for none.
        first_use: a command that shows that it works.

    """

    package: str
    registry: str
    group: str
    configs: str | None
    first_use: str


KINDS = {
    "method": Kind("methods", "bench.contract:methods", "bench.methods", "methods", "check method=$name"),
    "metric": Kind("bench.metrics", "bench.metrics:metrics", "bench.metrics", None,
                   "run methods=[bicubic] metrics=[psnr,$name]"),
    "dataset": Kind("bench.data", "bench.data:datasets", "bench.datasets", "dataset",
                    "run methods=[bicubic] dataset=$name"),
    "operator": Kind("bench.operators", "bench.operators:operators", "bench.operators", "operator",
                     "run methods=[bicubic] operator=$name"),
}  # fmt: skip


def command(words: list[str]) -> int:
    """Do what the command line asks for and print the files that are new."""
    parser = argparse.ArgumentParser(
        prog="python -m bench new",
        description="Write a new method, metric, dataset or operator that works at once, with its settings and a test.",
        epilog="Example: python -m bench new method mine; as a package of your own: --package FOLDER",
    )
    parser.add_argument("kind", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("name", metavar="NAME", help="as it will be called on the command line")
    parser.add_argument("--package", metavar="FOLDER", type=_folder, help="make a package there, with its entry point")
    arguments = parser.parse_args(words)
    files = create(arguments.kind, arguments.name, arguments.package)
    for path in files:
        print(path)
    test = next(p for p in files if p.name.startswith("test_"))
    if arguments.package is not None:
        print(f"\nNext: pip install -e {arguments.package}, then")
    else:
        print("\nNext:")
    print(f"  python -m bench {_fill(KINDS[arguments.kind].first_use, {'name': arguments.name})}")
    print(f"  python -m pytest {test}")
    return 0


def _folder(text: str) -> Path:
    if not text:
        raise BenchError("--package has no folder: give one, as --package mine.")
    return Path(text)


def create(kind: str, name: str, package: Path | None = None) -> list[Path]:
    """Write the files of a new plugin, all of them or none.

    Args:
        kind: one of `KINDS`.
        name: what it is called.
        package: folder of a new package; None for this repository.

    Returns:
        the files.

    Raises:
        BenchError: an unknown kind, a name that cannot be had, or a file that is there already.

    """
    if kind not in KINDS:
        raise BenchError(f"There is no kind '{kind}'.{near_matches(kind, KINDS)}")
    _check_name(kind, name, own=package is not None)
    if package is not None and (file := next((p for p in (package, *package.parents) if p.is_file()), None)):
        raise BenchError(f"{file} is a file: give a folder, --package FOLDER.")
    texts = _repository(kind, name) if package is None else _package(kind, name, package)
    if there := next((p for p in texts if p.exists()), None):
        raise BenchError(f"{there} is there already: choose another name, or delete it.")
    _write(texts)
    return list(texts)


def _check_name(kind: str, name: str, own: bool) -> None:
    """Refuse what cannot be the name of a module, a class and a key, or what is taken."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise BenchError(f"'{name}' cannot be a name: use small letters, digits and _, beginning with a letter.")
    if len(name) > LONGEST:
        raise BenchError(f"'{name[:20]}...' cannot be a name: it has {len(name)} letters, use {LONGEST} at most.")
    if name in WORDS_OF_YAML:
        raise BenchError(f"'{name}' cannot be a name: it is a value in YAML or on the command line; choose another.")
    if keyword.iskeyword(name):
        raise BenchError(f"'{name}' cannot be a name: it is a word of Python; choose another.")
    if name in WORDS:
        raise BenchError(f"'{name}' cannot be a name: it is a word of the suite itself; choose another.")
    module, _, attribute = KINDS[kind].registry.partition(":")
    registry: Any = getattr(importlib.import_module(module), attribute)
    if name in registry.names():
        raise BenchError(f"There is {_article(kind)} {kind} '{name}' already: choose another name.")
    taken = name if own else f"{KINDS[kind].package}.{name}"
    if importlib.util.find_spec(taken) is not None:
        raise BenchError(f"There is a Python module '{taken}' already: choose another name.")


def _repository(kind: str, name: str) -> dict[Path, str]:
    """Files within this repository."""
    root = Path(__file__).parent.parent
    if not (root / "pyproject.toml").is_file():
        raise BenchError(f"{root} is no checkout of the repository: make a package of your own, --package FOLDER.")
    k = KINDS[kind]
    folder = k.package.replace(".", "/")
    fields = _fields(kind, name, f"{k.package}.{name}")
    texts = {root / folder / f"{name}.py": _render(f"{kind}.py", fields)}
    if k.configs is not None:
        texts[root / "configs" / k.configs / f"{name}.yaml"] = _render(f"{kind}.yaml", fields)
    texts[root / "tests" / folder / f"test_{name}.py"] = _render(f"{kind}_test.py", fields)
    return texts


def _package(kind: str, name: str, folder: Path) -> dict[Path, str]:
    """Files of a package with one plugin."""
    k = KINDS[kind]
    fields = _fields(kind, name, f"{name}.{kind}")
    texts = {
        folder / "pyproject.toml": _render("package_pyproject.toml", fields),
        folder / "README.md": _render("package_README.md", fields),
        folder / name / "__init__.py": _render("package_init.py", fields),
        folder / name / f"{kind}.py": _render(f"{kind}.py", fields),
    }
    if k.configs is not None:
        texts[folder / name / "configs" / k.configs / f"{name}.yaml"] = _render(f"{kind}.yaml", fields)
    texts[folder / "tests" / f"test_{name}.py"] = _render(f"{kind}_test.py", fields)
    return texts


def _fields(kind: str, name: str, module: str) -> dict[str, str]:
    k = KINDS[kind]
    yaml = "" if k.configs is None else f", `{name}/configs/{k.configs}/{name}.yaml` its settings"
    return {
        "kind": kind,
        "article": _article(kind),
        "name": name,
        "title": name.replace("_", " ").strip().capitalize(),
        "class_name": "".join(part.capitalize() for part in name.split("_")),
        "module": module,
        "group": k.group,
        "source": f"{name}/{kind}.py",
        "settings": yaml,
        "first_use": f"python -m bench {_fill(k.first_use, {'name': name})}",
    }


def _article(kind: str) -> str:
    return "an" if kind == "operator" else "a"


def _render(template: str, fields: dict[str, str]) -> str:
    return _fill((TEMPLATES / f"{template}.tmpl").read_text(encoding="utf-8"), fields)


def _fill(text: str, fields: dict[str, str]) -> str:
    return Template(text).substitute(fields)


def _write(texts: dict[Path, str]) -> None:
    """Write files and, if one cannot be written, take back the others with the folders that were made for them."""
    made: list[Path] = []
    try:
        for path, text in texts.items():
            missing = [p for p in (path, *path.parents) if not p.exists()]
            made += missing[::-1]
            write_atomic(path, text)
    except BaseException:
        for path in reversed(made):
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        raise
