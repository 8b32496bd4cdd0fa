from collections.abc import Callable, Iterator

import pytest

from bench.config import MethodConfig, RunConfig
from bench.contract import Method, methods, register_method
from tests.bench.run.noisy import Noisy


@pytest.fixture(autouse=True)
def _nothing_drawn() -> None:
    Noisy.drawn = 0


@pytest.fixture
def add() -> Iterator[Callable[[type[Method], RunConfig], RunConfig]]:
    """Register a class as `misfit` for one test and return a configuration that runs it."""

    def register(cls: type[Method], config: RunConfig, *others: str) -> RunConfig:
        register_method("misfit")(cls)
        entries = (MethodConfig("misfit", "misfit", {}), *(MethodConfig(o, o, {}) for o in others))
        return config.model_copy(update={"methods": entries})

    yield register
    methods._items.pop("misfit", None)
