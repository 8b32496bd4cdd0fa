"""Against the packages' own forward passes; LPIPS with random backbones, since its weights need a download."""

import contextlib
import io
import warnings

import lpips
import numpy as np
import pytest
import torch
from stlpips_pytorch import stlpips

from bench.errors import BenchError
from bench.metrics import Evaluation, load_metrics, metrics, resolve_metrics
from bench.metrics import perceptual as module
from bench.metrics.perceptual import PerceptualNet, load_net
from bench.operators.bicubic import Bicubic


@pytest.fixture
def evaluation(photographs: torch.Tensor) -> Evaluation:
    d = Bicubic(64, 4)
    noise = torch.randn(3, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    samples = (d.up(d.forward(photographs))[:, None] + 0.1 * noise).clamp(0, 1)
    return Evaluation(photographs, d.observe(photographs), samples, d)


def quiet(make):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return make()


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_stlpips_equals_its_package(backbone: str, evaluation: Evaluation) -> None:
    library = quiet(lambda: stlpips.LPIPS(net=backbone, variant="shift_tolerant", pnet_rand=True)).eval()
    e = evaluation
    with torch.no_grad():
        theirs = torch.stack([library(2 * e.samples[:, j] - 1, 2 * e.hr - 1).flatten() for j in range(4)], 1)
    ours = metrics.get(f"stlpips_{backbone}")()(e)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert (ours > 0.01).all()


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_lpips_equals_its_package(backbone: str, evaluation: Evaluation) -> None:
    torch.manual_seed(0)
    library = quiet(lambda: lpips.LPIPS(net=backbone, pnet_rand=True)).eval()
    net = PerceptualNet(library)
    e = evaluation
    with torch.no_grad():
        theirs = library(2 * e.samples[:, 0] - 1, 2 * e.hr - 1).flatten()
    torch.testing.assert_close(net.distance(net.embed(e.samples[:, 0]), net.embed(e.hr)), theirs, rtol=1e-4, atol=1e-6)
    library.spatial = True
    with torch.no_grad():
        theirs = library(2 * e.samples[:, 0] - 1, 2 * e.hr - 1)[:, 0]
    ours = net.distance_map(net.embed(e.samples[:, 0]), net.embed(e.hr), 64)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_apd_is_the_mean_over_pairs_of_the_packages_distance(evaluation: Evaluation) -> None:
    library = quiet(lambda: stlpips.LPIPS(net="alex", variant="shift_tolerant", pnet_rand=True)).eval()
    x = 2 * evaluation.samples - 1
    with torch.no_grad():
        theirs = [library(x[:, i], x[:, j]).flatten() for i in range(4) for j in range(i + 1, 4)]
    ours = metrics.get("apd_stlpips_alex")()(evaluation)
    torch.testing.assert_close(ours, torch.stack(theirs, 1), rtol=1e-4, atol=1e-6)


def test_diversity_follows_the_ntire_definition(evaluation: Evaluation) -> None:
    library = quiet(lambda: stlpips.LPIPS(net="alex", variant="shift_tolerant", pnet_rand=True, spatial=True)).eval()
    expected = []
    for hr, samples in zip(evaluation.hr, evaluation.samples, strict=True):
        with torch.no_grad():
            maps = library(2 * samples - 1, 2 * hr[None] - 1)[:, 0].numpy()
        best = maps.reshape(4, -1).mean(1).min()
        expected.append((best - maps.min(0).mean()) / best * 100)
    ours = metrics.get("diversity_stlpips_alex")()(evaluation)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-3)


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


def test_weights_do_not_change_from_load_to_load() -> None:
    x = torch.rand(1, 3, 64, 64)
    first = load_net("stlpips_vgg", torch.device("cpu")).embed(x)
    load_net.cache_clear()
    torch.manual_seed(99)
    second = load_net("stlpips_vgg", torch.device("cpu")).embed(x)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


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
    assert "truncated or damaged" in module.lpips_weights_missing("alex")


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
