"""The checks of ``python -m bench check`` on every registered method."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from bench.check import check_method
from bench.config import RunConfig
from bench.contract import methods
from methods.hcflow.flow import Hcflow
from methods.hcflow.method import flow_config
from methods.sr3.unet import Sr3Config, Sr3Unet


def overrides(name: str, scale: int, folder: Path) -> list[str]:
    """Few steps, which the contract does not depend on, and random weights where none are shipped."""
    if name == "dps":
        return ["methods.dps.steps=4"]
    if name == "sr3":
        torch.manual_seed(0)
        settings = OmegaConf.to_container(OmegaConf.load("configs/sr3/small64.yaml"))
        save_file(Sr3Unet(Sr3Config(**settings)).state_dict(), folder / "sr3.safetensors")
        return ["methods.sr3.steps=4", f"methods.sr3.weights.x{scale}={folder}/sr3.safetensors"]
    if name == "hcflow":
        flows: dict[str, Any] = OmegaConf.to_container(OmegaConf.load("configs/hcflow/small64.yaml"))
        model = Hcflow(flow_config(flows, scale))
        save_file(model.state_dict(), folder / "hcflow.safetensors")
        return [f"methods.hcflow.weights.x{scale}={folder}/hcflow.safetensors"]
    return []


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("name", methods.names())
def test_method_keeps_the_contract(name: str, scale: int, configure: Callable[..., RunConfig], tmp_path: Path) -> None:
    words = [f"methods=[{name}]", f"scale={scale}", *overrides(name, scale, tmp_path)]
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
