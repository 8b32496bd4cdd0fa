"""The checks of ``python -m bench check`` on every registered method."""

from collections.abc import Callable

import pytest

from bench.config import RunConfig
from bench.contract import methods
from bench.run.check import check_method

STEPPING = ("daps", "ddnm", "ddrm", "deepinv_sampler", "diffpir", "dps", "pigdm", "pnpdm", "reddiff", "sr3")
FEW_STEPS = {name: [f"methods.{name}.steps=4"] for name in STEPPING}
FEW_STEPS["daps"] += ["methods.daps.ode_steps=1", "methods.daps.langevin_steps=5"]
FEW_STEPS["pnpdm"] += ["methods.pnpdm.inner=4"]
"""The contract does not depend on their number."""
WITH_WEIGHTS = [n for n in methods.names() if n != "diffusers_pipeline"]
"""No weights come with that one: test_diffusers_pipeline.py runs the contract on tiny pipelines."""


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_method_keeps_the_contract(name: str, scale: int, configure: Callable[..., RunConfig]) -> None:
    if name == "deepinv_sampler":
        pytest.importorskip("deepinv")
    words = [f"methods=[{name}]", f"scale={scale}", *FEW_STEPS.get(name, [])]
    if methods.facts(name).needs_posterior:
        words += ["dataset=gaussians", "dataset.size=32", "operator.sigma=0.05"]
    results = list(check_method(configure(*words, config="check")))
    assert len(results) == 13
    failed = [f"{r.name}: {r.detail}" for r in results if r.verdict == "fail"]
    assert not failed


@pytest.mark.parametrize("name", methods.names())
def test_facts_are_complete(name: str) -> None:
    facts = methods.get(name).facts
    assert facts.title
    assert facts.citation
    assert facts.weights_licence
    assert facts.evaluations >= 0


def test_no_plugin_is_broken() -> None:
    methods.names()
    assert not methods.broken
