import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.registry import Registry, plugin_config_dirs


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[object]:
    """A registry over an empty package, and an installed plugin that registers itself there."""
    package = tmp_path / "emptypackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (tmp_path / "thirdparty").mkdir()
    (tmp_path / "thirdparty" / "__init__.py").write_text("")
    (tmp_path / "thirdparty" / "good.py").write_text(
        "from registry_of_test import r\n@r.register('good')\nclass Good: pass\n"
    )
    (tmp_path / "thirdparty" / "configs").mkdir()
    (tmp_path / "registry_of_test.py").write_text(
        "from bench.registry import Registry\nr = Registry('thing', package='emptypackage', group='test.things')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    points = (
        EntryPoint("good", "thirdparty.good", "test.things"),
        EntryPoint("bad", "thirdparty.missing", "test.things"),
    )
    monkeypatch.setattr("bench.registry.entry_points", lambda group: points if group == "test.things" else ())
    import registry_of_test

    yield registry_of_test.r
    for name in [m for m in sys.modules if m.split(".")[0] in ("thirdparty", "emptypackage", "registry_of_test")]:
        del sys.modules[name]


def test_entry_points_are_found_by_name(plugin: Registry[object]) -> None:
    assert plugin.get("good").__name__ == "Good"


def test_a_broken_plugin_does_not_take_the_others_down(plugin: Registry[object]) -> None:
    assert plugin.names() == ["good"]
    assert "missing" in plugin.broken["bad"]


def test_unknown_name_gets_near_matches(plugin: Registry[object]) -> None:
    with pytest.raises(BenchError, match=r"There is no thing 'godd'. Did you mean 'good'"):
        plugin.get("godd")


def test_a_broken_plugin_is_named_when_asked_for(plugin: Registry[object]) -> None:
    with pytest.raises(BenchError, match=r"could not be imported: .*No module named 'thirdparty\.missing'"):
        plugin.get("bad")


def test_two_classes_cannot_share_a_name(plugin: Registry[object]) -> None:
    plugin.register("twice")(type("One", (), {}))
    with pytest.raises(BenchError, match="Two things are called 'twice'"):
        plugin.register("twice")(type("Other", (), {}))


def test_config_folders_beside_entry_points(plugin: Registry[object], tmp_path: Path) -> None:
    assert plugin_config_dirs("test.things") == [str(tmp_path / "thirdparty" / "configs")]
