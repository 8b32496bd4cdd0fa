"""LPIPS against its package's own forward pass, with random backbones, since its weights need a download.

Shift-tolerant LPIPS against figures of its package: ``python -m scripts.export_stlpips --figures``.
"""

import contextlib
import io
import warnings

import lpips
import numpy as np
import pytest
import torch
import torchvision

from bench.errors import BenchError
from bench.metrics import Evaluation, load_metrics, metrics, resolve_metrics
from bench.metrics import perceptual as module
from bench.metrics.perceptual import PerceptualNet, from_lpips, load_net
from bench.metrics.stlpips import blur_pool
from bench.operators.bicubic import Bicubic, enlarge
from scripts.export_stlpips import pairs

# stlpips_pytorch 0.0.2, LPIPS(net="alex", variant="shift_tolerant", pnet_rand=True), torch 2.14.1 on a CPU, float32
PACKAGE = {
    "astronaut33 noisy": 0.22128886,
    "astronaut33 blurred": 0.287271053,
    "astronaut33 shifted": 0.00920458417,
    "astronaut64 noisy": 0.406279385,
    "astronaut64 blurred": 0.194516778,
    "astronaut64 shifted": 0.0067602545,
    "astronaut128 noisy": 0.45820117,
    "astronaut128 blurred": 0.163043469,
    "astronaut128 shifted": 0.00450618239,
    "astronaut200 noisy": 0.566230774,
    "astronaut200 blurred": 0.106657416,
    "astronaut200 shifted": 0.00566789694,
    "coffee33 noisy": 0.432030588,
    "coffee33 blurred": 0.118668079,
    "coffee33 shifted": 0.00786898844,
    "coffee64 noisy": 0.545766056,
    "coffee64 blurred": 0.0789212435,
    "coffee64 shifted": 0.007527899,
    "coffee128 noisy": 0.526638269,
    "coffee128 blurred": 0.066716373,
    "coffee128 shifted": 0.00240755617,
    "coffee200 noisy": 0.466472,
    "coffee200 blurred": 0.0986169726,
    "coffee200 shifted": 0.00375083042,
    "random 32x32": 0.0620195791,
    "random 47x64": 0.0395543128,
    "random 96x96": 0.0390705317,
}
# the same with spatial=True: the NTIRE score of the samples of the fixture `evaluation`
NTIRE = [2.765477, 1.875648, 2.685907]
PAIRS = pairs()


@pytest.fixture
def evaluation(photographs: torch.Tensor) -> Evaluation:
    d = Bicubic(64, 4)
    noise = torch.randn(3, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    samples = (enlarge(d.forward(photographs), d.size)[:, None] + 0.1 * noise).clamp(0, 1)
    return Evaluation(photographs, d.observe(photographs), samples, d)


def quiet(make):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return make()


@pytest.mark.parametrize("name", PACKAGE)
def test_stlpips_equals_its_package(name: str) -> None:
    a, b = PAIRS[name]
    net = load_net("stlpips_alex", torch.device("cpu"))
    assert float(net.distance(net.embed(a), net.embed(b))) == pytest.approx(PACKAGE[name], rel=1e-5)


def test_every_pair_has_a_figure() -> None:
    assert PACKAGE.keys() == PAIRS.keys()


def test_stlpips_of_several_samples_is_that_of_each(evaluation: Evaluation) -> None:
    e = evaluation
    net = load_net("stlpips_alex", torch.device("cpu"))
    single = [
        [net.distance(net.embed(x[None]), net.embed(h[None])) for x in s] for s, h in zip(e.samples, e.hr, strict=True)
    ]
    ours = metrics.get("stlpips_alex")()(e)
    torch.testing.assert_close(ours, torch.tensor(single), rtol=1e-5, atol=1e-7)
    assert (ours > 0.01).all()


def test_blur_pool_against_a_few_lines() -> None:
    x = torch.rand(2, 3, 9, 12)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    rows = (padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]) / 4
    expected = ((rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 4)[..., ::2, ::2]
    assert expected.shape[-2:] == (6, 7)
    np.testing.assert_allclose(blur_pool(x).numpy(), expected, rtol=1e-5)


def test_gradients_reach_the_images() -> None:
    x = torch.rand(1, 3, 64, 64, requires_grad=True)
    net = load_net("stlpips_alex", torch.device("cpu"))
    net.distance(net.embed(x), net.embed(torch.rand(1, 3, 64, 64))).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_lpips_equals_its_package(backbone: str, evaluation: Evaluation) -> None:
    torch.manual_seed(0)
    library = quiet(lambda: lpips.LPIPS(net=backbone, pnet_rand=True)).eval()
    net = from_lpips(library)
    e = evaluation
    with torch.no_grad():
        theirs = library(2 * e.samples[:, 0] - 1, 2 * e.hr - 1).flatten()
    torch.testing.assert_close(net.distance(net.embed(e.samples[:, 0]), net.embed(e.hr)), theirs, rtol=1e-4, atol=1e-6)
    library.spatial = True
    with torch.no_grad():
        theirs = library(2 * e.samples[:, 0] - 1, 2 * e.hr - 1)[:, 0]
    ours = net.distance_map(net.embed(e.samples[:, 0]), net.embed(e.hr), 64)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_apd_is_the_distance_of_every_pair(evaluation: Evaluation) -> None:
    x = evaluation.samples
    net = load_net("stlpips_alex", torch.device("cpu"))
    expected = [net.distance(net.embed(x[:, i]), net.embed(x[:, j])) for i in range(4) for j in range(i + 1, 4)]
    ours = metrics.get("apd_stlpips_alex")()(evaluation)
    torch.testing.assert_close(ours, torch.stack(expected, 1), rtol=1e-5, atol=1e-7)


def test_diversity_follows_the_ntire_definition(evaluation: Evaluation) -> None:
    net = load_net("stlpips_alex", torch.device("cpu"))
    expected = []
    for hr, samples in zip(evaluation.hr, evaluation.samples, strict=True):
        truth = [f.expand(4, -1, -1, -1) for f in net.embed(hr[None])]
        maps = net.distance_map(net.embed(samples), truth, 64).numpy()
        best = maps.reshape(4, -1).mean(1).min()
        expected.append((best - maps.min(0).mean()) / best * 100)
    ours = metrics.get("diversity_stlpips_alex")()(evaluation)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-4)
    assert ours.numpy() == pytest.approx(NTIRE, rel=1e-4)


def test_identical_samples_have_no_diversity(evaluation: Evaluation) -> None:
    e = evaluation
    e.samples = e.samples[:, :1].expand(-1, 4, -1, -1, -1)
    assert metrics.get("apd_stlpips_alex")()(e).abs().max() < 1e-6
    assert metrics.get("diversity_stlpips_alex")()(e).abs().max() < 1e-3


def test_features_are_computed_once_per_image(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    net = load_net("stlpips_alex", torch.device("cpu"))
    images: list[int] = []
    embed = PerceptualNet.embed
    monkeypatch.setattr(PerceptualNet, "embed", lambda self, x: images.append(len(x)) or embed(self, x))
    names = ["stlpips_alex", "apd_stlpips_alex", "diversity_stlpips_alex"]
    for metric in load_metrics(names, "cpu").values():
        assert metric.net is net
        metric(evaluation)
    assert sum(images) == 3 * (4 + 1)


def test_fallback_is_announced_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lpips_weights_missing", lambda backbone: "no file")
    names, notice = resolve_metrics(["psnr", "perceptual", "apd_perceptual"], "auto")
    assert names == ["psnr", "stlpips_alex", "apd_stlpips_alex"]
    assert notice is not None
    assert "stlpips_alex" in notice
    monkeypatch.setattr(module, "lpips_weights_missing", lambda backbone: None)
    assert resolve_metrics(["perceptual"], "auto") == (["lpips_alex"], None)


def test_damaged_weights_count_as_missing(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert "no alexnet" in module.lpips_weights_missing("alex")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / module.BACKBONES["alex"]).write_bytes(b"half a file")
    assert "truncated, damaged or another file" in module.lpips_weights_missing("alex")


@pytest.mark.parametrize("whole", [False, True])
def test_a_wrong_file_in_the_cache_is_not_used(tmp_path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / module.BACKBONES["alex"]
    path.parent.mkdir()
    if whole:  # one that would load: an AlexNet, but not the published one
        torch.save(torchvision.models.alexnet().state_dict(), path)
    else:
        path.write_bytes(b"no weights at all")
    load_net.cache_clear()
    with pytest.raises(
        BenchError, match=r"lpips_alex cannot be computed: .*7be5be79\.pth is .*another file: delete it"
    ):
        load_net("lpips_alex", torch.device("cpu"))


def test_no_network_is_one_sentence(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*a, **k):
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    load_net.cache_clear()
    with pytest.raises(BenchError, match=r"could not be downloaded.*use perceptual=stlpips_alex"):
        load_net("lpips_alex", torch.device("cpu"))


def test_unknown_distance() -> None:
    with pytest.raises(BenchError, match="lpips_alex"):
        resolve_metrics(["perceptual"], "lpips_alx")
