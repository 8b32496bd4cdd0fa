"""Files of another shape than the settings: every loader says which setting to change, and loses no tensor silently."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.config import method_config
from bench.contract import Noise
from bench.errors import BenchError
from bench.load import make_method
from bench.operators.bicubic import Bicubic
from bench.settings import build
from bench.weights import compare_settings
from methods.cvdvae import weights as cvdvae
from methods.cvdvae.method import Cvdvae
from methods.cvdvae.vdvae import LowResolutionConfig, Vdvae, VdvaeConfig
from methods.diffusion import checkpoints as diffusion
from methods.diffusion.sampler import DiffusionSampler
from methods.diffusion.seen import seen as seen_of_prior
from methods.diffusion.unet import PriorNetwork, UnetConfig
from methods.hcflow import checkpoints as hcflow
from methods.hcflow.flow import Hcflow, HcflowConfig
from methods.hcflow.method import HcflowMethod
from methods.sr3 import checkpoints as sr3
from methods.sr3.method import Sr3
from methods.sr3.unet import Sr3Config, Sr3Unet

VDVAE = VdvaeConfig(
    size=16, decoder="1x1,4m1,4x1,8m4,16m8", encoder="16d2,8d2,4d4,1x1", width=16, zdim=4, mixtures=2, no_bias_above=4
)
LOW = LowResolutionConfig(encoder="4x2,4d4,1x1", k=3, width=16)
FLOW = HcflowConfig(levels=2, steps=3, conditional=2, hidden=8, features=8, growth=4, blocks=(1, 1))
SR3 = Sr3Config(size=32, channels=32, multipliers=(1, 2), blocks=2, attention=(16,), groups=32)
UNET = UnetConfig(size=32, channels=32, multipliers=(1, 2), blocks=1, attention=(16,), head_channels=16)


def other(config: Any, **changed: Any) -> Any:
    return type(config)(**{**config.model_dump(), **changed})


def make(kind: str, config: Any) -> nn.Module:
    torch.manual_seed(0)
    return {
        "prior": lambda: Vdvae(config),
        "low": lambda: Vdvae(VDVAE, config),
        "hcflow": lambda: Hcflow(config),
        "sr3": lambda: Sr3Unet(config),
        "unet": lambda: PriorNetwork(config),
    }[kind]()


def load(kind: str, module: Any, path: Path) -> None:
    loaders: dict[str, Callable[[Any, Path], Path]] = {
        "prior": lambda m, p: cvdvae.load_weights(m, p, "prior"),
        "low": lambda m, p: cvdvae.load_weights(m, p, "low"),
        "hcflow": hcflow.load_weights,
        "sr3": sr3.load_weights,
        "unet": diffusion.load_weights,
    }
    loaders[kind](module, path)


def state_of(kind: str, module: Any) -> dict[str, Tensor]:
    return dict((module.unet if kind == "unet" else module).state_dict())


BASE = {"prior": VDVAE, "low": LOW, "hcflow": FLOW, "sr3": SR3, "unet": UNET}
SEEN = [
    ("prior", {"decoder": "1x1,4m1,8m4,16m8"}, "the number of blocks of prior.decoder is 5, the file's 4; change"),
    ("prior", {"encoder": "16x1,16d2,8d2,4d4,1x1"}, "the number of blocks of prior.encoder is 4, the file's 5"),
    ("prior", {"width": 24}, "prior.width is 16, the file's 24; give prior.width=24"),
    ("prior", {"widths": {8: 12}}, "prior.width is 16, the file's 12"),
    ("prior", {"zdim": 5}, "prior.zdim is 4, the file's 5; give prior.zdim=5"),
    ("prior", {"bottleneck": 0.5}, "prior.bottleneck is 0.25, the file's 0.5; give prior.bottleneck=0.5"),
    ("prior", {"mixtures": 3}, "prior.mixtures is 2, the file's 3"),
    ("prior", {"no_bias_above": 8}, "prior.no_bias_above is 4, the file's 8"),
    ("prior", {"patch": 2, "decoder": "1x1,4m1,4x1,8m4,8x1", "encoder": "8x1,8d2,4d4,1x1"}, "prior.patch is 1, the"),
    ("low", {"k": 4}, r"low.x4.k is 3, the file's 4; give low.x4.k=4"),
    ("low", {"k": 2}, r"low.x4.k is 3, the file's 2; give low.x4.k=2"),
    ("low", {"encoder": "4x3,4d4,1x1"}, "the number of blocks of low.x4.encoder is 4, the file's 5"),
    ("low", {"widths": {4: 20}}, "low.x4.width is 16, the file's 20"),
    ("hcflow", {"levels": 3}, "flow.x4.levels is 2, the file's 3"),
    ("hcflow", {"steps": 4}, "flow.x4.steps is 3, the file's 4; give flow.x4.steps=4"),
    ("hcflow", {"conditional": 1}, "flow.x4.conditional is 2, the file's 1"),
    ("hcflow", {"hidden": 9}, "flow.x4.hidden is 8, the file's 9"),
    ("hcflow", {"features": 9}, "flow.x4.features is 8, the file's 9"),
    ("hcflow", {"growth": 5}, "flow.x4.growth is 4, the file's 5"),
    ("hcflow", {"blocks": (2, 1)}, r"flow.x4.blocks is \[1,1\], the file's \[2,1\]; give flow.x4.blocks=\[2,1\]"),
    ("sr3", {"blocks": 1}, "unet.blocks is 2, the file's 1; give unet.blocks=1"),
    ("sr3", {"channels": 64}, "unet.channels is 32, the file's 64"),
    ("sr3", {"multipliers": (1, 2, 2)}, r"unet.multipliers is \[1,2\], the file's \[1,2,2\]"),
    ("sr3", {"attention": ()}, r"unet.attention is \[16\], the file's \[\]; give unet.attention=\[\]"),
    ("sr3", {"attention": (32, 16)}, r"unet.attention is \[16\], the file's \[32,16\]"),
    ("sr3", {"patch": 2, "attention": (8,)}, "unet.patch is 1, the file's 2"),
    ("unet", {"blocks": 2}, "unet.blocks is 1, the file's 2"),
    ("unet", {"channels": 64}, "unet.channels is 32, the file's 64"),
    ("unet", {"multipliers": (1, 2, 2)}, r"unet.multipliers is \[1,2\], the file's \[1,2,2\]"),
    ("unet", {"attention": (32, 16)}, r"unet.attention is \[16\], the file's \[32,16\]"),
    ("unet", {"patch": 2, "attention": (8,)}, "unet.patch is 1, the file's 2"),
]


@pytest.mark.parametrize(("kind", "changed", "sentence"), SEEN)
def test_the_sentence_gives_the_setting(kind: str, changed: dict, sentence: str, tmp_path: Path) -> None:
    """A file of changed settings, loaded with the unchanged ones; and with its own."""
    config = other(BASE[kind], **changed)
    path = tmp_path / "file.safetensors"
    save_file({k: v.contiguous() for k, v in state_of(kind, make(kind, config)).items()}, path)
    with pytest.raises(BenchError, match=sentence):
        load(kind, make(kind, BASE[kind]), path)
    load(kind, make(kind, config), path)


@pytest.mark.parametrize("kind", BASE)
def test_no_tensor_is_lost_silently(kind: str, tmp_path: Path) -> None:
    module = make(kind, BASE[kind])
    state = state_of(kind, module)
    path = tmp_path / "file.safetensors"
    save_file({**state, "another.weight": torch.zeros(2)}, path)
    with pytest.raises(BenchError, match=r"nothing takes its another\.weight \(1 left over\)"):
        load(kind, module, path)
    lost = sorted(n for n in state if kind != "low" or cvdvae.is_low(n))[3]
    save_file({n: v for n, v in state.items() if n != lost}, path)
    with pytest.raises(BenchError, match="does not fit the network"):
        load(kind, module, path)


@pytest.mark.parametrize("kind", BASE)
def test_a_file_of_another_kind_lacks_the_networks_names(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({"something.else": torch.zeros(3)}, path)
    with pytest.raises(BenchError, match=r"does not fit the network: it has no \w+.*missing\)"):
        load(kind, make(kind, BASE[kind]), path)


def authors_file(path: Path, prior: VdvaeConfig, low: LowResolutionConfig) -> Vdvae:
    """As Lightning writes the authors' module: names, constants and entries beside the state."""
    model = Vdvae(prior, low)
    for i, p in enumerate(model.parameters()):
        torch.nn.init.normal_(p, std=0.02, generator=torch.Generator().manual_seed(i))
    constants = {"cvae.shift": torch.full((1, 1, 1), prior.shift), "cvae.scale": torch.full((1, 1, 1), prior.scale)}
    state = {f"cvae.{k}": v for k, v in model.state_dict().items()}
    hyper = {"ky": low.k, "enc_blocks_y": low.encoder, "image_size_y": 4}
    torch.save({"state_dict": state | constants, "epoch": 3, "hyper_parameters": hyper}, path)
    return model.eval()


@pytest.mark.parametrize("k", [1, 3])
def test_k_is_read_from_the_authors_file(k: int, tmp_path: Path) -> None:
    path = tmp_path / "epoch=3.ckpt"
    model = authors_file(path, VDVAE, other(LOW, k=k))
    y = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn = {}
    for given in (None, k):
        settings = {
            "prior": VDVAE, "prior_weights": str(path), "low_weights": {"x4": str(path)}, "project": False,
            "low": {"x4": {**LOW.model_dump(), "k": given}},
        }  # fmt: skip
        method = build(Cvdvae, settings, "methods.cvdvae", "cvdvae").prepare(Bicubic(16, 4))
        assert method.model.k == k
        drawn[given] = method.sample(y, 2, 0.8, Noise(0, ["a"], range(2)))
    assert torch.equal(drawn[None], drawn[k])
    for name, p in method.model.state_dict().items():
        assert torch.equal(p, model.state_dict()[name])
    settings["low"] = {"x4": {**LOW.model_dump(), "k": k + 1}}
    with pytest.raises(BenchError, match=rf"low.x4.k is {k + 1}, the file's {k}; give low.x4.k={k}"):
        build(Cvdvae, settings, "methods.cvdvae", "cvdvae").prepare(Bicubic(16, 4))


def test_an_authors_file_serves_as_prior_of_another_scale(tmp_path: Path) -> None:
    path = tmp_path / "x4.ckpt"
    theirs = authors_file(path, VDVAE, LOW).state_dict()
    model = Vdvae(VDVAE, LowResolutionConfig(encoder="1x1", k=1, width=16))
    cvdvae.load_weights(model, path, "prior")
    assert all(torch.equal(p, theirs[n]) for n, p in model.state_dict().items() if cvdvae.is_prior(n))


def test_the_constants_of_an_authors_file_are_held_against_the_settings(tmp_path: Path) -> None:
    authors_file(tmp_path / "a.ckpt", VDVAE, LOW)
    with pytest.raises(BenchError, match=r"prior.shift is -100, the file's -112.866676; give prior.shift=-112.866676"):
        cvdvae.load_weights(Vdvae(other(VDVAE, shift=-100.0)), tmp_path / "a.ckpt", "prior")


def test_what_no_tensor_shows_is_known_of_openais_file(tmp_path: Path) -> None:
    path = tmp_path / "ffhq256-iter-1700000-model-ema.th"
    torch.save(Vdvae(VDVAE).state_dict(), path)
    with pytest.raises(BenchError, match=r"prior.bits is 8, the file's 5"):
        cvdvae.load_weights(Vdvae(other(VDVAE, bits=8)), path, "prior")
    with pytest.raises(BenchError, match=r"prior.scale is 0.02, the file's 0.01431\d+; give"):
        cvdvae.load_weights(Vdvae(other(VDVAE, scale=0.02)), path, "prior")
    cvdvae.load_weights(Vdvae(VDVAE), path, "prior")


@pytest.mark.parametrize(
    ("shape", "groups"),
    [({"multipliers": (1, 2, 4, 8, 8), "blocks": 2}, 32), ({"multipliers": (1, 2, 4, 8, 16), "blocks": 1}, 16)],
)
def test_groups_are_known_of_the_public_sr3_networks(shape: dict, groups: int, tmp_path: Path) -> None:
    """No tensor shows them."""
    right = Sr3Config(size=32, channels=32, attention=(), groups=groups, **shape)
    with torch.device("meta"):
        state = {f"denoise_fn.{k}": v for k, v in Sr3Unet(right).state_dict().items()}
    path = tmp_path / "gen.pth"
    compare_settings(path, sr3.seen(state, right))
    sentence = rf"unet.groups is {48 - groups}, the file's {groups}; give unet.groups={groups}"
    with pytest.raises(BenchError, match=sentence):
        compare_settings(path, sr3.seen(state, other(right, groups=48 - groups)))
    with pytest.raises(BenchError, match=r"unet.prediction is velocity, the file's noise"):
        compare_settings(path, sr3.seen(state, other(right, prediction="velocity")))
    ours = {k.removeprefix("denoise_fn."): v for k, v in state.items()}  # may have any
    compare_settings(path, sr3.seen(ours, other(right, groups=48 - groups)))


def test_nothing_but_the_schedule_stands_beside_a_public_sr3_network(tmp_path: Path) -> None:
    network, path = Sr3Unet(SR3), tmp_path / "gen.pth"
    state = {f"denoise_fn.{k}": v for k, v in network.state_dict().items()} | {"betas": torch.zeros(2000)}
    torch.save(state, path)
    sr3.load_weights(network, path)
    torch.save(state | {"ema.weight": torch.zeros(1)}, path)
    with pytest.raises(BenchError, match=r"nothing takes its ema\.weight \(1 left over\)"):
        sr3.load_weights(network, path)


def guided(config: UnetConfig) -> dict[str, Tensor]:
    """Random weights of a network in guided-diffusion's names."""
    ours = PriorNetwork(config).unet.state_dict()
    state: dict[str, Tensor] = {}
    ends = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    ends |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    for kind, target, source in diffusion._places(config):
        if kind == "resnet":
            ends |= {f"{target}.{a}": f"{source}.{b}" for a, b in diffusion.RESNET.items()}
            continue
        ends |= {f"{target}.group_norm": f"{source}.norm", f"{target}.to_out.0": f"{source}.proj_out"}
        for s in ("weight", "bias"):
            rows = [ours[f"{target}.to_{n}.{s}"].unflatten(0, (-1, config.head_channels)) for n in "qkv"]
            state[f"{source}.qkv.{s}"] = torch.stack(rows, 1).flatten(0, 2)
    for target, source in ends.items():
        state |= {f"{source}.{s}": ours[f"{target}.{s}"] for s in ("weight", "bias") if f"{target}.{s}" in ours}
    return state


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"channels": 64}, "unet.channels is 32, the file's 64; give unet.channels=64"),
        (
            {"blocks": 2},
            "the number of residual blocks on the way up of unet.multipliers and unet.blocks is 4, the file's 6",
        ),
        ({"multipliers": (1, 2, 2)}, "of unet.multipliers and unet.blocks is 4, the file's 6"),
        ({"attention": ()}, "the number of attention blocks on the way down of unet.attention is 1, the file's 0"),
    ],
)
def test_a_guided_diffusion_file_of_other_settings(changed: dict, sentence: str, tmp_path: Path) -> None:
    config = other(UNET, **changed)
    torch.save(guided(config), tmp_path / "a.pt")
    with pytest.raises(BenchError, match=sentence):
        diffusion.load_weights(PriorNetwork(UNET), tmp_path / "a.pt")
    network = PriorNetwork(config)
    diffusion.load_weights(network, tmp_path / "a.pt")
    torch.save({**guided(config), "input_blocks.9.1.qkv.weight": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(BenchError, match=r"nothing takes its|number of attention blocks"):
        diffusion.load_weights(network, tmp_path / "a.pt")


def test_the_heads_of_ffhq_10m_are_known(tmp_path: Path) -> None:
    """No tensor shows them: the joint projection of query, key and value has the same shape with any."""
    config, path = UnetConfig(size=32, attention=(1,)), tmp_path / "ffhq_10m.pt"
    with torch.device("meta"):
        state = guided(config)
    compare_settings(path, seen_of_prior(state, config))
    with pytest.raises(BenchError, match=r"unet.head_channels is 32, the file's 64; give unet.head_channels=64"):
        compare_settings(path, seen_of_prior(state, other(config, head_channels=32)))
    with pytest.raises(BenchError, match=r"unet.prediction is velocity, the file's noise"):
        compare_settings(path, seen_of_prior(state, other(config, prediction="velocity")))


FULL = ("cvdvae_ffhq256", "hcflow_ffhq256", "sr3_ffhq256", "sr3_128", "dps_ffhq256")


@pytest.mark.parametrize("label", FULL)
def test_the_settings_at_full_size_are_those_of_the_public_files(label: str, tmp_path: Path) -> None:
    """Names and shapes alone, in the public form: nothing of the settings differs from what the file shows."""
    path = tmp_path / "file"
    method = make_method(method_config(label, {}))
    with torch.device("meta"):
        if isinstance(method, Cvdvae):
            compare_settings(path, cvdvae.seen_of_published(method.config))
            for scale, k in (("x4", 57), ("x8", 43), ("x8", 20)):
                low = other(method.low[scale], k=k)
                state = {f"cvae.{name}": v for name, v in Vdvae(method.config, low).state_dict().items()}
                assert cvdvae.inferred_groups(state) == k
                compare_settings(path, cvdvae.seen_of_prior(state, method.config))
                compare_settings(path, cvdvae.seen_of_low(state, low, 256))
        elif isinstance(method, HcflowMethod):
            for config in method.flows.values():
                compare_settings(path, hcflow.seen(Hcflow(config).state_dict(), config))
        elif isinstance(method, Sr3):
            state = {f"denoise_fn.{name}": v for name, v in Sr3Unet(method.config).state_dict().items()}
            compare_settings(path, sr3.seen(state, method.config))
        else:
            assert isinstance(method, DiffusionSampler)
            assert method.config is not None
            compare_settings(path, seen_of_prior(guided(method.config), method.config))
