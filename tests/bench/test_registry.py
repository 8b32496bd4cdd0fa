"""Registries: what plugins declare is read from their text; only what is used, or says nothing, is imported."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.registry import Registry, plugin_config_dirs, read_source

REGISTRY = """
from dataclasses import dataclass
from bench.registry import Registry

@dataclass(frozen=True)
class Facts:
    title: str
    size: int = 1

r = Registry('thing', package='own_things', group='test.things', facts=Facts)
register_thing = r.register
"""
HEAD = "from registry_of_test import Facts, register_thing\n"


def thing(name: str, title: str = "Good", before: str = "") -> str:
    """The text of a module that registers one thing."""
    facts = f"    facts = Facts(title={title!r}, size=3)\n"
    return f"{HEAD}{before}\n@register_thing({name!r})\nclass Good:\n{facts}"


@dataclass
class Site:
    """A registry over an empty package, and installed plugins beside it."""

    folder: Path
    registry: Registry[object]
    points: list[EntryPoint]

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def install(self, module: str, text: str, name: str = "good") -> None:
        """Write a plugin's module into the package `thirdparty` and declare it as an entry point."""
        self.write(f"{module.replace('.', '/')}.py", text)
        self.points.append(EntryPoint(name, module, "test.things"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    for package in ("own_things", "thirdparty"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "registry_of_test.py").write_text(REGISTRY)
    points: list[EntryPoint] = []
    monkeypatch.setattr("bench.registry.entry_points", lambda group: points if group == "test.things" else ())
    import registry_of_test

    yield Site(tmp_path, registry_of_test.r, points)
    for name in [m for m in sys.modules if m.split(".")[0] in ("thirdparty", "own_things", "registry_of_test")]:
        del sys.modules[name]
    read_source.cache_clear()


@pytest.fixture
def imported() -> Callable[[], set[str]]:
    """Which modules of plugins have been imported."""
    return lambda: {m for m in sys.modules if m.startswith(("thirdparty.", "own_things.")) or m == "thirdparty"}


def test_entry_points_are_found_by_name(site: Site) -> None:
    site.install("thirdparty.good", thing("good"))
    assert site.registry.get("good").__name__ == "Good"


def test_facts_and_names_are_read_without_an_import(site: Site, imported: Callable[[], set[str]]) -> None:
    site.install("thirdparty.good", thing("good", before="raise RuntimeError('imported')"))
    site.write("own_things/mine.py", thing("mine", "Mine", before="raise RuntimeError('imported')"))
    assert site.registry.names() == ["good", "mine"]
    assert site.registry.facts("mine").title == "Mine"
    assert (site.registry.facts("good").title, site.registry.facts("good").size) == ("Good", 3)
    assert site.registry.broken == {}
    assert imported() == set()


def test_a_package_with_side_effects_is_not_run_by_a_listing(site: Site, imported: Callable[[], set[str]]) -> None:
    effect = site.folder / "effect"
    site.write("thirdparty/__init__.py", f"open({str(effect)!r}, 'w').close()\n")
    site.install("thirdparty.deep.good", thing("good"))
    site.write("thirdparty/deep/__init__.py", "")
    assert site.registry.facts("good").title == "Good"
    assert not effect.exists()
    site.registry.get("good")
    assert effect.exists()
    assert "thirdparty.deep.good" in imported()


def test_the_files_of_a_package_are_read(site: Site, imported: Callable[[], set[str]]) -> None:
    site.write("own_things/big/__init__.py", "from own_things.big import method\n")
    site.write("own_things/big/method.py", thing("big", "Big"))
    site.write("own_things/big/plots.py", "import a_package_that_nobody_has\n")
    assert site.registry.facts("big").title == "Big"
    assert imported() == set()
    assert site.registry.get("big").__module__ == "own_things.big.method"


def test_a_name_other_than_the_modules(site: Site, imported: Callable[[], set[str]]) -> None:
    site.install("thirdparty.good", thing("better"))
    site.write("own_things/mine.py", thing("ours"))
    site.write("own_things/other.py", thing("other"))
    assert site.registry.names() == ["better", "other", "ours"]
    assert site.registry.get("ours").__module__ == "own_things.mine"
    assert site.registry.get("better").__module__ == "thirdparty.good"
    assert "own_things.other" not in imported()


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "for name in ['good']:\n    register_thing(name)(type('Good', (), {'facts': Facts(title='Good')}))\n",
        HEAD + "TITLE = 'Good'\n@register_thing('good')\nclass Good:\n    facts = Facts(title=TITLE)\n",
        HEAD + "@register_thing('good')\nclass Good:\n    facts = Facts('Good')\n",
        "from registry_of_test import Facts, r\n@r.register('good')\nclass Good:\n    facts = Facts(title='Good')\n",
    ],
    ids=["loop", "facts by name", "facts by position", "decorator of the registry"],
)
def test_what_the_text_does_not_tell_is_imported(site: Site, text: str, imported: Callable[[], set[str]]) -> None:
    site.write("own_things/odd.py", text)
    site.write("own_things/plain.py", thing("plain"))
    assert site.registry.get("good").__name__ == "Good"  # by its name alone, though no module is called so
    assert site.registry.names() == ["good", "plain"]
    assert site.registry.facts("good").title == "Good"
    assert "own_things.plain" not in imported()


def test_a_plugin_that_registers_elsewhere_is_imported(site: Site) -> None:
    site.write("thirdparty/hidden/inner.py", thing("good"))
    site.install("thirdparty.entry", "import thirdparty.hidden.inner\n", name="entry")
    assert site.registry.names() == ["good"]
    assert site.registry.facts("good").title == "Good"


def test_a_broken_plugin_does_not_take_the_others_down(site: Site) -> None:
    site.install("thirdparty.good", thing("good"))
    site.points.append(EntryPoint("bad", "thirdparty.missing", "test.things"))
    site.install("thirdparty.worse", "def", name="worse")
    assert site.registry.names() == ["good"]
    assert site.registry.broken["bad"] == "ModuleNotFoundError: No module named 'thirdparty.missing'"
    assert site.registry.broken["worse"].startswith("SyntaxError: ")


def test_a_missing_dependency_is_reported(site: Site, imported: Callable[[], set[str]]) -> None:
    site.install("thirdparty.good", thing("good", before="import a_package_that_nobody_has.part\n"))
    assert site.registry.names() == []
    assert site.registry.broken == {"good": "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"}
    assert imported() == set()


def test_an_optional_dependency_is_none(site: Site) -> None:
    optional = "try:\n    import a_package_that_nobody_has\nexcept ImportError:\n    pass\n"
    site.install("thirdparty.good", thing("good", before=optional))
    assert site.registry.names() == ["good"]
    assert site.registry.get("good").__name__ == "Good"


def test_facts_that_do_not_fit(site: Site) -> None:
    site.install("thirdparty.good", thing("good").replace("size=", "siez="))
    with pytest.raises(BenchError, match=r"The thing 'good' is broken: the facts of good.py do not fit: .*'siez'"):
        site.registry.facts("good")
    assert "siez" in site.registry.broken["good"]


def test_unknown_name_gets_near_matches(site: Site) -> None:
    site.install("thirdparty.good", thing("good"))
    with pytest.raises(BenchError, match=r"There is no thing 'godd'. Did you mean 'good'"):
        site.registry.get("godd")


def test_a_broken_plugin_is_named_when_asked_for(site: Site) -> None:
    site.points.append(EntryPoint("bad", "thirdparty.missing", "test.things"))
    with pytest.raises(BenchError, match="The thing 'bad' could not be imported: ModuleNotFoundError"):
        site.registry.get("bad")
    site.install("thirdparty.raises", thing("raises", before="raise RuntimeError('no luck')"), name="raises")
    with pytest.raises(BenchError, match="The thing 'raises' could not be imported: RuntimeError: no luck"):
        site.registry.get("raises")


def test_two_classes_cannot_share_a_name(site: Site) -> None:
    site.registry.register("twice")(type("A", (), {}))
    with pytest.raises(BenchError, match="Two things are called 'twice'"):
        site.registry.register("twice")(type("B", (), {}))


def test_two_plugins_with_one_name_are_reported(site: Site) -> None:
    site.install("thirdparty.good", thing("good", "First"))
    site.install("thirdparty.again", thing("good", "Second"), name="again")
    assert site.registry.names() == ["good"]
    assert site.registry.facts("good").title == "First"
    assert site.registry.broken["again"].startswith("its thing 'good' has the name of that in ")


def test_config_folders_beside_entry_points(site: Site, imported: Callable[[], set[str]]) -> None:
    site.install("thirdparty.good", thing("good"))
    site.points.append(EntryPoint("bad", "thirdparty.missing", "test.things"))
    (site.folder / "thirdparty" / "configs").mkdir()
    assert plugin_config_dirs("test.things") == [str(site.folder / "thirdparty" / "configs")]
    assert imported() == set()
