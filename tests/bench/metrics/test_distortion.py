import numpy as np
import pytest
import skimage.metrics
import torch

from bench.contract import Noise
from bench.metrics import Evaluation, better_at, metrics, right_residual
from bench.operators import make_operator, quantise
from bench.operators.bicubic import Bicubic, enlarge
from bench.operators.inpainting import Inpainting


@pytest.fixture
def evaluation(photographs: torch.Tensor) -> Evaluation:
    d = Bicubic(64, 4)
    y = d.observe(photographs)
    noise = torch.randn(3, 4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    samples = quantise(enlarge(y, d.size)[:, None] + 0.05 * noise)
    return Evaluation(photographs, y, samples, d)


def value(name: str, e: Evaluation) -> np.ndarray:
    return metrics.get(name)()(e).numpy()


def test_psnr_against_scikit_image(evaluation: Evaluation) -> None:
    e = evaluation
    reference = [
        [skimage.metrics.peak_signal_noise_ratio(h.numpy(), x.numpy(), data_range=1) for x in s]
        for h, s in zip(e.hr, e.samples, strict=True)
    ]
    np.testing.assert_allclose(value("psnr", e), reference, atol=1e-3)


def test_ssim_against_scikit_image(evaluation: Evaluation) -> None:
    e = evaluation
    reference = [
        [
            skimage.metrics.structural_similarity(
                h.double().numpy(), x.double().numpy(), data_range=1, channel_axis=0,
                gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
            )[1][:, 5:-5, 5:-5].mean()
            for x in s
        ]
        for h, s in zip(e.hr, e.samples, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(value("ssim", e), reference, atol=1e-4)


def test_lr_psnr_against_a_few_lines(evaluation: Evaluation) -> None:
    e = evaluation
    low = np.clip(e.operator.forward(e.samples.double().float()).numpy(), 0, 1)
    mse = ((low - e.y[:, None].numpy()) ** 2).mean((2, 3, 4))
    np.testing.assert_allclose(value("lr_psnr", e), -10 * np.log10(mse), atol=1e-3)


def test_lr_psnr_exact_is_of_the_samples_before_clipping_and_rounding(evaluation: Evaluation) -> None:
    e = evaluation
    raw = e.operator.project(e.samples, e.y[:, None])  # consistent, with values beyond [0, 1]
    e = Evaluation(e.hr, e.y, quantise(raw), e.operator, raw=raw)
    assert value("lr_psnr_exact", e).min() == pytest.approx(80, abs=0.01)
    assert value("lr_psnr", e).max() < 75
    mse = ((e.operator.forward(raw + 0.01) - e.y[:, None]).double() ** 2).mean((2, 3, 4)).numpy()
    moved = Evaluation(e.hr, e.y, e.samples, e.operator, raw=raw + 0.01)
    np.testing.assert_allclose(value("lr_psnr_exact", moved), -10 * np.log10(mse + 1e-8), atol=1e-3)
    np.testing.assert_array_equal(value("lr_psnr_exact", moved.part(slice(1, 2)))[0], value("lr_psnr_exact", moved)[1])


@pytest.mark.parametrize("name", ["lr_psnr", "lr_psnr_exact"])
def test_with_noise_the_truth_has_the_right_lr_psnr_and_no_more(name: str) -> None:
    """A perfect sample is as far from y as the truth: by the noise, 26.02 dB at sigma 0.05."""
    assert right_residual(0.05) == pytest.approx(26.0206, abs=1e-4)
    assert right_residual(1e-5) == pytest.approx(10 * np.log10(1 / (1e-10 + 1e-8)))  # piq's PSNR is 80 dB at most
    assert np.isnan(right_residual(0.0))
    assert (better_at(name, 0.0), better_at(name, 0.05), better_at("psnr", 0.05)) == ("higher", "neither", "higher")
    operator = make_operator({"name": "bicubic", "sigma": 0.05}, 2, 64, range=None)
    hr = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    y = operator.observe(hr, Noise.of_observation(0, list("abcd")))
    assert value(name, Evaluation(hr, y, hr[:, None], operator)).mean() == pytest.approx(26.02, abs=0.15)


def test_rounding_limits_lr_psnr() -> None:
    """Independent errors of 1/12 level^2, averaged by the kernel: the cap in docs/metrics.md."""
    for scale, cap in ((4, 72.0), (8, 76.3)):
        d = Bicubic(256, scale)
        x = 0.25 + 0.5 * torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
        e = Evaluation(x, d.forward(x), quantise(x)[:, None], d, raw=x[:, None])
        assert value("lr_psnr", e).mean() == pytest.approx(cap, abs=0.15)
        rows = (d._exact[0].down ** 2).sum(1).mean()
        assert -10 * np.log10(rows**2 / 12 / 255**2 + 1e-8) == pytest.approx(cap, abs=0.15)


def test_a_perfect_sample(photographs: torch.Tensor) -> None:
    d = Bicubic(64, 4)
    e = Evaluation(photographs, d.forward(photographs), photographs[:, None], d)
    assert value("psnr", e).min() == pytest.approx(80, abs=0.01)
    assert value("ssim", e).min() == pytest.approx(1)
    assert value("lr_psnr", e).min() == pytest.approx(80, abs=0.01)


def test_apd_mse_against_numpy(evaluation: Evaluation) -> None:
    x = evaluation.samples.double().numpy()
    reference = [[((s[i] - s[j]) ** 2).mean() for i in range(4) for j in range(i + 1, 4)] for s in x]
    np.testing.assert_allclose(value("apd_mse", evaluation), reference, rtol=1e-4)


def test_apd_is_twice_the_variance(evaluation: Evaluation) -> None:
    variance = evaluation.samples.double().var(1, unbiased=True).mean((1, 2, 3))
    np.testing.assert_allclose(value("apd_mse", evaluation).mean(1), 2 * variance.numpy(), rtol=1e-4)


@pytest.mark.parametrize(("deterministic", "expected"), [(True, 0.0), (False, np.nan)])
def test_apd_of_one_sample(photographs: torch.Tensor, deterministic: bool, expected: float) -> None:
    d = Bicubic(64, 4)
    e = Evaluation(photographs, d.observe(photographs), photographs[:, None], d, deterministic)
    np.testing.assert_equal(value("apd_mse", e), np.full((3, 1), expected, np.float32))


def test_lr_psnr_counts_seen_pixels_alone(photographs: torch.Tensor) -> None:
    """A hidden pixel is 0 in y and in A x: counted, it would look like perfect consistency."""
    operator = Inpainting(64, mask="box", missing=0.25)
    y = operator.observe(photographs)
    noise = torch.randn(3, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    e = Evaluation(photographs, y, photographs[:, None] + 0.05 * noise, operator)
    seen = operator.forward(torch.ones(64, 64)).bool()
    clipped = e.samples.clamp(0, 1)
    for name, samples in (("lr_psnr", clipped), ("lr_psnr_exact", e.samples)):
        errors = (samples - photographs[:, None])[..., seen]
        reference = -10 * np.log10(errors.square().mean((2, 3)).numpy() + 1e-8)
        np.testing.assert_allclose(value(name, e), reference, atol=0.02)
