"""One registry for methods, metrics, datasets, operators and what is trained.

Register with the decorator, in one file::

    from bench.contract import Facts, Method, register_method

    @register_method("mine")
    class Mine(Method):
        facts = Facts(title="Mine")

A name is looked up, in this order, among what is registered already, in the module of the same name in the
registry's package (``methods/mine.py``), and among the entry points that installed packages declare::

    [project.entry-points."bench.methods"]
    mine = "mypackage.mine"

Importing the entry point's module must run the decorator. Nothing is imported before it is used: names and facts are
read from the source where both are literals, as above, so that listing costs neither time nor heavy dependencies.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from bench.errors import BenchError, near_matches

T = TypeVar("T")

UNREADABLE = (ImportError, OSError, SyntaxError, ValueError)
"""What reading the source of a module may raise."""


@dataclass(frozen=True)
class Declaration:
    """A class with a registering decorator, as read from its source.

    Attributes:
        registrar: name of the decorator, as "register_method".
        name: the registered name.
        path: the file that it is in.
        facts: keyword arguments of its facts; None where they are no literals.

    """

    registrar: str
    name: str
    path: Path
    facts: dict[str, Any] | None


class Registry(Generic[T]):
    """Names to classes of one kind (`kind` is the word used in messages, `facts` the class of what they declare)."""

    def __init__(self, kind: str, package: str, group: str, facts: type | None = None, registrar: str = ""):
        self.kind = kind
        self.registrar = registrar or f"register_{kind}"
        self.package = package
        self.group = group
        self.facts_class = facts
        self._items: dict[str, type[T]] = {}
        self.broken: dict[str, str] = {}
        """Plugins that cannot be imported: name to reason."""

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator; raises BenchError if another class has the name already."""

        def decorate(cls: type[T]) -> type[T]:
            other = self._items.get(name)
            if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise BenchError(
                    f"Two {self.kind}s are called '{name}' ({other.__module__} and {cls.__module__}): rename one."
                )
            cls.name = name  # type: ignore[attr-defined]
            self._items[name] = cls
            return cls

        return decorate

    def get(self, name: str) -> type[T]:
        """Return the class registered as `name`; BenchError with near matches if there is none."""
        if name not in self._items:
            self._import(name)
        if name not in self._items:
            known = self.names()
            if name in self.broken:
                raise BenchError(f"The {self.kind} '{name}' could not be imported: {self.broken[name]}.")
            raise BenchError(f"There is no {self.kind} '{name}'.{near_matches(name, known)}")
        return self._items[name]

    def facts(self, name: str) -> Any:
        """What `name` declares, without importing its module where the source tells.

        Raises:
            BenchError: there is no such name, its module cannot be imported, or it declares what is unknown.

        """
        if name not in self._items and self.facts_class is not None:
            found = self._declared().get(name)
            if found is not None and found.facts is not None:
                try:
                    return self.facts_class(**found.facts)
                except TypeError as error:
                    why = str(error).removeprefix(f"{self.facts_class.__name__}.__init__() ")
                    self.broken[name] = f"the facts of {found.path.name} do not fit: {why}"
                    raise BenchError(f"The {self.kind} '{name}' is broken: {self.broken[name]}.") from None
        return self.get(name).facts  # type: ignore[attr-defined]

    def names(self) -> list[str]:
        """All names, sorted; `broken` has those of plugins that cannot be imported."""
        declared = self._declared()  # may import, and so register
        return sorted({*self._items, *declared})

    def _declared(self) -> dict[str, Declaration]:
        """Declarations of all modules that can be found; what the source does not tell is imported."""
        found: dict[str, Declaration] = {}
        for name, module, ours in self._modules():
            try:
                source = read_source(module)
            except UNREADABLE as error:
                self.broken[name] = f"{type(error).__name__}: {error}"
                continue
            if not ours and (missing := source.missing()):
                self.broken[name] = f"ModuleNotFoundError: No module named '{missing}'"
                continue
            if self._unclear(source, ours):
                self._try(name, module)
            for mine in source.of(self.registrar):
                other = found.setdefault(mine.name, mine)
                if other.path != mine.path:
                    self.broken[name] = f"its {self.kind} '{mine.name}' has the name of that in {other.path}"
        return found

    def _unclear(self, source: Source, ours: bool) -> bool:
        """Whether only an import tells what a module registers; a plugin that shows nothing does so elsewhere."""
        return source.unclear(self.registrar) or not (ours or source.declarations)

    def _modules(self) -> Iterator[tuple[str, str, bool]]:
        """Names, modules, and whether they belong to the registry's package."""
        package = importlib.import_module(self.package)
        for m in pkgutil.iter_modules(package.__path__):
            if not m.name.startswith("_"):
                yield m.name, f"{self.package}.{m.name}", True
        for point in self._points():
            yield point.name, point.value.partition(":")[0], False

    def _points(self) -> tuple[EntryPoint, ...]:
        return tuple(entry_points(group=self.group))

    def _import(self, name: str) -> None:
        """Import the module of a name: that of the same name first, else what declares it or may register it."""
        if name.isidentifier() and importlib.util.find_spec(f"{self.package}.{name}") is not None:
            self._try(name, f"{self.package}.{name}")
        unclear = []
        for other, module, ours in self._modules():
            if name in self._items:
                return
            source = _source_or_none(module)
            if other == name or (source and any(d.name == name for d in source.of(self.registrar))):
                self._try(name, module)
            elif source and self._unclear(source, ours):
                unclear.append((other, module))
        for other, module in unclear:
            if name in self._items:
                return
            self._try(other, module)

    def _try(self, name: str, module: str) -> None:
        if module in sys.modules:
            return
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 -- a plugin may fail in any way; it must not take the others down
            self.broken[name] = f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Source:
    """What the text of a module, or of all modules of a package, tells.

    Attributes:
        declarations: registered classes.
        imported: top-level packages that are imported at once with them.
        calls: how often each registering decorator is called, on whatever.

    """

    declarations: tuple[Declaration, ...]
    imported: tuple[str, ...]
    calls: dict[str, int]

    def of(self, registrar: str) -> list[Declaration]:
        """What one decorator registers."""
        return [d for d in self.declarations if d.registrar == registrar]

    def unclear(self, registrar: str) -> bool:
        """Whether something is registered that the text does not name."""
        return self.calls.get(registrar, 0) > len(self.of(registrar)) or "register" in self.calls

    def missing(self) -> str | None:
        """The first package that it imports and that is not installed."""
        return next((m for m in self.imported if m not in sys.modules and importlib.util.find_spec(m) is None), None)


def _source_or_none(module: str) -> Source | None:
    try:
        return read_source(module)
    except UNREADABLE:
        return None


@lru_cache
def read_source(module: str) -> Source:
    """Read a module's text without importing it.

    Raises:
        ModuleNotFoundError: there is no such module.
        SyntaxError: it is no Python.

    """
    declarations: list[Declaration] = []
    imported: list[str] = []
    calls: dict[str, int] = {}
    for path in _files(module):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        declared = [d for part in ast.walk(tree) if isinstance(part, ast.ClassDef) for d in _of_class(part, path)]
        for part in ast.walk(tree):
            if isinstance(part, ast.Call) and (name := _called(part)).startswith("register"):
                calls[name] = calls.get(name, 0) + 1
        declarations += declared
        if declared:  # another file of the package may never be imported
            imported += _imports(tree)
    return Source(tuple(declarations), tuple(dict.fromkeys(imported)), calls)


def _imports(tree: ast.Module) -> Iterator[str]:
    """Top-level packages that a module imports at once and without a way round."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (a.name.partition(".")[0] for a in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _files(module: str) -> list[Path]:
    """The files of a module, or of a whole package."""
    root, *rest = module.split(".")
    spec = importlib.util.find_spec(root)  # a top-level name is found without running anything
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{root}'")
    folders = [Path(p) for p in spec.submodule_search_locations or []]
    if not folders:
        return [Path(str(spec.origin))]
    for folder in folders:
        path = folder.joinpath(*rest)
        if path.with_suffix(".py").is_file() and rest:
            return [path.with_suffix(".py")]
        if (path / "__init__.py").is_file():
            return sorted(path.glob("*.py"))
    raise ModuleNotFoundError(f"No module named '{module}'")


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def _of_class(node: ast.ClassDef, path: Path) -> Iterator[Declaration]:
    facts: dict[str, Any] | None = None
    for statement in node.body:
        if (
            isinstance(statement, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == "facts" for t in statement.targets)
            and isinstance(statement.value, ast.Call)
        ):
            try:
                if statement.value.args:
                    raise ValueError("positional")
                facts = {str(k.arg): ast.literal_eval(k.value) for k in statement.value.keywords}
            except ValueError:
                facts = None
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and _called(decorator).startswith("register_") and decorator.args:
            name = decorator.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Declaration(_called(decorator), name.value, path, facts)


def plugin_config_dirs(group: str) -> list[str]:
    """Folders ``configs`` beside the modules of a group's entry points: where third parties keep their yaml files."""
    folders = []
    for point in entry_points(group=group):
        try:
            folder = _files(point.value.partition(":")[0])[0].parent / "configs"
        except UNREADABLE:  # the error is reported when the method is asked for
            continue
        if folder.is_dir():
            folders.append(str(folder))
    return sorted(set(folders))
