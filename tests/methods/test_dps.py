"""The method: options that must not change the result, bad settings, and what the shipped weights show."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.config import RunConfig
from bench.contract import Noise
from bench.errors import BenchError
from bench.operators.bicubic import Bicubic
from bench.settings import build
from methods.diffusion.checkpoints import load_weights
from methods.diffusion.unet import PriorNetwork, UnetConfig
from methods.dps import Dps

TINY = {"size": 32, "channels": 32, "multipliers": [1, 2], "attention": [16], "head_channels": 16, "patch": 2}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "tiny.safetensors"
    save_file({k: v.contiguous() for k, v in PriorNetwork(UnetConfig(**TINY)).unet.state_dict().items()}, path)
    return path


def sample(path: Path, y: torch.Tensor, n: int = 2, **settings) -> torch.Tensor:
    values = {"unet": TINY, "weights": str(path), "steps": 4, **settings}
    method = build(Dps, values, "methods.dps", "dps").prepare(Bicubic(32, 4))
    return method.sample(y, n, None, Noise(0, [str(i) for i in range(len(y))], range(n)))


@pytest.fixture
def y() -> torch.Tensor:
    return (255 * torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))).round() / 255


@pytest.mark.parametrize("settings", [{"rows": 3}, {"checkpointing": True}, {"channels_last": True}])
def test_options_of_speed_and_memory_keep_the_result(weights: Path, y: torch.Tensor, settings: dict) -> None:
    torch.testing.assert_close(sample(weights, y, compute=settings), sample(weights, y), atol=1e-4, rtol=0)


def test_bf16_is_close(weights: Path, y: torch.Tensor) -> None:
    error = (sample(weights, y, compute={"precision": "bf16"}) - sample(weights, y)).abs().mean()
    assert 0 < error < 0.02


def test_the_coupled_norm_depends_on_the_batch(weights: Path, y: torch.Tensor) -> None:
    alone = sample(weights, y[:1], coupled=True, compute={"rows": 4})
    assert (sample(weights, y, coupled=True, compute={"rows": 4})[:1] - alone).abs().max() > 1e-3
    torch.testing.assert_close(sample(weights, y)[:1], sample(weights, y[:1]), atol=1e-4, rtol=0)


def test_fading_guidance_is_weaker(weights: Path, y: torch.Tensor) -> None:
    d = Bicubic(32, 4)
    error = [
        (d.forward(sample(weights, y, steps=50, guidance=0.5, guidance_schedule=s)) - y[:, None]).square().mean()
        for s in ("constant", "noise")
    ]
    assert error[0] < error[1]


def test_projection_makes_consistent(weights: Path, y: torch.Tensor) -> None:
    """More than without; what is clipped afterwards, much with random weights, is not consistent any more."""
    d = Bicubic(32, 4)
    error = [(d.forward(sample(weights, y, project=p)) - y[:, None]).square().mean() for p in (True, False)]
    assert error[0] < 0.8 * error[1]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 1}, r"methods\.dps\.steps=1 is wrong: it should be at least 2"),
        ({"steps": "abc"}, r"methods\.dps\.steps=abc is wrong: it should be a whole number"),
        ({"compute": {"rows": 0}}, r"methods\.dps\.compute\.rows=0 is wrong"),
        ({"unet": {**TINY, "foo": 1}}, r"methods\.dps\.unet\.foo is no setting of dps"),
        ({"guidance_schedule": "linear"}, "guidance_schedule=linear is wrong: it should be 'constant' or 'noise'"),
        ({"compute": {"precision": "fp8"}}, "precision=fp8 is wrong: it should be '32' or 'bf16'"),
        ({"weights": "nowhere.safetensors"}, "nowhere.safetensors do not exist"),
        ({"unet": {**TINY, "size": 64}}, "images of 64 pixels with this network, not of 32"),
        ({"unet": {**TINY, "channels": 64}}, "does not fit the network"),
    ],
)
def test_bad_settings_are_one_sentence(weights: Path, y: torch.Tensor, settings: dict, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        sample(weights, y, **settings)


def test_truncated_weights_are_one_sentence(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BenchError, match="truncated"):
        load_weights(PriorNetwork(UnetConfig(**TINY)), weights)


def test_the_shipped_prior_super_resolves(configure: Callable[..., RunConfig]) -> None:
    """On rendered test faces: nearer to the truth than bicubic by ST-LPIPS, consistent without projection, diverse."""
    from bench.report.tables import read_rows, summarise
    from bench.run.runner import run

    config = configure(
        "methods=[bicubic,dps]", "scale=4", "limit=3", "n=2", "figure_images=0",
        "metrics=[stlpips_alex,lr_psnr,apd_mse]",
    )  # fmt: skip
    directory, complete = run(config)
    assert complete
    rows, names = read_rows(directory)
    table = summarise(rows, names).set_index("method")
    assert table.loc["dps", "stlpips_alex"] < 0.8 * table.loc["bicubic", "stlpips_alex"]
    assert table.loc["dps", "lr_psnr"] > 33
    assert table.loc["dps", "apd_mse_e4"] > 1
