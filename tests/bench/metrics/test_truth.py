"""The statistics of truth.csv: right for the oracle, and wrong for whoever is wrong."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from bench.contract import Noise
from bench.data.gaussians import Gaussians
from bench.metrics import Evaluation, metrics
from bench.metrics.perceptual import load_net
from bench.metrics.statistic import FEW, Conditions, Estimate, Statistic, StatisticFacts, load_statistics, statistics
from bench.metrics.truth import accuracy, deviation, rank_curves
from bench.operators import make_operator
from bench.operators.bicubic import Bicubic
from bench.posterior import Posterior
from bench.report.stats import holm
from bench.report.truth import MOVED
from bench.run.draw import observe
from scripts.truth_power import measure, moved, pairs, samplers, table

OWN = [n for n in statistics.names() if not statistics.facts(n).metrics]
LR = ("lr_psnr", "lr_psnr_exact")
Found = dict[str, dict[str, Estimate]]

REJECTED_BY = {
    "half spread": [
        "apd_ratio_mse", "c2st", "coverage50", "coverage90", "crps", "energy", "lr_residual", "posterior_std_ratio",
        "rank_error", "sample_mean_gain", "sliced_wasserstein", "tarp_error",
    ],
    "twice spread": [
        "apd_ratio_mse", "c2st", "coverage50", "coverage90", "crps", "energy", "lr_residual", "posterior_std_ratio",
        "rank_error", "sample_mean_gain", "sliced_wasserstein", "tarp_error",
    ],
    "biased": [
        "apd_ratio_mse", "c2st", "coverage50", "coverage90", "crps", "energy", "lr_residual", "mmse_gap",
        "sample_mean_gain", "tarp_error",
    ],
    "prior": [
        "c2st", "crps", "energy", "lr_residual", "mmse_gap", "posterior_std_ratio", "sliced_wasserstein", "tarp_error",
    ],
    "posterior mean": [
        "apd_ratio_mse", "c2st", "crps", "energy", "lr_residual", "posterior_std_ratio", "sample_mean_gain",
        "sliced_wasserstein",
    ],
    "tau 0.8": [
        "apd_ratio_mse", "c2st", "coverage50", "coverage90", "crps", "energy", "lr_residual", "posterior_std_ratio",
        "sample_mean_gain", "tarp_error",
    ],
    "clipped": [
        "apd_ratio_mse", "coverage50", "coverage90", "crps", "energy", "lr_residual", "mmse_gap", "sample_mean_gain",
    ],
}  # fmt: skip
"""What docs/truth.md shows at n = 5 and at 32, but for what is near its bound (`CLEAR`)."""
CLEAR = 1.5
"""Distance that a different processor does not turn."""


def rejected(e: Estimate, name: str) -> bool:
    return bool(e.distance > 1 or (e.distance < -1 and not statistics.facts(name).bound))


def joint(found: dict[str, Estimate]) -> dict[str, float]:
    """Holm's p of all statistics of a sampler: each alone leaves its interval in one case of twenty, the oracle's too.

    All together do so in one of twenty at most, whatever depends on what (energy and CRPS hardly differ).
    """
    return dict(zip(found, holm(np.array([e.p for e in found.values()])), strict=True))


def check(found: Found) -> None:
    """The oracle is at its right values, the others are rejected by the statistics that should."""
    p = joint(found["oracle"])
    assert min(p.values()) > 0.05, p
    assert all(min(joint(found[s]).values()) < 0.05 for s in REJECTED_BY)
    for sampler, names in REJECTED_BY.items():
        for name in names:
            if name == "c2st" and not importlib.util.find_spec("sklearn"):
                continue
            assert rejected(found[sampler][name], name), (sampler, name, found[sampler][name])
    mean = found["posterior mean"]
    assert mean["apd_ratio_mse"].value == 0
    assert mean["sample_mean_gain"].value == 0
    assert mean["mmse_gap"].value == pytest.approx(0, abs=1e-6)
    for name in ("rank_error", "tarp_error", "coverage50", "coverage90"):
        assert np.isnan(mean[name].value)


@pytest.mark.slow
@pytest.mark.parametrize("n", [5, 32])
def test_power_on_200_images(n: int) -> None:
    found = measure(200, n)
    check(found)
    if importlib.util.find_spec("sklearn"):
        assert found["oracle"]["c2st"].distance <= 1


def test_what_is_rejected_is_what_the_page_shows() -> None:
    section = (Path(__file__).parents[3] / "docs" / "truth.md").read_text()
    section = section.partition("## What rejects whom")[2].partition("\n## ")[0]
    both: list[dict[str, set[str]]] = []
    for part in section.split("\nn = ")[1:]:
        lines = [[c.strip() for c in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("|")]
        shown: dict[str, set[str]] = {sampler: set() for sampler in lines[0][2:]}
        for name, _, *cells in lines[2:]:
            for sampler, text in zip(lines[0][2:], cells, strict=True):
                distance = re.search(r"\(([-+][\d.∞]+)\)\*\*$", text)
                if distance and abs(float(distance[1].replace("∞", "inf"))) >= CLEAR:
                    shown[sampler].add(name.strip("`"))
        both.append(shown)
    five, many = both
    assert {s: five[s] & many[s] for s in five if five[s] & many[s]} == {s: set(n) for s, n in REJECTED_BY.items()}


def test_power_on_a_few_images() -> None:
    found = measure(30, 5)
    assert min(joint(found["oracle"]).values()) > 0.05
    for name in ("apd_ratio_mse", "sample_mean_gain", "coverage50", "rank_error", "tarp_error", "posterior_std_ratio"):
        assert rejected(found["half spread"][name], name)
        # ranks along white directions are the least sharp: 30 images do not do for twice the spread, 200 do
        assert name == "rank_error" or rejected(found["twice spread"][name], name)
    assert rejected(found["biased"]["lr_residual"], "lr_residual")
    assert rejected(found["biased"]["mmse_gap"], "mmse_gap")
    for name in ("energy", "crps", "tarp_error", "lr_residual", "mmse_gap"):
        assert rejected(found["prior"][name], name)
    for name in ("energy", "crps", "apd_ratio_mse", "lr_residual"):
        assert rejected(found["posterior mean"][name], name)
    # TRUTH: a Gaussian sampler whose variance is scaled by tau^2 has APD / MSE = 2 tau^2 / (1 + tau^2)
    assert found["tau 0.8"]["apd_ratio_mse"].value == pytest.approx(2 * 0.64 / 1.64, abs=0.03)
    assert "**" in table(found)


def test_the_ratio_of_a_perceptual_distance_is_1_for_exact_samples_and_for_no_others() -> None:
    """Truth and samples are clipped, since the distance is of images in [0, 1]: the truth stays one more draw.

    Samples that are too wide lower it, too: they are as noisy as each other and the truth is not (docs/truth.md).
    """
    dataset, images, n = Gaussians(), 40, 5
    operator = make_operator({"name": "bicubic", "sigma": 0.05}, 4, 64, range=None).to("cpu", torch.float64)
    posterior, net = Posterior(dataset.mixture, operator), load_net("stlpips_alex", torch.device("cpu"))
    figures: dict[str, list[list[float]]] = {}
    i, j = torch.triu_indices(n, n, 1)
    for index in range(images):
        hr, y = observe(dataset, index, operator, 0)
        truth = net.embed(hr[None].float().clamp(0, 1).expand(n, -1, -1, -1))
        for name, x, _ in samplers(posterior, hr[None], y[None], Noise(0, [dataset.ids[index]], range(n))):
            if name in ("oracle", "half spread", "twice spread", "tau 0.8"):
                features = net.embed(x[0].float().clamp(0, 1))
                pair = net.distance([f[i] for f in features], [f[j] for f in features]).mean()
                figures.setdefault(name, []).append([float(net.distance(features, truth).mean()), float(pair)])
    found = {
        name: statistics.get("apd_ratio_stlpips_alex")().estimate(np.array(values), Conditions(n, 0.05))
        for name, values in figures.items()
    }
    assert abs(found["oracle"].distance) < 1
    assert found["oracle"].hi - found["oracle"].lo < 0.3
    assert found["half spread"].distance < -3
    assert found["tau 0.8"].distance < -3
    assert found["twice spread"].distance < -3


def test_the_interval_of_a_score_against_the_oracle_is_wide_enough() -> None:
    """Two exact sets can change places, so that signs of an image's difference are even: 5% of intervals miss 0.

    Of 400 (binomial, 99.9%: 8 to 34), with tails as heavy as those of energy scores at n = 32 (excess kurtosis 1).
    """
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(400):
        difference = rng.standard_t(10, size=200)
        oracle = rng.normal(8, 3, 200)
        e = statistics.get("energy")().estimate(np.stack([oracle + difference, oracle], 1), Conditions(32))
        assert (abs(e.distance) > 1) == (e.p < 0.05) or abs(e.p - 0.05) < 0.003
        missed += e.p < 0.05
    assert 8 <= missed <= 34


def test_p_values_follow_distances() -> None:
    rng = np.random.default_rng(0)
    oracle = rng.normal(8, 3, 100)
    score = statistics.get("energy")()
    near, far = (
        score.estimate(np.stack([oracle + shift + rng.normal(size=100), oracle], 1), Conditions(5)) for shift in (0, 1)
    )
    assert far.p < 0.005 < 0.05 < near.p
    exact = score.estimate(np.stack([oracle, oracle], 1), Conditions(5))
    assert exact.p == 1
    assert np.isnan(score.estimate(np.stack([oracle, np.full(100, np.nan)], 1), Conditions(5)).p)


def test_exact_sets_against_each_other() -> None:
    """The study of docs/truth.md, small: no bias beyond 3.5 standard errors in any of eight pairs."""
    said = pairs(20, 5, 0.05, resamplings=100)
    apart = re.findall(r"within ([\d.]+) standard errors", said)
    missed = re.findall(r"miss 0 in ([\d.]+)%", said)
    assert len(apart) == len(missed) == 2
    assert max(map(float, apart)) < 3.5
    assert max(map(float, missed)) < 15


@pytest.mark.slow
def test_rounding_and_clipping_move_values_by_what_tables_say() -> None:
    """Differences on the same images, so that 40 do: to a tenth of the interval of 100, or what a digit hides."""
    found = moved(40, 5, 0.05)
    for process, place in (("rounded, truth too", 0), ("clipped, truth too", 1)):
        for name in ("apd_ratio_mse", "coverage50", "coverage90", "sample_mean_gain", "crps", "energy"):
            scale = {"apd_ratio_mse": 0.005, "sample_mean_gain": 0.02}.get(name, 0.1)
            assert found[process][name] == pytest.approx(MOVED[name][place], abs=scale), (process, name)
    for name, (_, _, change) in MOVED.items():
        assert found["projected"][name] == pytest.approx(change, rel=0.2, abs=0.02), name
    assert all(abs(v) < 1e-3 for v in moved(10, 5, 0.0)["projected"].values())


@pytest.mark.parametrize("name", OWN)
def test_figures_of_an_image_do_not_depend_on_the_batch(name: str) -> None:
    if statistics.facts(name).needs == "posterior":
        pytest.skip("needs the posterior")
    operator = Bicubic(16, 4)
    hr = torch.rand(3, 3, 16, 16)
    e = Evaluation(hr, operator.observe(hr), torch.rand(3, 4, 3, 16, 16), operator)
    whole = statistics.get(name)()(e)
    assert whole.dim() == 2
    parts = torch.cat([statistics.get(name)()(e.part(slice(i, i + 1))) for i in range(3)])
    torch.testing.assert_close(whole, parts, equal_nan=True)


def test_one_random_sample_has_no_spread() -> None:
    operator = Bicubic(16, 4)
    hr = torch.rand(2, 3, 16, 16)
    e = Evaluation(hr, operator.observe(hr), torch.rand(2, 1, 3, 16, 16), operator)
    for name in ("rank_error", "tarp_error", "coverage50", "coverage90"):
        assert statistics.get(name)()(e).isnan().all()
    values = statistics.get("apd_ratio_mse")()(e).numpy()
    assert np.isnan(statistics.get("apd_ratio_mse")().estimate(values, Conditions(1)).value)


def test_the_ratio_is_one_of_means_and_not_a_mean_of_ratios() -> None:
    e = statistics.get("apd_ratio_mse")().estimate(np.array([[1.0, 2.0], [3.0, 2.0]]), Conditions(5))
    assert e.value == 1
    assert e.distance == 0


def test_right_values_follow_from_n_and_sigma() -> None:
    def right(name: str, c: Conditions) -> float:
        return float(statistics.get(name)().right(np.zeros(2), c))

    assert right("sample_mean_gain", Conditions(5)) == pytest.approx(10 * np.log10(10 / 6))
    assert right("lr_residual", Conditions(5, sigma=0.05)) == pytest.approx(26.0206, abs=1e-4)
    assert np.isnan(right("lr_residual", Conditions(5)))


def test_ranks_are_uniform_for_exchangeable_members_and_the_bound_holds() -> None:
    """In 100 simulated sets of 50 images the bound at 95% is exceeded by 0 to 11 (binomial, 99.8%)."""
    rng = np.random.default_rng(0)
    exceeded = 0
    for _ in range(100):
        values = rng.normal(size=(50, 6, 1)) + 0.3 * rng.normal(size=(50, 6, 8))  # directions depend on each other
        table = values.argsort(1).argsort(1).reshape(50, -1).astype(float)
        exceeded += statistics.get("rank_error")().estimate(table, Conditions(5)).distance > 1
    assert exceeded <= 11


def test_rank_curves_of_known_ranks() -> None:
    ranks = np.array([[0, 2], [1, 2], [2, 2]])
    curves = rank_curves(ranks, 3)
    np.testing.assert_allclose(curves, [[1 / 3, 2 / 3], [0, 0]])
    assert deviation(curves) == pytest.approx((1 / 3 + 2 / 3) / 4)


def test_a_score_is_compared_with_the_oracle_image_by_image() -> None:
    rng = np.random.default_rng(0)
    oracle = rng.normal(10, 5, 100)
    worse = np.stack([oracle + 0.1 + 0.1 * rng.normal(size=100), oracle], 1)
    e = statistics.get("energy")().estimate(worse, Conditions(5))
    assert e.distance > 1  # though 0.1 is far less than the interval of either
    assert e.hi - e.lo > 1


def test_images_without_figures_are_left_out() -> None:
    values = np.array([[1.0, 1.0], [np.nan, np.nan], [1.0, 3.0]])
    assert statistics.get("apd_ratio_mse")().estimate(values, Conditions(5)).value == 2


def test_c2st_tells_what_differs() -> None:
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    same = rng.normal(size=(100, 2, 5))
    other = same + np.array([0, 1.5])[None, :, None]
    assert accuracy(same) < 0.62
    assert accuracy(other) > 0.9
    e = statistics.get("c2st")().estimate(other.reshape(100, -1), Conditions(5))
    assert e.distance > 1


def test_labels_of_statistics_and_metrics_differ() -> None:
    """Two columns of one name in a report would be two definitions."""
    labels = [statistics.facts(n).label for n in statistics.names()] + [metrics.facts(n).label for n in LR]
    assert len(set(labels)) == len(labels)
    assert statistics.facts("lr_residual").label == "LR residual"


def test_facts_are_literal_and_complete() -> None:
    for name in statistics.names():
        facts: StatisticFacts = statistics.facts(name)
        assert facts.label
        assert facts.source
        assert format(1.5, facts.digits)
        assert issubclass(statistics.get(name), Statistic)
    assert set(load_statistics(False)) < set(load_statistics(True))


@pytest.mark.parametrize("count", [2, 3, 5, 10, FEW - 1])
def test_few_images_rule_out_no_more_than_many(count: int) -> None:
    """Quantiles of the bootstrap missed 0 in 16% of sets of 4 images; of 400 sets (binomial, 99.9%) 5% are 8 to 34."""
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(400):
        oracle = rng.normal(8, 3, count)
        figures = np.stack([oracle + rng.normal(size=count), oracle], 1)
        e = statistics.get("energy")().estimate(figures, Conditions(5))
        reference = ttest_1samp(figures[:, 0] - figures[:, 1], 0).pvalue  # the difference is a mean
        assert e.p == pytest.approx(max(reference, 1e-3), rel=0.2, abs=2e-3)
        assert (abs(e.distance) > 1) == (e.p < 0.05)
        missed += abs(e.distance) > 1
    assert missed <= 34


def test_a_collapsed_sampler_is_ruled_out_by_few_images() -> None:
    figures = np.stack([np.random.default_rng(0).uniform(1, 2, 3), np.zeros(3)], 1)
    e = statistics.get("apd_ratio_mse")().estimate(figures, Conditions(5))
    assert e.distance == -np.inf
    assert e.p < 1e-3
