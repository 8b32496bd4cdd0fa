"""Everything stays on its device: run on fake CUDA tensors, which need no GPU and fail where two devices meet.

DPS is not among them: diffusers' scheduler looks at values, which fake tensors do not have. So do the checks of values
in `Method.sample`, which are left out here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.config import RunConfig
from bench.contract import Method, Noise
from bench.load import make_method
from bench.metrics import Evaluation, load_metrics
from bench.metrics.perceptual import from_stlpips
from bench.metrics.stlpips import load_weights
from bench.network import NetworkMethod
from bench.operators.bicubic import Bicubic
from bench.training.config import read_training
from bench.training.trainable import trainables

GPU = torch.device("cuda", 0)
METRICS = ["stlpips_alex", "brisque", "apd_mse", "apd_stlpips_alex", "diversity_stlpips_alex"]  # piq looks at values


class GpuNoise:
    """As BatchNoise, whose generator would need a GPU."""

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, device=GPU)

    def uniform(self, *shape: int) -> torch.Tensor:
        return torch.rand(2, *shape, device=GPU)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fake tensors, and modules that can be moved to a GPU that is not there."""

    def to(self: torch.nn.Module, *arguments: object, **options: object) -> torch.nn.Module:
        if GPU not in arguments:
            return self
        for module in self.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    empty = torch.empty(p.shape, dtype=p.dtype, device=GPU)
                    module._parameters[name] = torch.nn.Parameter(empty, requires_grad=p.requires_grad)
            for name, b in module._buffers.items():
                if b is not None:
                    module._buffers[name] = torch.empty(b.shape, dtype=b.dtype, device=GPU)
        return self

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def test_the_pretence_finds_mistakes(pretend: None) -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, device=GPU) + torch.ones(2)


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("name", ["bicubic", "hcflow", "cvdvae", "sr3"])
def test_methods(
    configure: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
    name: str, scale: int,
) -> None:  # fmt: skip
    steps = ["methods.sr3.steps=3"] if name == "sr3" else []
    method = make_method(configure(f"methods=[{name}]", *steps).methods[0])
    module = importlib.import_module(type(method).__module__)
    monkeypatch.setattr(module, "load_weights", lambda *_, **__: Path("none"), raising=False)
    for check in ("_check_observed", "_check_range"):
        for cls in (Method, NetworkMethod):
            monkeypatch.setattr(cls, check, lambda self, x: None)
    request.getfixturevalue("pretend")
    method.prepare(Bicubic(64, scale), GPU)
    y = torch.rand(2, 3, 64 // scale, 64 // scale, device=GPU)
    n = 1 if method.facts.deterministic else 3
    x = method.sample(y, n, 0.8, Noise(0, ["a", "b"], range(n), GPU))
    assert (x.device, x.dtype, tuple(x.shape)) == (GPU, torch.float32, (2, n, 3, 64, 64))


@pytest.mark.parametrize("name", ["diffusion", "sr3", "hcflow", "vdvae", "cvdvae"])
def test_training(name: str, request: pytest.FixtureRequest) -> None:
    words = [f"recipe={name}", "dataset=synthfaces", "device=cpu"]
    with initialize_config_module("configs", version_base="1.3"):
        module, _ = read_training(compose("train", [*words, *(["scale=8"] if trainables.get(name).scaled else [])]))
    request.getfixturevalue("pretend")
    module.to(GPU)
    x = torch.rand(2, 3, 64, 64, device=GPU)
    y = Bicubic(64, 8, device=GPU).observe(x) if module.scaled else None
    module.initialise(x, y, GpuNoise())  # type: ignore[arg-type]
    assert {v.device for v in module(x, y, GpuNoise()).values()} == {GPU}  # type: ignore[arg-type]


def test_metrics(request: pytest.FixtureRequest) -> None:
    loaded = load_metrics(METRICS, "cpu")
    weights = load_weights("cpu")
    request.getfixturevalue("pretend")
    x = torch.rand(2, 3, 64, 64, device=GPU)
    operator = Bicubic(64, 8, device=GPU)
    e = Evaluation(x, operator.observe(x), torch.rand(2, 3, 3, 64, 64, device=GPU), operator)
    for name, metric in loaded.items():
        if hasattr(metric, "net"):
            metric.net = from_stlpips({k: w.to(GPU) for k, w in weights.items()})
        assert metric(e).device == GPU, name
