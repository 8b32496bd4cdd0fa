"""The full-size recipes against the public code's own settings, which are written out here, and two steps of each.

Read at github:JingyunLiang/HCFlow 10deed6 (HCFlow), github:Janspiry/Image-Super-Resolution-via-Iterative-Refinement
01d27a7 (SR3) and github:jprost76/srvdvae ce79886 (CVDVAE).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench.cli import main
from bench.config import compose
from bench.operators.bicubic import Bicubic
from bench.settings import build
from bench.training.config import read_training
from bench.training.data import Order, make_splits, to_tensor
from bench.training.trainable import BatchNoise
from methods.hcflow.flow import Hcflow, HcflowConfig
from methods.sr3.training import Sr3Training

BUDGET = 4 * 48 * 3600.0
"""The paper, section 4.1: 48 hours on 4 GPUs for all three."""
HCFLOW = {  # options/train/train_SR_CelebA_8X_HCFlow.yml, models/HCFlow_SR_model.py
    "batch": 16, "crop": 160, "flip": True, "lr": 2.5e-4, "betas": (0.9, 0.99), "weight_decay": 0.0, "warmup": 0,
    "schedule": "multistep", "milestones": (200000, 250000, 280000, 310000, 340000), "gamma": 0.5, "min_lr": 0.0,
    "clip_value": 5.0, "clip": 100.0, "steps": 350000, "ema": 0.0, "precision": "32", "val_every": 5000,
    "budget": BUDGET,
}  # fmt: skip
OFFICIAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hcflow_ffhq256": (HCFLOW, {"nll_weight": 3.0, "pixel_weight": 0.0, "perceptual_weight": 0.0, "alternate": False}),
    "hcflow_ffhq256_x4": (  # train_SR_DF2K_4X_HCFlow.yml: lr_steps_rel [0.5, 0.75, 0.9, 0.95] of 300k
        HCFLOW | {"steps": 300000, "milestones": (150000, 225000, 270000, 285000)},
        {"nll_weight": 3.0, "pixel_weight": 0.0, "alternate": False},
    ),
    "hcflow_plus_ffhq256": (  # train_SR_CelebA_8X_HCFlow+.yml and train_SR_DF2K_4X_HCFlow+.yml
        HCFLOW | {"lr": 5e-5, "steps": 50000, "milestones": (20000, 40000)},
        {"nll_weight": 3 * 2e-3, "pixel_weight": 1.0, "pixel_tau": 0.0, "perceptual_weight": 0.0, "alternate": True},
    ),
    "sr3_ffhq256": (  # config/sr_sr3_64_512.json, model/model.py (Adam with its defaults), model/networks.py
        {
            "batch": 2, "crop": None, "flip": True, "lr": 3e-6, "betas": (0.9, 0.999), "weight_decay": 0.0,
            "warmup": 0, "schedule": "constant", "clip_value": None, "clip": None, "steps": 1000000, "ema": 0.0,
            "precision": "32", "val_every": 10000, "budget": BUDGET,
        },
        {"loss": "l1", "reduction": "mean", "initialisation": "orthogonal", "condition": "pil"},
    ),
    "cvdvae_ffhq256": (  # train.py (AdamW with its defaults, ReduceLROnPlateau by epoch), data.py (batches of 4)
        {
            "batch": 4 * 4, "crop": None, "flip": True, "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.01,
            "warmup": 0, "schedule": "plateau", "patience": 5, "min_lr": 1e-6, "clip_value": None, "clip": None,
            "ema": 0.0, "precision": "32", "val": 7000, "val_every": 63000 // 16, "budget": BUDGET,
        },
        {"normalisation": "group"},
    ),
}  # fmt: skip
"""By recipe: settings of the training, and of the method's network."""
OURS = ("hcflow_ffhq256_ours", "hcflow_plus_ffhq256_ours", "sr3_ffhq256_ours", "cvdvae_ffhq256_ours")

FLOW = "{levels: %d, steps: 2, conditional: 1, hidden: 4, features: 4, growth: 2, blocks: [1, 1], quant: 256}"
PRIOR = [
    "method.network.prior.size=32", "method.network.prior.decoder=\"1x1,4m1,8m4,32m8\"",
    "method.network.prior.encoder=\"32d4,8d2,4d4,1x1\"", "method.network.prior.width=8",
    "method.network.prior.widths=null", "method.network.prior.mixtures=2",
    "method.network.prior.bottleneck=0.5", "method.network.prior.no_bias_above=16", "++method.network.prior.patch=1",
]  # fmt: skip
COMMON = [
    "dataset=synthfaces", "dataset.size=32", "device=cpu", "pool=16", "val=2", "batch=2", "steps=2", "val_every=1000",
    "precision=32", "seed=0",
]  # fmt: skip


def settings(recipe: str, *words: str) -> list[str]:
    """A recipe at a tiny shape; everything else is its own."""
    if "hcflow" in recipe:
        tiny = [f"method.network.flow.x4={FLOW % 2}", f"method.network.flow.x8={FLOW % 3}"]
        tiny += ["crop=16"] if "ours" not in recipe else []
    elif "sr3" in recipe:
        tiny = [f"method.network.unet.{w}" for w in ("size=32", "channels=16", "multipliers=[1,2]", "groups=8")]
    else:
        low = ('encoder="8x1,8d2,4d4,1x1"', "k=3", "width=8", "widths=null")
        tiny = [*PRIOR, *(f"method.network.low.x4.{word}" for word in low)]
    return [f"method={recipe}", *COMMON, *tiny, *words]


def scaled(recipe: str) -> list[str]:
    return [] if recipe in ("hcflow_ffhq256", "hcflow_ffhq256_x4") else ["scale=4"]


def composed(words: list[str]) -> Any:
    """What ``bench train`` composes of these words."""
    return compose("train", [f"recipe={w.partition('=')[2]}" if w.startswith("method=") else w for w in words])


@pytest.mark.parametrize("recipe", OFFICIAL)
def test_official_settings(recipe: str, begun: Path) -> None:
    training, network = OFFICIAL[recipe]
    own = {f"{key}=" for key in training}
    tiny = [w for w in settings(recipe, *scaled(recipe), *begin(recipe, begun)) if not w.startswith(tuple(own))]
    module, config = read_training(composed(tiny))
    assert {key: getattr(config, key) for key in training} == training
    assert {key: config.method["network"][key] for key in network} == network
    if "hcflow" in recipe:
        assert module.turns == (("nll", "pixel") if network["alternate"] else ())
        assert config.scale == (8 if recipe == "hcflow_ffhq256" else 4)


def begin(recipe: str, begun: Path) -> list[str]:
    """The weights that a recipe begins with."""
    if "cvdvae" in recipe:
        return [f"method.network.prior_weights={begun / 'prior' / 'weights.safetensors'}"]
    return [f"method.network.weights={begun / 'flow' / 'weights.safetensors'}"] if "plus" in recipe else []


@pytest.mark.parametrize("recipe", [r for r in OURS if "plus" not in r])
def test_ours_have_the_same_budget(recipe: str) -> None:
    assert compose("train", [f"recipe={recipe}"]).budget == "48h*4"


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that second trainings begin with: a tiny prior, and a tiny flow of the first stage."""
    folder = tmp_path_factory.mktemp("begun")
    assert main(["train", "method=vdvae", *COMMON, *PRIOR, f"out={folder / 'prior'}"]) == 0
    assert main(["train", *settings("hcflow_ffhq256_x4"), f"out={folder / 'flow'}"]) == 0
    return folder


@pytest.mark.parametrize("recipe", [*OFFICIAL, *OURS])
def test_two_steps(recipe: str, begun: Path, tmp_path: Path) -> None:
    words = settings(recipe, *scaled(recipe), *begin(recipe, begun))
    assert main(["train", *words, f"out={tmp_path}"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["steps"], summary["skipped_steps"]) == (2, 0)


def test_orthogonal_initialisation_is_the_public_one() -> None:
    """model/networks.py: init_weights(netG, init_type='orthogonal') over all convolutions and linear layers."""
    torch.manual_seed(0)
    shape = {"size": 32, "channels": 16, "multipliers": [1, 2], "groups": 8, "attention": [16]}
    network = build(Sr3Training, {"unet": shape, "initialisation": "orthogonal"}, "x", "sr3", {"scale": 4}).network
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) > 10
    for layer in layers:
        w = layer.weight.flatten(1)
        product = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        torch.testing.assert_close(product, torch.eye(len(product)), atol=1e-5, rtol=0)
        assert layer.bias is None or not layer.bias.any()
    norms = [m for m in network.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert all((m.weight == 1).all() and not m.bias.any() for m in norms)


def test_initialisation_of_hcflow_is_the_public_one() -> None:
    """models/modules/Basic.py: Xavier times 0.1 in the couplings and RRDBs, zeros in the last layers, rotations."""
    torch.manual_seed(0)
    model = Hcflow(HcflowConfig(levels=2, steps=2, conditional=1, blocks=[1, 1]))
    for name, p in model.named_parameters():
        last = name.rpartition(".")[2]
        if (".conv3." in name and ".affine." in name) or last == "logs" or ".f.weight" in name or ".f.bias" in name:
            assert not p.any(), name
        elif (".affine.f.conv" in name or ".RDB" in name) and last == "weight":
            fan = (p.shape[0] + p.shape[1]) * p[0, 0].numel()
            assert p.std().item() == pytest.approx(0.1 * (2 / fan) ** 0.5, rel=0.15), name
        elif "permute" in name:
            torch.testing.assert_close(p @ p.T, torch.eye(len(p)), atol=1e-5, rtol=0)
        elif ".RDB" in name and last == "bias":
            assert not p.any(), name


def test_terms_in_turns_are_two_steps_of_adam(begun: Path, tmp_path: Path) -> None:
    """One step of the recipe against torch's Adam, first on the likelihood and then, at the new weights, on L1."""
    weights = begun / "flow" / "weights.safetensors"
    words = settings("hcflow_plus_ffhq256", "scale=4", f"method.network.weights={weights}", "steps=1", "crop=null")
    assert main(["train", *words, f"out={tmp_path}"]) == 0
    module, config = read_training(composed(words))
    train, _ = make_splits(config.dataset, 16, 2)
    numbers, flips = Order(len(train.images), 2, 0, True)(0)
    x = to_tensor(train.images[numbers], flips, torch.device("cpu"))
    y, noise = Bicubic(32, 4).observe(x), BatchNoise(0, 2, slice(0, 2), torch.device("cpu"))
    optimizer = torch.optim.Adam(module.trained().values(), lr=5e-5, betas=(0.9, 0.99))
    for turn in ("nll", "pixel"):
        module.turn = turn
        optimizer.zero_grad()
        module(x, y, noise)["loss"].backward()
        torch.nn.utils.clip_grad_value_(module.parameters(), 5.0)
        torch.nn.utils.clip_grad_norm_(module.parameters(), 100.0)
        optimizer.step()
    found = load_file(tmp_path / "weights.safetensors")
    for name, p in module.trained().items():
        torch.testing.assert_close(found[name], p.detach(), atol=1e-6, rtol=1e-4, msg=name)
