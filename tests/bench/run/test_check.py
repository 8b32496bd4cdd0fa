"""Every check must catch the fault it is there for."""

import re
from collections.abc import Callable, Iterator

import pytest
import torch

from bench.config import MethodConfig, RunConfig, compose, read_config
from bench.contract import Facts, Method, methods, register_method
from bench.operators.bicubic import enlarge
from bench.run.check import CHECKS, check_method

leak: list[torch.Tensor] = []


class Good(Method):
    facts = Facts(title="Good")

    def draw(self, y, n, tau, noise):
        return (enlarge(y, self.operator.size)[:, None] + 0.05 * tau * noise.normal(3, 64, 64)).clamp(0, 1)


class WrongShape(Good):
    def draw(self, y, n, tau, noise):
        return super().draw(y, n, tau, noise)[:, 0]


class WrongDtype(Good):
    def draw(self, y, n, tau, noise):
        return super().draw(y, n, tau, noise).double()


class Nan(Good):
    def draw(self, y, n, tau, noise):
        return super().draw(y, n, tau, noise) * torch.nan


class Bytes(Good):
    def draw(self, y, n, tau, noise):
        return super().draw(y, n, tau, noise) * 255


class InPlace(Good):
    def draw(self, y, n, tau, noise):
        x = super().draw(y, n, tau, noise)
        y.zero_()
        return x


class GlobalNoise(Good):
    def draw(self, y, n, tau, noise):
        return (enlarge(y, self.operator.size)[:, None] + 0.05 * tau * torch.randn(len(y), n, 3, 64, 64)).clamp(0, 1)


class SecretNoise(Good):
    generator = torch.Generator().manual_seed(0)

    def draw(self, y, n, tau, noise):
        extra = torch.randn(1, generator=self.generator)
        return (super().draw(y, n, tau, noise) + 0.05 * extra).clamp(0, 1)


class BatchNorm(Good):
    def draw(self, y, n, tau, noise):
        x = super().draw(y, n, tau, noise)
        return (x - x.mean() + 0.5).clamp(0, 1)


class LastImageOnly(Good):
    def draw(self, y, n, tau, noise):
        return super().draw(y, n, tau, noise)[-1:].expand(len(y), -1, -1, -1, -1).clone()


class Coupled(Good):
    def draw(self, y, n, tau, noise):
        x = super().draw(y, n, tau, noise)
        return (x - x.mean(1, keepdim=True) + 0.5).clamp(0, 1)


class Collapsed(Good):
    def draw(self, y, n, tau, noise):
        return super().draw(y, n, tau, noise)[:, :1].expand(-1, n, -1, -1, -1).clone()


class ColdIsHot(Good):
    def draw(self, y, n, tau, noise):
        return super().draw(y, n, 1.1 - tau, noise)


class Leaks(Good):
    def draw(self, y, n, tau, noise):
        x = super().draw(y, n, tau, noise)
        leak.append(x)
        return x.clone()


class Crashes(Good):
    def draw(self, y, n, tau, noise):
        raise ValueError("no such luck")


@pytest.fixture
def verdicts(configure: Callable[..., RunConfig]) -> Iterator[Callable[[type[Method]], dict[str, str]]]:
    def check(cls: type[Method]) -> dict[str, str]:
        register_method("subject")(cls)
        config = configure("scale=4", config="check").model_copy(
            update={"methods": (MethodConfig("subject", "subject", {}),)}
        )
        return {r.name: r.verdict for r in check_method(config)}

    yield check
    methods._items.pop("subject", None)
    leak.clear()


def test_a_good_method_passes_everything(verdicts: Callable[[type[Method]], dict[str, str]]) -> None:
    found = verdicts(Good)
    assert set(found) == {"sample runs", *CHECKS}
    assert "fail" not in found.values()


@pytest.mark.parametrize(
    ("cls", "check"),
    [
        (WrongShape, "shape, dtype and device"),
        (WrongDtype, "shape, dtype and device"),
        (Nan, "finite"),
        (Bytes, "range"),
        (InPlace, "no side effects"),
        (GlobalNoise, "no side effects"),
        (GlobalNoise, "deterministic given the noise"),
        (SecretNoise, "deterministic given the noise"),
        (BatchNorm, "independent of the batch"),
        (LastImageOnly, "independent of the batch"),
        (LastImageOnly, "independent of the order"),
        (Coupled, "independent of the other samples"),
        (Collapsed, "samples are distinct"),
        (ColdIsHot, "temperature"),
        (Leaks, "memory is released"),
        (Crashes, "sample runs"),
    ],
)
def test_faults_are_caught(cls: type[Method], check: str, verdicts: Callable[[type[Method]], dict[str, str]]) -> None:
    assert verdicts(cls)[check] == "fail"


def test_consistency_has_its_right_value_where_y_has_noise() -> None:
    """Images of `gaussians` have no range: clipped, the oracle would be far from y."""
    words = ["methods=[oracle]", "dataset=gaussians", "dataset.size=32", "scale=4", "device=cpu"]
    found = {}
    for sigma in ("0", "0.05"):
        results = check_method(read_config(compose("run", [*words, f"operator.sigma={sigma}"])))
        found[sigma] = next(r.detail for r in results if r.name == "consistency with y")
    decibels = {sigma: float(re.findall(r"LR-PSNR ([\d.]+) dB", detail)[0]) for sigma, detail in found.items()}
    assert decibels["0"] == pytest.approx(80, abs=0.1)
    assert decibels["0.05"] == pytest.approx(26.02, abs=1.5)
    assert found["0.05"].endswith("of a perfect sampler 26.02 dB")
    assert "perfect" not in found["0"]
