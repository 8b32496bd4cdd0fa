"""The sampler against a known distribution, the loss against closed forms, the network against the public one."""

import math
from collections.abc import Callable, Sequence
from itertools import chain, pairwise, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.config import compose, plain
from bench.contract import Noise
from bench.errors import BenchError
from bench.operators.bicubic import Bicubic
from bench.run.check import check_method
from bench.settings import build
from bench.training.trainable import BatchNoise
from methods.diffusion.prior import Levels
from methods.sr3.checkpoints import SCHEDULE, load_weights
from methods.sr3.condition import upsample
from methods.sr3.method import Sr3
from methods.sr3.sampler import ALPHA_BAR, moves_of, sample, signal_levels
from methods.sr3.training import Sr3Training
from methods.sr3.unet import Sr3Config, Sr3Unet

TINY = {"size": 32, "channels": 32, "multipliers": [1, 2], "attention": [16], "groups": 16}


def filled(config: Sr3Config) -> Sr3Unet:
    """Weights by name, reproducible on any machine."""
    network = Sr3Unet(config).eval()
    for i, (name, p) in enumerate(sorted(network.named_parameters())):
        drawn = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
        with torch.no_grad():
            p.copy_(p[0].numel() ** -0.5 * drawn if p.ndim > 1 else 0.05 * drawn + float("0.weight" in name))
    return network


class ExactNetwork(torch.nn.Module):
    """The exact noise for images that are `condition` plus white Gaussian noise of standard deviation `std`."""

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x, condition, level):
        signal = level[:, None, None, None].double()
        variance = signal**2 * self.std**2 + 1 - signal**2
        return ((1 - signal**2).sqrt() / variance * (x - signal * condition)).float()


def generators(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(n)]


def drawn_after(start: Tensor, drawn: Sequence[torch.Generator] = ()) -> Callable[[], Tensor]:
    """The start, then noise from a generator for each row."""
    later = (torch.stack([torch.randn(start.shape[1:], generator=g) for g in drawn]) for _ in repeat(0))
    draws = chain([start], later)
    return lambda: next(draws)


def sampling_levels(steps: int) -> list[float]:
    """alpha_bar of the start and after every step."""
    levels = Levels(ALPHA_BAR)
    return [levels.kept(moves_of(steps)[0][0]), *(levels.kept(u) for _, u in moves_of(steps))]


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_the_exact_network_gives_the_data_distribution(sampler: str) -> None:
    start = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = torch.full_like(start, 0.3)
    x = sample(ExactNetwork(0.1), moves_of(2000), condition, drawn_after(start, generators(64)), sampler)
    assert x.mean().item() == pytest.approx(0.3, abs=0.01)
    assert x.std().item() == pytest.approx(0.1, rel=0.05)


def test_the_public_networks_figures() -> None:
    """Made by its UNet with the weights of `filled`, whose names it shares."""
    generator = torch.Generator().manual_seed(0)
    x, condition = (torch.randn(1, 3, 32, 32, generator=generator) for _ in range(2))
    with torch.no_grad():
        out = filled(Sr3Config(**TINY))(x, condition, torch.tensor([0.7]))
    assert out.mean().item() == pytest.approx(-0.0696268, abs=1e-5)
    assert out.std().item() == pytest.approx(0.5449685, abs=1e-5)
    assert out[0, :, 5, 7].tolist() == pytest.approx([0.2646922, 0.1761379, -0.2262984], abs=1e-5)
    assert out[0, :, 20, 30].tolist() == pytest.approx([-0.3275300, -0.3982242, 0.1469001], abs=1e-5)


def test_the_schedule_is_the_published_one() -> None:
    levels = signal_levels()
    assert len(levels) == 2001
    beta = [1e-6 + (1e-2 - 1e-6) * i / 1999 for i in range(2000)]
    assert levels[-1].item() == pytest.approx(math.exp(0.5 * sum(math.log1p(-b) for b in beta)), rel=1e-9)
    assert sampling_levels(2000)[-2:] == [pytest.approx(1 - 1e-6, abs=1e-12), 1]


def test_ddim_is_deterministic_and_a_batch_gives_every_image() -> None:
    network = filled(Sr3Config(**TINY))
    start, condition = torch.randn(3, 3, 32, 32), torch.rand(3, 3, 32, 32)
    batch = sample(network, moves_of(4), condition, drawn_after(start), "ddim")
    last = sample(network, moves_of(4), condition[2:], drawn_after(start[2:]), "ddim")
    torch.testing.assert_close(batch[2:], last, atol=1e-4, rtol=0)
    assert (batch[0] - batch[1]).abs().max() > 0.1


STEPS = (2, 3, 7, 10, 50, 2000)


@pytest.mark.parametrize("steps", STEPS)
def test_the_levels_run_from_the_noisiest_to_the_cleanest(steps: int) -> None:
    """Those of diffusers' "linspace": the 2000 steps from the last to the first, evenly spaced, rounded."""
    alpha_bar = signal_levels().square()
    stride = 1999 / (steps - 1)
    expected = [float(alpha_bar[1 + round(1999 - i * stride)]) for i in range(steps)]
    levels = sampling_levels(steps)
    assert levels[:-1] == pytest.approx(expected, rel=1e-12)
    ends = [levels[0], levels[-2], levels[-1]]
    assert ends == pytest.approx([float(alpha_bar[-1]), float(alpha_bar[1]), 1.0], rel=1e-12)
    assert all(b > a for a, b in pairwise(levels))


class Knows(torch.nn.Module):
    """The exact noise of the noisy image of a known clean one, and the levels and images it was asked about.

    The level that it is told is float32, in which 1 - 1e-6 has an error of 6% in the noise: it knows the exact ones.
    """

    def __init__(self, x0: Tensor, levels: list[float]) -> None:
        super().__init__()
        self.x0, self.levels = x0, levels
        self.asked: list[tuple[float, Tensor]] = []

    def forward(self, x, condition, level):
        kept = self.levels[len(self.asked)]
        self.asked.append((float(level[0]), x))
        return (x - kept**0.5 * self.x0) / (1 - kept) ** 0.5


@pytest.mark.parametrize("steps", [s for s in STEPS if s < 2000])
def test_ddim_recovers_the_image_from_any_number_of_steps(steps: int) -> None:
    """All on one line from the start to the image: what a step leaves is noise of the level that the next one asks."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(2, 3, 8, 8, generator=generator) * 1.8 - 0.9
    eps = torch.randn(2, 3, 8, 8, generator=generator)
    levels = sampling_levels(steps)
    network = Knows(x0, levels)
    start = levels[0] ** 0.5 * x0 + (1 - levels[0]) ** 0.5 * eps
    x = sample(network, moves_of(steps), x0, drawn_after(start), "ddim")
    torch.testing.assert_close(x, x0, atol=1e-5, rtol=0)
    assert [level for level, _ in network.asked] == pytest.approx([kept**0.5 for kept in levels[:-1]])
    for kept, (_, asked) in zip(levels[:-1], network.asked, strict=True):
        torch.testing.assert_close(asked, kept**0.5 * x0 + (1 - kept) ** 0.5 * eps, atol=1e-4, rtol=0)


@pytest.mark.parametrize("steps", [2, 7, 10, 100])
def test_ancestral_steps_are_those_of_diffusers(steps: int) -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(
        2000, 1e-6, 1e-2, "linear", variance_type="fixed_small", clip_sample=True, timestep_spacing="linspace"
    )
    # in diffusers' float32, 1 - 1e-6 has an error of 6% in what matters
    scheduler.betas = torch.linspace(1e-6, 1e-2, 2000, dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    scheduler.set_timesteps(steps)
    start = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    condition = torch.full_like(start, 0.3)
    network, x, drawn = ExactNetwork(0.1), start, generators(2)
    for t in scheduler.timesteps:
        level = scheduler.alphas_cumprod[t].sqrt().float().expand(2)
        x = scheduler.step(network(x, condition, level), t, x, generator=drawn).prev_sample
    ours = sample(network, moves_of(steps), condition, drawn_after(start, generators(2)))
    torch.testing.assert_close(ours, x, atol=2e-6, rtol=0)


def test_the_loss_of_a_network_that_predicts_nothing() -> None:
    """The mean absolute value of a standard normal is sqrt(2 / pi); "sum" multiplies by the number of elements."""
    losses = {}
    for reduction in ("mean", "sum"):
        module = Sr3Training(Sr3Config(**TINY), scale=4, reduction=reduction)
        for p in module.network.final_conv.parameters():
            torch.nn.init.zeros_(p)
        noise = BatchNoise(0, 8, slice(0, 8), torch.device("cpu"))
        losses[reduction] = module(torch.rand(8, 3, 32, 32), torch.rand(8, 3, 8, 8), noise)["loss"].item()
    assert losses["mean"] == pytest.approx(math.sqrt(2 / math.pi), rel=0.02)
    assert losses["sum"] == pytest.approx(losses["mean"] * 3 * 32 * 32, rel=1e-4)


def test_a_velocity_network_and_patches_train() -> None:
    config = Sr3Config(**{**TINY, "patch": 2, "prediction": "velocity", "attention": [8]})
    module = Sr3Training(config, scale=4)
    noise = BatchNoise(0, 2, slice(0, 2), torch.device("cpu"))
    module(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 8, 8), noise)["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.trained().values())
    assert module.preview(torch.rand(2, 3, 32, 32), torch.rand(2, 3, 8, 8), noise).shape == (2, 3, 32, 32)


@pytest.mark.parametrize("condition", ["exact", "pil"])
def test_training_shows_the_network_the_chosen_enlargement(condition: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the network gets, in the loss and in the preview, is what the method gives it when it samples."""
    module, seen = Sr3Training(Sr3Config(**TINY), scale=4, condition=condition), []

    def network(x: Tensor, shown: Tensor, level: Tensor) -> Tensor:
        seen.append(shown)
        return x

    monkeypatch.setattr(module.network, "forward", network)
    x, y, noise = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 8, 8), BatchNoise(0, 2, slice(0, 2), torch.device("cpu"))
    module(x, y, noise)
    module.preview(x, y, noise)
    assert len(seen) > 2
    assert all(torch.equal(shown, upsample(y, (32, 32), condition)) for shown in seen)
    levels = (seen[0] + 1) * 127.5
    assert ((levels - levels.round()).abs().max() < 1e-3) == (condition == "pil")  # whole levels of 8 bits


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """In the public implementation's form: a prefix, and the schedule's buffers beside the network."""
    state = {f"denoise_fn.{k}": v for k, v in filled(Sr3Config(**TINY)).state_dict().items()}
    torch.save(state | {"betas": torch.zeros(2000)}, tmp_path / "I1_E1_gen.pth")
    return tmp_path / "I1_E1_gen.pth"


def make(path: Path, **settings) -> Sr3:
    values = {"unet": TINY, "weights": {"x4": str(path)}, "steps": 4, **settings}
    return build(Sr3, values, "methods.sr3", "sr3").prepare(Bicubic(32, 4))


def test_projection_removes_the_colour_shift(weights: Path) -> None:
    d, y = Bicubic(32, 4), 0.25 + 0.5 * torch.rand(1, 3, 8, 8)
    shift = {}
    for project in (True, False):
        x = make(weights, project=project, compute={"rows": 2}).sample(y, 2, None, Noise(0, ["a"], range(2)))
        assert x.shape == (1, 2, 3, 32, 32)
        shift[project] = (d.forward(x) - y[:, None]).mean((3, 4)).abs().max()
    assert shift[True] < shift[False]


def test_channels_last_and_batches_keep_the_result(weights: Path) -> None:
    y = torch.rand(2, 3, 8, 8)
    one = make(weights).sample(y, 2, None, Noise(0, ["a", "b"], range(2)))
    for settings in ({"rows": 3}, {"channels_last": True}):
        other = make(weights, compute=settings).sample(y, 2, None, Noise(0, ["a", "b"], range(2)))
        torch.testing.assert_close(other, one, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 1}, "steps=1 is wrong: it should be at least 2"),
        ({"compute": {"rows": 0}}, r"compute\.rows=0 is wrong"),
        ({"sampler": "euler"}, "sampler=euler is wrong: it should be 'ancestral' or 'ddim'"),
        ({"weights": {"x8": "a"}}, r"no weights for x4: train it with .* scale=4"),
        ({"weights": {"x4": "nowhere.pth"}}, r"nowhere\.pth do not exist"),
        ({"unet": {**TINY, "channels": 64}}, "does not fit the network"),
        ({"unet": {**TINY, "size": 64}}, "images of 64 pixels"),
    ],
)
def test_bad_settings_are_one_sentence(weights: Path, settings: dict, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        make(weights, **settings)


def test_weights_of_our_own_training_load(tmp_path: Path) -> None:
    network = filled(Sr3Config(**TINY))
    save_file({k: v.half() for k, v in network.state_dict().items()}, tmp_path / "weights.safetensors")
    other = Sr3Unet(Sr3Config(**TINY)).eval()
    load_weights(other, tmp_path / "weights.safetensors")
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(other(x, x, torch.tensor([0.5])), network(x, x, torch.tensor([0.5])), atol=0.01, rtol=0)


def test_published_size() -> None:
    with torch.device("meta"):
        network = Sr3Unet(Sr3Config())
    assert sum(p.numel() for p in network.parameters()) == 155_334_339


def pil_axis(source: int, scale: int) -> np.ndarray:
    """Keys' kernel (a = -0.5) at the output's positions; what lies outside of the image is left out."""
    centre = (np.arange(source * scale) + 0.5) / scale - 0.5
    d = np.abs(centre[:, None] - np.arange(source))
    weights = np.where(d <= 1, 1.5 * d**3 - 2.5 * d**2 + 1, np.where(d < 2, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2, 0))
    return weights / weights.sum(1, keepdims=True)


def test_the_public_condition_is_rounded_after_each_axis() -> None:
    """Against the kernel in float64: rows first. Pillow's weights are fixed-point numbers, so that ties may differ."""
    levels = torch.randint(0, 256, (2, 3, 16, 12), generator=torch.Generator().manual_seed(0))
    found = upsample(levels / 255, (128, 96), "pil")
    rounded = (np.floor(levels.double().numpy() @ pil_axis(12, 8).T + 0.5)).clip(0, 255)
    rounded = np.floor(pil_axis(16, 8) @ rounded + 0.5).clip(0, 255)
    difference = np.abs((found.numpy() + 1) * 127.5 - rounded)
    assert difference.max() < 1.01
    assert (difference > 0.01).mean() < 1e-3
    grey = (64 + levels // 2) / 255  # without overshoot, which is clipped after each axis, away from the borders
    inner = [upsample(grey, (128, 96), kind)[..., 20:-20, 20:-20] for kind in ("exact", "pil")]
    assert (inner[0] - inner[1]).abs().max() < 1.5 / 127.5


def check_words(path: Path, *words: str) -> list[str]:
    return ["methods=[sr3_128]", "scale=8", "limit=1", f"methods.sr3_128.weights.x8={path}", *words]


def write_public(path: Path, words: list[str]) -> Sr3Config:
    """Random weights in the form of the public I640000_E37_gen.pth: float32, the schedule's float32 buffers beside."""
    unet = plain(compose("run", words))["methods"]["sr3_128"]["unet"]
    config = Sr3Config(**unet)
    schedule = dict.fromkeys(SCHEDULE, torch.zeros(2000))
    torch.save({f"denoise_fn.{k}": v for k, v in filled(config).state_dict().items()} | schedule, path)
    return config


@pytest.mark.parametrize(
    "size", [pytest.param([], marks=pytest.mark.slow, id="128"), pytest.param([32, 32], id="a quarter")]
)
def test_the_public_network_keeps_the_contract(size: list[int], tmp_path: Path, configure) -> None:
    """Of `sr3_128`: at its size, and with half the channels at 32 pixels (from 4)."""
    path = tmp_path / "I640000_E37_gen.pth"
    side = size[0] if size else 128
    words = check_words(path, f"dataset.size={side}", "methods.sr3_128.steps=2", "dataset.split=val")
    words += [f"methods.sr3_128.unet.size={side}", f"methods.sr3_128.unet.channels={size[1]}"] if size else []
    config = write_public(path, words)
    if not size:
        assert sum(p.numel() for p in Sr3Unet(config).parameters()) == 97_807_491
    results = list(check_method(configure(*words, config="check")))
    assert [f"{r.name}: {r.detail}" for r in results if r.verdict == "fail"] == []
    assert len(results) == 13
