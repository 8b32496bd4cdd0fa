"""`Method.sample` alone: what it checks, what it adds to an author's `draw`, and what it leaves out."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.contract import Facts, Method, Noise, UnusableSamples
from bench.errors import BenchError
from bench.network import NetworkMethod
from bench.operators import Operator
from bench.operators.average import Average
from bench.operators.bicubic import Bicubic, enlarge
from bench.run.draw import Sampler, finite_images
from methods.bicubic import Bicubic as Enlargement


class Grainy(Method):
    """Enlargement plus noise, through a network whose weights ask for gradients."""

    facts = Facts(title="Grainy", scales=(2, 4), operators=("bicubic",), sigmas=(0.0, 0.1))

    def load(self) -> None:
        self.gain = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(self.gain.weight)
        torch.nn.init.zeros_(self.gain.bias)

    def draw(self, y, n, tau, noise):
        self.seen_tau = tau
        grain = 0.1 * (1.0 if tau is None else tau) * noise.normal(3, *self.operator.size)
        x = enlarge(y, self.operator.size)[:, None] + grain
        return self.operator.clip(self.gain(x[..., None])[..., 0])


class Cold(Grainy):
    facts = Facts(title="Cold", uses_tau=False)


def returns(change: Callable[[Tensor], Tensor]) -> Method:
    """A prepared method whose samples are changed at last."""

    class Changed(Grainy):
        def draw(self, y, n, tau, noise):
            return change(super().draw(y, n, tau, noise))

    return Changed().prepare(Bicubic(16, 4))


@pytest.fixture
def method() -> Grainy:
    return Grainy().prepare(Bicubic(16, 4))


@pytest.fixture
def y() -> Tensor:
    return torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_it_needs_nothing_but_y_and_n(method: Grainy, y: Tensor) -> None:
    x = method.sample(y, 5)
    assert (x.shape, x.dtype) == ((3, 5, 3, 16, 16), torch.float32)
    assert method.seen_tau == 1.0
    method.sample(y, 5, 0.8)
    assert method.seen_tau == 0.8


def test_equal_calls_are_equal_and_keyed_by_content(method: Grainy, y: Tensor) -> None:
    x = method.sample(y, 3, 0.8)
    torch.manual_seed(1)
    assert torch.equal(method.sample(y.clone(), 3, 0.8), x)
    assert torch.equal(x, method.sample(y, 3, 0.8, Noise.of_content(y, 3)))
    assert torch.equal(method.sample(y.flip(0), 3, 0.8), x.flip(0))  # wherever an image stands
    assert torch.equal(method.sample(y[1:2], 3, 0.8), x[1:2])  # whatever stands beside it
    assert torch.equal(method.sample(y, 5, 0.8)[:, :3], x)  # however many samples are asked for
    twice = method.sample(y[[0, 0]], 1, 0.8)
    assert torch.equal(twice[0], twice[1])
    grain = x[:, 0] - enlarge(y, (16, 16))
    assert (grain[0] - grain[1]).abs().max() > 0.1  # another image has other noise
    other = y.clone()
    other[0, 0, 0, 0] += 1e-6
    assert (method.sample(other, 3, 0.8)[0] - x[0]).abs().max() > 0.1


def test_noise_of_the_caller_is_used(method: Grainy, y: Tensor) -> None:
    x = method.sample(y, 2, 0.8, Noise(0, ["a", "b", "c"], range(2)))
    assert torch.equal(method.sample(y[2:], 1, 0.8, Noise(0, ["c"], [1]))[0, 0], x[2, 1])
    with pytest.raises(BenchError, match="for 1 images and 2 samples, not 3 and 2"):
        method.sample(y, 2, 0.8, Noise(0, ["a"], range(2)))


def test_no_gradients_are_kept(method: Grainy, y: Tensor) -> None:
    x = method.sample(y.requires_grad_(), 2)
    assert not x.requires_grad
    assert x.grad_fn is None
    assert torch.is_grad_enabled()


def test_an_author_can_ask_for_gradients_within(y: Tensor) -> None:
    class Guided(Grainy):
        def draw(self, y, n, tau, noise):
            with torch.enable_grad():
                leaf = super().draw(y, n, tau, noise).requires_grad_()
                return leaf - 0.001 * torch.autograd.grad(leaf.square().sum(), leaf, create_graph=True)[0]

    assert not Guided().prepare(Bicubic(16, 4)).sample(y, 1, 0.1).requires_grad


def test_a_method_without_a_temperature_ignores_it(y: Tensor) -> None:
    method = Cold().prepare(Bicubic(16, 4))
    x = method.sample(y, 2)
    for tau in (0.5, 0.0, 7.0):
        assert torch.equal(method.sample(y, 2, tau), x)
        assert method.seen_tau is None


@pytest.mark.parametrize("tau", [0.0, -0.1, 1.01, float("nan"), "a", [0.5]])
def test_a_temperature_out_of_range(method: Grainy, y: Tensor, tau: Any) -> None:
    with pytest.raises(BenchError, match="is not a number above 0 and up to 1"):
        method.sample(y, 2, tau)


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2", None])
def test_a_wrong_number_of_samples(method: Grainy, y: Tensor, n: Any) -> None:
    with pytest.raises(BenchError, match=f"got 3 and n={n}"):
        method.sample(y, n)


def test_numbers_may_be_those_of_numpy(method: Grainy, y: Tensor) -> None:
    assert torch.equal(method.sample(y, np.int64(2), np.float64(0.8)), method.sample(y, 2, 0.8))  # type: ignore[arg-type]


def test_what_is_no_noise(method: Grainy, y: Tensor) -> None:
    with pytest.raises(BenchError, match=r"noise=5 is no source of noise: give bench\.contract\.Noise"):
        method.sample(y, 2, 0.8, 5)  # type: ignore[arg-type]
    with pytest.raises(BenchError, match="The noise is on meta, not on cpu"):
        method.sample(y, 2, 0.8, Noise(0, ["a", "b", "c"], range(2), "meta"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda y: y[0], r"expects y of the shape \[B, 3, 4, 4\], got \[3, 4, 4\]"),
        (lambda y: y[:, :1], r"got \[3, 1, 4, 4\]"),
        (lambda y: y[..., :3], r"got \[3, 3, 4, 3\]"),
        (lambda y: y.numpy(), "got ndarray"),
        (lambda y: y[:0], "needs one image and one sample at least, got 0"),
        (lambda y: y.double(), r"expects y as torch\.float32 on cpu, got torch\.float64"),
        (lambda y: (255 * y).byte(), r"got torch\.uint8"),
        (lambda y: 255 * y, "expects y between 0 and 1, got values from"),
        (lambda y: y - 0.5, "expects y between 0 and 1"),
        (lambda y: y.log() * torch.tensor([0.0, 1, 1])[:, None, None, None] / 0, "NaN or infinite"),
        (lambda y: y / 0, "NaN or infinite"),
    ],
)
def test_a_wrong_observation(method: Grainy, y: Tensor, change: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        method.sample(change(y), 2)


def test_an_observation_with_noise_may_leave_the_range(y: Tensor) -> None:
    noisy = Grainy().prepare(Bicubic(16, 4, sigma=0.1))
    assert noisy.sample(y - 0.3, 1).min() >= 0
    with pytest.raises(BenchError, match="NaN or infinite"):
        noisy.sample(y / 0, 1)
    anything = Grainy().prepare(Bicubic(16, 4, range=None))
    assert anything.sample(100 * y, 1).max() > 10


def test_it_must_be_prepared(y: Tensor) -> None:
    with pytest.raises(BenchError, match="Grainy is not prepared"):
        Grainy().sample(y, 1)


@pytest.mark.parametrize(
    ("operator", "sentence"),
    [
        (Average(16, 4), r"Grainy does not do operator=average: it does bicubic x2, x4 sigma 0, 0\.1"),
        (Bicubic(16, 8), "Grainy does not do scale=8"),
        (Bicubic(16, 4, sigma=0.05), r"Grainy does not do operator\.sigma=0\.05"),
    ],
)
def test_an_operator_that_is_not_declared_is_refused(operator: Operator, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        Grainy().prepare(operator)


def test_a_posterior_that_is_needed() -> None:
    class Oracle(Grainy):
        facts = Facts(title="Oracle", needs_posterior=True)

    with pytest.raises(BenchError, match="Oracle needs images whose posterior is known"):
        Oracle().prepare(Bicubic(16, 4))
    assert Oracle().prepare(Bicubic(16, 4), posterior="known").posterior == "known"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x: x[:, 0], r"returned the shape \[3, 3, 16, 16\], expected \[3, 2, 3, 16, 16\]"),
        (lambda x: x.numpy(), "returned the shape ndarray"),
        (lambda x: x.double(), r"returned torch\.float64 on cpu"),
        (lambda x: 255 * x, "returned values from .*, expected 0 to 1"),
        (lambda x: x - 1e-3 - x.min(), "expected 0 to 1"),
    ],
)
def test_a_broken_contract_is_one_sentence(y: Tensor, change: Callable[[Tensor], Tensor], sentence: str) -> None:
    with pytest.raises(BenchError, match=f"broke the contract: it {sentence}|{sentence}"):
        returns(change).sample(y, 2)


def spoil(value: float, factor: float = 1.0) -> Callable[[Tensor], Tensor]:
    """A value in the first image, a factor for the last."""

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[0, 0, 0, 0, 0] = value
        x[-1] *= factor
        return x

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_an_image_that_fails_costs_itself_alone(method: Grainy, y: Tensor, value: float) -> None:
    with pytest.warns(UnusableSamples) as said:
        x = returns(spoil(value)).sample(y, 2)
    assert not x[0].isfinite().all()
    assert torch.equal(x[1:], method.sample(y, 2)[1:])
    assert "Changed failed for 1 of 3 images, y[0]: samples of them are NaN or infinite" in str(said[0].message)
    assert said[0].filename == __file__


def test_nothing_is_said_of_good_samples_nor_in_a_run_that_records_them(method: Grainy, y: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.sample(y, 2)
        x = Sampler(returns(spoil(float("nan"))), "grainy", seed=0, n=2)(y, ["a", "b", "c"], 0.8)
    assert finite_images(x).tolist() == [False, True, True]


class Learned(NetworkMethod):
    """Enlargement that is declared to be a network."""

    facts = Facts(title="Learned")

    def draw(self, y, n, tau, noise):
        return self.finish(enlarge(y, self.operator.size)[:, None].repeat(1, n, 1, 1, 1), y)


def test_a_network_refuses_images_of_another_range(y: Tensor) -> None:
    for settings in ({"range": (0.0, 255.0)}, {"range": (-1.0, 1.0)}):
        with pytest.raises(BenchError, match=r"has a network for images in \[0, 1\], not for operator.range=\["):
            Learned().prepare(Bicubic(16, 4, **settings))
        assert Enlargement().prepare(Bicubic(16, 4, **settings)).operator.range == settings["range"]
    unbounded = Learned().prepare(Bicubic(16, 4, range=None))
    assert unbounded.sample(1.6 * y - 0.3, 1).shape == (3, 1, 3, 16, 16)  # as images of `gaussians`
    noisy = Learned().prepare(Bicubic(16, 4, sigma=0.5))
    assert noisy.sample(y + 2.5, 1).max() <= 1
    for method, other in ((unbounded, 9 * y - 4), (unbounded, 255 * y), (noisy, 255 * y)):
        with pytest.raises(BenchError, match=r"and y has values from .*: scale the images, y and sigma"):
            method.sample(other, 1)


@pytest.mark.filterwarnings("ignore::bench.contract.UnusableSamples")
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_image_that_fails_does_not_hide_another(y: Tensor, value: float) -> None:
    with pytest.raises(BenchError, match="returned values from"):
        returns(spoil(value, factor=255)).sample(y, 2)


def test_rounding_beyond_the_range_is_allowed(y: Tensor) -> None:
    assert returns(lambda x: x + (1 - x.max()) + 5e-6).sample(y, 2).max() > 1


@pytest.mark.parametrize("operator", [Bicubic((16, 24), 4), Average((24, 16), 2)])
def test_bicubic_takes_any_operator_and_sides(operator: Operator) -> None:
    y = torch.rand(2, 3, *operator.low_size)
    x = Enlargement().prepare(operator).sample(y, 2)
    assert x.shape == (2, 2, 3, *operator.size)
    expected = torch.stack([enlarge(image, operator.size) for image in y]).clamp(0, 1)
    torch.testing.assert_close(x[:, 1], expected)
    turned = Enlargement().prepare(type(operator)(operator.size[::-1], operator.scale)).sample(y.mT.contiguous(), 1)
    torch.testing.assert_close(turned[:, 0].mT, x[:, 0])
