"""Exact inverse, log-determinants against autograd's Jacobian, and the official network's figures."""

import math
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from bench.contract import Noise
from bench.errors import BenchError
from bench.network import Compute
from bench.operators.bicubic import Bicubic
from bench.settings import build
from bench.training.trainable import BatchNoise
from methods.hcflow.checkpoints import load_weights
from methods.hcflow.flow import ActNorm, Coupling, FlowStep, Hcflow, HcflowConfig, gaussian_log_prob
from methods.hcflow.method import HcflowMethod
from methods.hcflow.training import HcflowTraining

TINY = HcflowConfig(levels=2, steps=3, conditional=2, hidden=8, features=8, growth=4, blocks=(1, 1))
FLOWS = {"x4": TINY, "x8": TINY.model_copy(update={"levels": 3})}


def filled(scale: int) -> Hcflow:
    """Weights by name, reproducible on any machine, and no part of the flow the identity."""
    model = Hcflow(FLOWS[f"x{scale}"]).eval()
    for i, (name, p) in enumerate(sorted(model.named_parameters())):
        drawn = torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
        with torch.no_grad():
            if name.endswith("permute.weight"):
                p.copy_(torch.eye(len(p)) + 0.3 * drawn / len(p) ** 0.5)
            elif p.ndim == 4 and p.shape[0] > 1:
                p.copy_(0.5 * p[0].numel() ** -0.5 * drawn)
            else:
                p.copy_(0.1 * drawn)
    return model


def pair(scale: int, size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, size, size, generator=generator)
    return x, torch.rand(2, 3, size // scale, size // scale, generator=generator)


def latents(model: Hcflow, batch: int = 2, size: int = 16) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [0.8 * torch.randn(batch, *s, generator=generator) for s in model.shapes((size, size))]


def jacobian_log_det(function, x: Tensor) -> float:
    matrix = torch.autograd.functional.jacobian(lambda v: function(v.view_as(x)).flatten(), x.flatten())
    return torch.linalg.slogdet(matrix.double())[1].item()


@pytest.mark.parametrize("condition", [0, 5])
def test_log_determinant_of_a_step_against_autograd(condition: int) -> None:
    torch.manual_seed(0)
    step = FlowStep(6, condition, 8)
    for p in step.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = torch.randn(1, 6, 3, 3)
    u = torch.randn(1, condition, 3, 3) if condition else None
    out, log_det = step(x, u)
    assert log_det.item() == pytest.approx(jacobian_log_det(lambda v: step(v, u)[0], x), abs=1e-3)
    torch.testing.assert_close(step.inverse(out, u), x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [4, 8])
def test_the_likelihood_is_a_change_of_variables(scale: int) -> None:
    """log p(x, y) = log N(z) + log |dz/dx| + log N(y), with the latents found by inverting `generate` with autograd."""
    model = filled(scale).double()
    y = torch.rand(1, 3, 16 // scale, 16 // scale, dtype=torch.float64)
    drawn = [z[:1].double() for z in latents(model)]
    x = model.generate(y, drawn)
    sizes = [z.numel() for z in [y, *drawn]]

    def generate(flat: Tensor) -> Tensor:
        parts = flat.flatten().split(sizes)
        return model.generate(parts[0].view_as(y), [p.view_as(z) for p, z in zip(parts[1:], drawn, strict=True)])

    flat = torch.cat([z.flatten() for z in [y, *drawn]])
    normal = sum(-0.5 * (z.square().sum() + z.numel() * math.log(2 * math.pi)).item() for z in drawn)
    log_prob, observed = model.log_prob(x, y)
    torch.testing.assert_close(observed, (y * 255).round() / 255, atol=1e-9, rtol=0)
    expected = normal - jacobian_log_det(generate, flat) + gaussian_log_prob(observed, y, -6.0).item()
    assert log_prob.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [4, 8])
def test_round_trip(scale: int) -> None:
    """y comes back from what is generated for it."""
    model = filled(scale)
    _, y = pair(scale)
    with torch.no_grad():
        _, observed = model.log_prob(model.generate(y, latents(model)), y)
    torch.testing.assert_close(observed, (y * 255).round() / 255, atol=1.01 / 255, rtol=0)


def test_gaussian_against_torch() -> None:
    x, mean, log_std = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    expected = torch.distributions.Normal(mean, log_std.exp()).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(gaussian_log_prob(x, mean, log_std), expected, atol=1e-3, rtol=1e-5)


GOLDEN = {
    4: (4290.61328125, 0.3796226978, 0.4260050952, [0.0, 1.0, 0.7342649]),
    8: (1235.693359375, 0.3191762865, 0.4016179144, [0.7744164, 1.0, 0.0]),
}
"""Of the official network with the weights of `filled`: likelihood in its unit; mean, deviation, pixels of a sample."""


@pytest.mark.parametrize("scale", [4, 8])
def test_the_official_networks_figures(scale: int) -> None:
    nll, mean, std, pixel = GOLDEN[scale]
    model = filled(scale)
    x, y = pair(scale)
    torch.manual_seed(5)
    with torch.no_grad():
        log_prob, _ = model.log_prob(x + torch.rand(x.shape) / 256, y)
        drawn = model.generate(y, latents(model)).clamp(0, 1)
    official = (math.log(256) * 256 - log_prob) / (math.log(2) * 256)  # per pixel, one constant per pixel
    assert official.mean().item() == pytest.approx(nll, rel=1e-5)
    assert drawn.mean().item() == pytest.approx(mean, abs=1e-5)
    assert drawn.std().item() == pytest.approx(std, abs=1e-5)
    assert drawn[0, :, 3, 4].tolist() == pytest.approx(pixel, abs=1e-4)


def test_bits_per_dimension_of_a_uniform_density() -> None:
    model = Hcflow(FLOWS["x4"])
    assert model.bits_per_dimension(torch.zeros(1), 768).item() == pytest.approx(8)


def test_the_first_batch_sets_every_act_norm() -> None:
    torch.manual_seed(0)
    module = HcflowTraining(FLOWS, scale=4)
    x, y = pair(4)
    module.initialise(x, y, BatchNoise(0, 2, slice(0, 2), torch.device("cpu")))
    norms = list(module.model.act_norms())
    assert not any(n.pending for n in norms)
    assert all((n.bias != 0).any() for n in norms)
    norm = ActNorm(3)
    norm.pending = True
    out = norm(3 + 2 * torch.randn(8, 3, 16, 16))
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_coupling_is_bounded() -> None:
    """The scale stays within exp(+-0.5), whatever the network says."""
    coupling = Coupling(4, 0, 8)
    torch.nn.init.constant_(coupling.f.conv3.bias, 1e6)
    _, log_det = coupling(torch.randn(1, 4, 2, 2), None)
    assert log_det.item() == pytest.approx(8 * 0.318 * math.pi / 2, rel=1e-3)


def test_terms_of_the_loss_have_gradients() -> None:
    torch.manual_seed(0)
    module = HcflowTraining(FLOWS, scale=4, pixel_weight=1.0, perceptual_weight=0.1, perceptual="stlpips_alex")
    x, y = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 16, 16)
    noise = BatchNoise(0, 2, slice(0, 2), torch.device("cpu"))
    module.initialise(x, y, noise)
    losses = module(x, y, noise)
    losses["loss"].backward()
    total = losses["nll"] + losses["pixel"] + 0.1 * losses["perceptual"]
    assert losses["loss"].item() == pytest.approx(total.item(), rel=1e-6)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.trained().values())


@pytest.mark.parametrize("tau", [0.0, 0.8])
def test_the_pixel_term_has_its_temperature(tau: float) -> None:
    module = HcflowTraining(FLOWS, scale=4, pixel_weight=1.0, pixel_tau=tau)
    module.model.load_state_dict(filled(4).state_dict())
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 4, 4)
    with torch.no_grad():
        terms = [float(module(x, y, BatchNoise(s, 2, slice(0, 2), torch.device("cpu")))["pixel"]) for s in (0, 1)]
        mode = module.model.generate(y, [torch.zeros(2, *s) for s in module.model.shapes((16, 16))]).clamp(0, 1)
    at_zero = float((mode - x).abs().mean())
    assert (terms[0] == terms[1] == pytest.approx(at_zero, abs=1e-6)) == (tau == 0)  # at 0 there is no noise in it


@pytest.fixture
def weights(tmp_path: Path) -> dict[str, str]:
    for scale in (4, 8):
        save_file(filled(scale).state_dict(), tmp_path / f"x{scale}.safetensors")
    return {f"x{scale}": str(tmp_path / f"x{scale}.safetensors") for scale in (4, 8)}


@pytest.mark.parametrize("scale", [4, 8])
def test_samples_of_an_image_share_its_features(weights: dict[str, str], scale: int) -> None:
    method = HcflowMethod(FLOWS, weights, compute=Compute(rows=2)).prepare(Bicubic(16, scale))
    _, y = pair(scale)
    many = method.sample(y, 3, 0.8, Noise(0, ["a", "b"], range(3)))
    one = method.sample(y[1:], 1, 0.8, Noise(0, ["b"], [2]))
    torch.testing.assert_close(many[1:, 2:], one, atol=1e-5, rtol=0)
    cold = method.sample(y, 3, 1e-6, Noise(0, ["a", "b"], range(3)))
    assert cold.std(1).mean() < 0.01 * many.std(1).mean()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"compute": {"rows": 0}}, r"compute\.rows=0 is wrong"),
        ({"weights": {"x4": None}}, r"no weights for x4: train it"),
        ({"weights": {"x4": "nowhere.pth"}}, r"nowhere\.pth do not exist"),
        ({"flow": {"x8": FLOWS["x8"]}}, "hcflow has no flow for x4"),
        (
            {"flow": {"x4": {"level": 2}}},
            r"methods\.hcflow\.flow\.x4\.level is no setting of hcflow",
        ),
        ({"flow": {"x4": FLOWS["x8"]}}, "3 levels is for x8, not x4"),
        ({"flow": {"x4": TINY.model_copy(update={"hidden": 9})}}, "does not fit the network"),
    ],
)
def test_bad_settings_are_one_sentence(weights: dict[str, str], settings: dict, sentence: str) -> None:
    values = {"flow": FLOWS, "weights": weights, **settings}
    with pytest.raises(BenchError, match=sentence):
        build(HcflowMethod, values, "methods.hcflow", "hcflow").prepare(Bicubic(16, 4))


def test_official_checkpoints_load(tmp_path: Path) -> None:
    torch.save(filled(8).state_dict(), tmp_path / "official.pth")
    model = Hcflow(FLOWS["x8"])
    load_weights(model, tmp_path / "official.pth")
    names = model.state_dict()
    assert "flow.layers.1.affine.f.conv1.actnorm.logs" in names
    assert "flow.level2_condFlow.RRDB_trunk0.0.RDB1.conv5.bias" in names


def test_the_second_stage_has_the_official_weights() -> None:
    """2e-3 times the bits per pixel, plus the L1 distance at temperature 0 (train_SR_CelebA_8X_HCFlow+.yml)."""
    with hydra.initialize_config_module("configs", version_base="1.3"):
        cfg = hydra.compose("train", ["recipe=hcflow_plus", "scale=4"])
    settings = {**OmegaConf.to_container(cfg.method.network, resolve=True), "flow": FLOWS}  # type: ignore[dict-item]
    module = build(HcflowTraining, settings, "method.network", "hcflow", {"scale": 4})
    x = torch.rand(2, 3, 16, 16)
    y = torch.rand(2, 3, 4, 4)
    found = module(x, y, BatchNoise(0, 2, slice(0, 2), torch.device("cpu")))
    per_pixel = 3 * found["nll"]
    cold = module.model.generate(y, [torch.zeros(2, *s) for s in module.model.shapes((16, 16))]).clamp(0, 1)
    torch.testing.assert_close(found["loss"], 2e-3 * per_pixel + (cold - x).abs().mean())


def test_a_level_without_unconditional_steps_is_refused() -> None:
    with pytest.raises(BenchError, match=r"steps=2 of the flow must be more than conditional=2\."):
        Hcflow(HcflowConfig(levels=2, steps=2, conditional=2, blocks=(1, 1)))
