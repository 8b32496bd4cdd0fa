"""Priors in diffusers' format: folders that diffusers saved, the published shape, a hub on this machine."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from bench import hub
from bench.config import compose, method_config, plain
from bench.contract import Noise, methods
from bench.errors import BenchError
from bench.load import make_method
from bench.operators.bicubic import Bicubic
from bench.settings import build
from methods.diffusion.pretrained import Pretrained, todays_names
from methods.diffusion.prior import DiffusionPrior
from methods.diffusion.sampler import DiffusionSampler

SAMPLERS = ("daps", "ddnm", "ddrm", "diffpir", "dps", "pigdm", "pnpdm", "reddiff")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/faces-16"

CELEBAHQ = {
    "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu", "attention_head_dim": None,
    "block_out_channels": [128, 128, 256, 256, 512, 512], "center_input_sample": False,
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"], "downsample_padding": 0,
    "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3, "sample_size": 256,
    "time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
}  # fmt: skip
"""config.json of google/ddpm-ema-celebahq-256, and of its siblings of 256 pixels."""
CELEBAHQ_SCHEDULE = {
    "_class_name": "DDPMScheduler", "_diffusers_version": "0.1.1", "beta_end": 0.02, "beta_schedule": "linear",
    "beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000, "trained_betas": None,
    "variance_type": "fixed_small",
}  # fmt: skip


def small_unet(**changes: Any) -> UNet2DModel:
    torch.manual_seed(0)
    settings = {
        "sample_size": 16, "block_out_channels": (32, 32), "layers_per_block": 1, "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return UNet2DModel(**{**settings, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pipeline as diffusers saves it: unet/, scheduler/, model_index.json."""
    DDPMPipeline(small_unet(), DDPMScheduler()).save_pretrained(tmp_path / "faces")
    return tmp_path / "faces"


def flat(folder: Path) -> Path:
    """The same, laid out as the first published repositories: all files side by side."""
    for path in (*folder.glob("unet/*"), *folder.glob("scheduler/*")):
        path.rename(folder / path.name)
    return folder


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def observation() -> torch.Tensor:
    return (255 * torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))).round() / 255


def sampler(name: str, weights: str | Path, **settings: Any) -> DiffusionSampler:
    quick = {"daps": {"langevin_steps": 3, "ode_steps": 1}, "pnpdm": {"inner": 4}}.get(name, {})
    method = build(
        methods.get(name), {"weights": str(weights), "steps": 4, **quick, **settings}, f"methods.{name}", name
    )
    assert isinstance(method, DiffusionSampler)
    return method


def draw(method: DiffusionSampler) -> torch.Tensor:
    return method.prepare(Bicubic(16, 4)).sample(observation(), 2, noise=Noise(0, ["a"], range(2)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_takes_a_folder(name: str, folder: Path) -> None:
    method = sampler(name, folder)
    assert method.size == (16, 16)
    before = method.evaluations
    assert draw(method).isfinite().all()
    assert before == method.evaluations
    assert {p.name for p in method.files().values()} == {
        "diffusion_pytorch_model.safetensors", "config.json", "scheduler_config.json"
    }  # fmt: skip


def test_all_layouts_give_the_same_samples(folder: Path, tmp_path: Path) -> None:
    whole = draw(sampler("ddrm", folder))
    assert torch.equal(draw(sampler("ddrm", folder / "unet")), whole)
    alone = tmp_path / "alone"
    small_unet().save_pretrained(alone)
    assert torch.equal(draw(sampler("ddrm", alone)), whole)  # DDPM's schedule is the default
    assert torch.equal(draw(sampler("ddrm", flat(folder))), whole)


def test_gradients_with_less_memory_are_the_same(folder: Path) -> None:
    torch.testing.assert_close(
        draw(sampler("dps", folder, compute={"checkpointing": True})), draw(sampler("dps", folder)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_the_estimate_is_diffusers(prediction: str, schedule: str, tmp_path: Path) -> None:
    """x_0 of one network's output by their DDIM step, on the file's schedule."""
    scheduler = DDIMScheduler(prediction_type=prediction, beta_schedule=schedule, beta_end=0.015, clip_sample=False)
    DDPMPipeline(small_unet(), DDPMScheduler.from_config(scheduler.config)).save_pretrained(tmp_path)
    found = Pretrained(str(tmp_path))
    network = found.load()[0].eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        estimate = DiffusionPrior(network, found.alpha_bar, found.prediction, found.variance)(x, 400)
        out = network(x, torch.tensor([400, 400]))
    scheduler.set_timesteps(1000)
    theirs = scheduler.step(out, 400, x).pred_original_sample
    torch.testing.assert_close(estimate.x0, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_the_variance_is_the_files(variance: str, tmp_path: Path) -> None:
    """One ancestral step against DDPMScheduler's."""
    scheduler = DDPMScheduler(variance_type=variance, clip_sample=False)
    channels = 6 if variance == "learned_range" else 3
    DDPMPipeline(small_unet(out_channels=channels), scheduler).save_pretrained(tmp_path)
    found = Pretrained(str(tmp_path))
    network = found.load()[0].eval()
    prior = DiffusionPrior(network, found.alpha_bar, found.prediction, found.variance)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = prior.ancestral(x, prior(x, 500), 500, 499, fresh)
        out = network(x, torch.tensor([500]))
    theirs = scheduler.step(out, 500, x, generator=torch.Generator().manual_seed(1)).prev_sample
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_pnpdm_refuses_to_take_a_fixed_variance_for_a_learned_one(variance: str, tmp_path: Path) -> None:
    channels = 6 if variance == "learned_range" else 3
    DDPMPipeline(small_unet(out_channels=channels), DDPMScheduler(variance_type=variance)).save_pretrained(tmp_path)
    assert draw(sampler("pnpdm", tmp_path, variance="sde")).isfinite().all()
    learned = sampler("pnpdm", tmp_path, variance="learned")
    if channels == 6:
        assert draw(learned).isfinite().all()
    else:
        with pytest.raises(BenchError, match=r"^weights=.* has no learned variance: use variance=sde\.$"):
            draw(learned)


def test_weights_of_2022(folder: Path) -> None:
    """Pickled, with other names of the attention; read without running code, and only where there is nothing better."""
    whole = draw(sampler("ddrm", folder))
    safe = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(safe)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in state.items():
        for new, former in old.items():
            name = name.replace(f".{new}.", f".{former}.")
        renamed[name] = value
    assert renamed.keys() != state.keys()
    assert todays_names(renamed).keys() == state.keys()
    safe.unlink()
    pickled = folder / "unet" / "diffusion_pytorch_model.bin"
    torch.save(renamed, pickled)
    assert torch.equal(draw(sampler("ddrm", folder)), whole)
    torch.save({"network": small_unet()}, pickled)
    with pytest.raises(BenchError, match="holds more than tensors and is not loaded"):
        draw(sampler("ddrm", folder))


def no_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def other_weights(folder: Path) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != "conv_in.bias"}, path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: edit(f / "model_index.json", vqvae=["diffusers", "VQModel"]), "it has a vqvae, so that its network"),
        (lambda f: edit(f / "unet/config.json", _class_name="UNet2DConditionModel"), "is a UNet2DConditionModel"),
        (lambda f: edit(f / "unet/config.json", in_channels=6), "its network has 6 channels and 3 of output"),
        (lambda f: edit(f / "unet/config.json", num_class_embeds=10), "wants a class"),
        (lambda f: edit(f / "unet/config.json", time_embedding_type="fourier"), "wants noise levels and not steps"),
        (lambda f: edit(f / "unet/config.json", sample_size=None), "the size None, not one side"),
        (lambda f: edit(f / "unet/config.json", down_block_types=["A", "B"]), "diffusers cannot build its network"),
        (lambda f: edit(f / "scheduler/scheduler_config.json", beta_schedule="wavy"), "its schedule is not known"),
        (lambda f: edit(f / "scheduler/scheduler_config.json", prediction_type="flow"), "prediction_type flow is not"),
        (
            lambda f: edit(f / "scheduler/scheduler_config.json", variance_type="learned_range"),
            "with 3 channels of out",
        ),
        (lambda f: edit(f / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True), "no signal left"),
        (
            lambda f: (f / "scheduler/scheduler_config.json").write_text('{"_class_name": "E"}'),
            "scheduler E has no betas",
        ),
        (lambda f: (f / "scheduler/scheduler_config.json").write_text("[]"), "holds no settings: fetch it again"),
        (lambda f: (f / "unet/config.json").write_text("{"), "config.json cannot be read"),
        (lambda f: (f / "unet/config.json").unlink(), "has no config.json of a UNet2DModel, here or in unet/"),
        (no_weights, "has no diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin"),
        (other_weights, "has no conv_in.bias"),
    ],
)
def test_what_is_no_prior_is_refused(change: Callable[[Path], Any], sentence: str, folder: Path) -> None:
    change(folder)
    with pytest.raises(BenchError, match=sentence):
        draw(sampler("ddrm", folder))


def test_a_file_needs_a_shape_and_steps_have_a_limit(folder: Path) -> None:
    with pytest.raises(
        BenchError, match=r"weights=faces.pt is no folder and no hf:OWNER/NAME, and a file needs the shape"
    ):
        draw(sampler("ddrm", "faces.pt"))
    edit(folder / "scheduler/scheduler_config.json", num_train_timesteps=50)
    with pytest.raises(BenchError, match="steps=60 is more than the 50 of"):
        draw(sampler("ddrm", folder, steps=60))


# the published repository


def test_the_published_repositorys_network_has_its_number_of_parameters() -> None:
    """From its settings, without values."""
    with torch.device("meta"):
        unet = UNet2DModel.from_config(CELEBAHQ)
    assert sum(p.numel() for p in unet.parameters()) == 113_673_219


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_configurations_at_256_pixels(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are the small ones with another prior, build, and know their size and cost from the settings alone."""
    (tmp_path / "config.json").write_text(json.dumps(CELEBAHQ))
    (tmp_path / "scheduler_config.json").write_text(json.dumps(CELEBAHQ_SCHEDULE))
    monkeypatch.setattr(hub, "fetch", lambda name, files: tmp_path)
    for prior, shape in (("celebahq256", None), ("imagenet256", 256)):
        config = method_config(f"{name}_{prior}")
        assert config.name == name
        method = make_method(config)
        assert isinstance(method, DiffusionSampler)
        assert method.size == (256, 256)
        assert (method.config and method.config.channels) == shape
        assert method.evaluations >= 20
        small = method_config(name).parameters
        assert config.parameters.keys() == small.keys()
        assert config.parameters.get("variance", "sde") == "sde"  # the first one's is fixed
    assert method_config(f"{name}_celebahq256").parameters["weights"] == "hf:google/ddpm-ema-celebahq-256"


def test_any_sampler_takes_any_prior_on_the_command_line() -> None:
    words = ["methods=[ddrm,dps]", "prior@methods.ddrm=ffhq256", "network/unet@methods.dps.unet=ffhq256"]
    found = plain(compose("run", words))["methods"]
    assert (found["ddrm"]["weights"], found["ddrm"]["unet"]["channels"], found["ddrm"]["steps"]) == (
        "ffhq_10m.pt",
        128,
        20,
    )
    assert (found["dps"]["weights"], found["dps"]["unet"]["channels"]) == ("prior64.safetensors", 128)


@pytest.mark.parametrize("name", [*SAMPLERS, "deepinv_sampler"])
def test_every_prior_goes_with_every_sampler(name: str) -> None:
    small = method_config(name).parameters
    for prior, weights in (("ffhq256", "ffhq_10m.pt"), ("celebahq256", "hf:google/ddpm-ema-celebahq-256")):
        found = plain(compose("run", [f"methods=[{name}]", f"prior@methods.{name}={prior}"]))["methods"][name]
        assert found["weights"] == weights
        assert found.keys() == small.keys()
        assert found["steps"] == small["steps"]


@pytest.mark.slow
def test_the_shape_of_the_published_repository(tmp_path: Path) -> None:
    """Its settings with random weights: 113 673 219 parameters, a step of DDRM at 256 pixels."""
    (tmp_path / "config.json").write_text(json.dumps(CELEBAHQ))
    (tmp_path / "scheduler_config.json").write_text(json.dumps(CELEBAHQ_SCHEDULE))
    (tmp_path / "model_index.json").write_text(json.dumps(
        {"_class_name": "DDPMPipeline", **{k: ["diffusers", "-"] for k in ("scheduler", "unet")}}
    ))  # fmt: skip
    unet = UNet2DModel.from_config(CELEBAHQ)
    assert sum(p.numel() for p in unet.parameters()) == 113_673_219
    save_file(unet.state_dict(), tmp_path / "diffusion_pytorch_model.safetensors")
    config = method_config("ddrm_celebahq256", {"weights": str(tmp_path), "steps": 2})
    method = make_method(config).prepare(Bicubic(256, 4))
    y = (255 * torch.rand(1, 3, 64, 64)).round() / 255
    assert method.sample(y, 1).isfinite().all()


# a hub on this machine


@pytest.fixture
def served(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Serves the folder as REPOSITORY at COMMIT, by the hub's protocol; yields the paths that are asked for."""
    from huggingface_hub import constants

    files = {str(p.relative_to(folder)): p for p in flat(folder).iterdir() if p.is_file()}
    torch.save({}, folder / "diffusion_pytorch_model.bin")
    files["diffusion_pytorch_model.bin"] = folder / "diffusion_pytorch_model.bin"
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            if path in (f"/api/models/{REPOSITORY}", f"/api/models/{REPOSITORY}/revision/{COMMIT}"):
                listed = [{"rfilename": name} for name in files]
                self.send(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": listed}).encode(), body)
            elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
                tree = [
                    {"type": "file", "path": name, "size": p.stat().st_size, "oid": f"{i:040x}"}
                    for i, (name, p) in enumerate(files.items())
                ]
                self.send(json.dumps(tree).encode(), body)
            elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
                self.send(files[path.rpartition("/")[2]].read_bytes(), body)
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RevisionNotFound" if REPOSITORY in path else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def send(self, content: bytes, body: bool) -> None:
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hash(content) & (2**64 - 1):040x}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def test_a_repository_is_fetched_pinned_and_found_again(
    served: list[str], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same samples as from the folder; no pickle is fetched beside safetensors; then it works without the hub."""
    from huggingface_hub import constants

    whole = draw(sampler("ddrm", folder))
    assert torch.equal(draw(sampler("ddrm", f"hf:{REPOSITORY}@{COMMIT}")), whole)
    assert not [path for path in served if path.endswith(".bin")]
    assert not (tmp_path / "cache").exists()
    assert torch.equal(draw(sampler("ddrm", f"hf:{REPOSITORY}")), whole)
    assert json.loads((tmp_path / "cache/weights/hub.json").read_text()) == {REPOSITORY: COMMIT}
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    served.clear()
    for name in (f"hf:{REPOSITORY}", f"hf:{REPOSITORY}@{COMMIT}"):
        assert torch.equal(draw(sampler("ddrm", name)), whole)
    assert not served


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (f"hf:{REPOSITORY}@main", "names no repository of the hub: write hf:OWNER/NAME@COMMIT with the 40 digits"),
        ("hf:faces", "names no repository of the hub"),
        (f"hf:{REPOSITORY}@{COMMIT[::-1]}", "could not be fetched from the Hugging Face hub"),
        ("hf:nobody/nothing", "could not be fetched from the Hugging Face hub"),
    ],
)
def test_what_the_hub_has_not_is_one_sentence(name: str, sentence: str, served: list[str]) -> None:
    with pytest.raises(BenchError, match=sentence) as raised:
        draw(sampler("ddrm", name))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", f'{{"{REPOSITORY}": 1}}'])
def test_damaged_pins_are_one_sentence(content: str, served: list[str], tmp_path: Path) -> None:
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cache" / "weights" / "hub.json").write_text(content)
    with pytest.raises(BenchError, match=r"hub\.json .*: delete it, and repositories are pinned anew\.$"):
        hub.fetch(f"hf:{REPOSITORY}", ["*.json"])


def test_no_connection_is_one_sentence(served: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in (f"hf:{REPOSITORY}", f"hf:{REPOSITORY}@{COMMIT}"):
        with pytest.raises(BenchError, match="copy the repository here by other means and give its folder"):
            draw(sampler("ddrm", name))
