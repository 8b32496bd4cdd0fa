"""Tiny random pipelines of both classes: the contract, their own call, refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="the pipelines need it (extra pipelines)")

from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    LDMSuperResolutionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
    VQModel,
)

from bench.config import RunConfig, method_config
from bench.contract import Noise
from bench.errors import BenchError
from bench.load import make_method
from bench.operators.bicubic import Bicubic
from bench.run.check import check_method
from bench.settings import build
from methods.diffusers_pipeline import DiffusersPipeline

DECODER = {
    "block_out_channels": [16, 16, 16], "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3, "norm_num_groups": 8,
}  # fmt: skip
"""Of three levels, so that latents are enlarged four times."""


@pytest.fixture(scope="module")
def ldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16, in_channels=6, out_channels=3, block_out_channels=(16, 16), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("ldm")
    vqvae = VQModel(latent_channels=3, num_vq_embeddings=64, **DECODER)
    torch.nn.init.normal_(vqvae.quantize.embedding.weight)  # far apart, so that rounding seldom turns the choice of one
    LDMSuperResolutionPipeline(vqvae, unet, DDIMScheduler()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    from diffusers import StableDiffusionUpscalePipeline

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16, in_channels=7, out_channels=4, block_out_channels=(16, 16), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16, attention_head_dim=8,
        num_class_embeds=1000,
    )  # fmt: skip
    words = tmp_path_factory.mktemp("words")
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    (words / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (words / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt"), model_max_length=16)
    encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("upscaler")
    StableDiffusionUpscalePipeline(
        vae=AutoencoderKL(latent_channels=4, scaling_factor=0.08333, **DECODER), text_encoder=encoder,
        tokenizer=tokenizer, unet=unet, low_res_scheduler=DDPMScheduler(),
        scheduler=DDIMScheduler(prediction_type="v_prediction"),
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(params=["ldm", "upscaler"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def make(folder: Path | str, scale: int = 4, size: int = 64, **settings: Any) -> DiffusersPipeline:
    values = {"weights": str(folder), "steps": 2, **settings}
    return build(DiffusersPipeline, values, "methods.p", "diffusers_pipeline").prepare(Bicubic(size, scale))


def observation(images: int = 2) -> torch.Tensor:
    return (255 * torch.rand(images, 3, 16, 16, generator=torch.Generator().manual_seed(0))).round() / 255


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_contract(folder: Path, eta: float, configure: Callable[..., RunConfig]) -> None:
    words = [f"weights={folder}", "steps=2", f"eta={eta}"]
    words = ["methods=[diffusers_pipeline]", "scale=4", *(f"methods.diffusers_pipeline.{w}" for w in words)]
    results = list(check_method(configure(*words, config="check")))
    assert len(results) == 13
    assert not [f"{r.name}: {r.detail}" for r in results if r.verdict == "fail"]


def test_a_row_is_what_the_pipeline_alone_gives(ldm: Path) -> None:
    """With the generator of its image and sample, whose first draws are the latents."""
    y = observation()
    x = make(ldm).sample(y, 2, noise=Noise(0, ["a", "b"], range(2)))
    pipeline = LDMSuperResolutionPipeline.from_pretrained(ldm)
    pipeline.set_progress_bar_config(disable=True)
    stream = Noise(0, ["b"], [1]).streams[0]
    alone = pipeline(2 * y[1:] - 1, num_inference_steps=2, generator=stream, output_type="np").images
    torch.testing.assert_close(x[1, 1], torch.from_numpy(alone[0]).permute(2, 0, 1), atol=1e-5, rtol=0)


def test_a_scheduler_that_draws_uses_the_rows_streams(ldm: Path, tmp_path: Path) -> None:
    """Euler's ancestral steps, to which this pipeline passes no generator."""
    pipeline = LDMSuperResolutionPipeline.from_pretrained(ldm)
    pipeline.scheduler = EulerAncestralDiscreteScheduler()
    pipeline.save_pretrained(tmp_path)
    method, y, state = make(tmp_path), observation(), torch.get_rng_state()
    noise = Noise(0, ["a", "b"], range(1))
    together = method.sample(y, 1, noise=noise)
    assert torch.equal(torch.get_rng_state(), state)
    alone, other = (method.sample(y[1:], 1, noise=Noise(0, [name], range(1))) for name in "bc")
    assert (alone - together[1:]).abs().mean() < 1e-4
    assert (other - together[1:]).abs().mean() > 1e-2


def test_the_prompt_and_the_noise_count(upscaler: Path) -> None:
    y = observation(1)
    noise = ["a"], range(1)
    plain = make(upscaler).sample(y, 1, noise=Noise(0, *noise))
    for changed in ({"prompt": "a face"}, {"noise_level": 300}, {"prompt": "a face", "guidance": 1.0}):
        assert not torch.equal(make(upscaler, **changed).sample(y, 1, noise=Noise(0, *noise)), plain)


@pytest.mark.parametrize(("guidance", "evaluations"), [(None, 4), (7.5, 4), (1.0, 2)])
def test_guidance_is_counted(guidance: float | None, evaluations: int, upscaler: Path) -> None:
    """Images that its network sees in two steps: twice as many with guidance, which diffusers has by default."""
    method = make(upscaler, guidance=guidance)
    seen = []
    method.pipeline.unet.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    method.sample(observation(1), 1)
    assert sum(seen) == method.evaluations == evaluations


def test_a_pipeline_without_a_prompt_is_not_guided(ldm: Path) -> None:
    assert make(ldm).evaluations == 2


def test_its_files_and_bf16(ldm: Path) -> None:
    method = make(ldm, compute={"precision": "bf16", "channels_last": True})
    assert method.sample(observation(), 1).isfinite().all()
    assert {"unet/diffusion_pytorch_model.safetensors", "vqvae/diffusion_pytorch_model.safetensors"} < set(
        method.files()
    )
    assert method.files()["scheduler/scheduler_config.json"].is_file()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"scale": 8}, "enlarges 4 times, not 8: use scale=4"),
        ({"size": 60}, "sides are multiples of 2, not 15x15: use images whose sides are multiples of 8"),
        ({"prompt": "a face"}, "sees the observation alone: leave prompt out"),
        ({"steps": 0}, r"methods\.p\.steps=0 is wrong"),
        ({"folder": "nowhere"}, "nowhere has no pipeline"),
        ({"folder": "hf:x"}, "names no repository of the hub"),
    ],
)
def test_what_does_not_fit_is_one_sentence(settings: dict[str, Any], sentence: str, ldm: Path) -> None:
    with pytest.raises(BenchError, match=sentence):
        make(**{"folder": ldm, **settings})


def test_other_and_damaged_pipelines_are_refused(ldm: Path, tmp_path: Path) -> None:
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    with pytest.raises(BenchError, match="is a DDPMPipeline: give a LDMSuperResolutionPipeline or a"):
        make(tmp_path)
    index.write_bytes((ldm / "model_index.json").read_bytes())
    with pytest.raises(BenchError, match="cannot be read by diffusers"):
        make(tmp_path)


@pytest.mark.parametrize("name", ["diffusers_pipeline", "stable_diffusion_x4"])
def test_the_configurations_build(name: str) -> None:
    method = make_method(method_config(name))
    assert isinstance(method, DiffusersPipeline)
    assert method.weights.startswith("hf:")
    assert method.evaluations >= 100
