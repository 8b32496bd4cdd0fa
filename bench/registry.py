"""One registry for methods, metrics and datasets.

Register with the decorator, in one file::

    from bench.contract import Method, register_method

    @register_method("mine")
    class Mine(Method): ...

A name is looked up, in this order, among what is registered already, in the module of the same name in the
registry's package (``methods/mine.py``), and among the entry points that installed packages declare::

    [project.entry-points."bench.methods"]
    mine = "mypackage.mine"

Importing the entry point's module must run the decorator. Nothing is imported before it is asked for, so that a
method with heavy dependencies costs nothing to the others.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Generic, TypeVar

from bench.errors import BenchError, near_matches

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to classes of one kind (`kind` is the word used in messages)."""

    def __init__(self, kind: str, package: str, group: str):
        self.kind = kind
        self.package = package
        self.group = group
        self._items: dict[str, type[T]] = {}
        self.broken: dict[str, str] = {}
        """Plugins that could not be imported: name to reason."""

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator; raises BenchError if another class has the name already."""

        def decorate(cls: type[T]) -> type[T]:
            other = self._items.get(name)
            if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise BenchError(
                    f"Two {self.kind}s are called '{name}' ({other.__module__} and {cls.__module__}): rename one."
                )
            self._items[name] = cls
            return cls

        return decorate

    def get(self, name: str) -> type[T]:
        """Return the class registered as `name`; BenchError with near matches if there is none."""
        if name not in self._items:
            self._import(name)
        if name not in self._items:
            known = self.names()
            if name not in self._items:
                why = f" It is there but could not be imported: {self.broken[name]}." if name in self.broken else ""
                raise BenchError(f"There is no {self.kind} '{name}'.{why or near_matches(name, known)}")
        return self._items[name]

    def names(self) -> list[str]:
        """Import everything that can be found and return all names, sorted."""
        for module in self._modules():
            self._try(module, f"{self.package}.{module}")
        for point in self._points():
            self._try(point.name, point.value.partition(":")[0])
        return sorted(self._items)

    def _modules(self) -> Iterator[str]:
        package = importlib.import_module(self.package)
        yield from (m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))

    def _points(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=self.group))

    def _import(self, name: str) -> None:
        if name.isidentifier() and importlib.util.find_spec(f"{self.package}.{name}") is not None:
            self._try(name, f"{self.package}.{name}")
        for point in self._points():
            if point.name == name:
                self._try(name, point.value.partition(":")[0])

    def _try(self, name: str, module: str) -> None:
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 -- a plugin may fail in any way; it must not take the others down
            self.broken[name] = f"{type(error).__name__}: {error}"


def plugin_config_dirs(group: str) -> list[str]:
    """Folders ``configs`` beside the modules of a group's entry points: where third parties keep their yaml files."""
    folders = []
    for point in entry_points(group=group):
        try:
            spec = importlib.util.find_spec(point.value.partition(":")[0])
        except (ImportError, ValueError):  # its import error is reported when the method is asked for
            continue
        if spec is not None and spec.origin:
            folder = Path(spec.origin).parent / "configs"
            if folder.is_dir():
                folders.append(str(folder))
    return sorted(set(folders))
