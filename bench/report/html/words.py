"""What metrics and statistics say, for readers who meet them for the first time."""

from __future__ import annotations

from fnmatch import fnmatchcase

METRICS = {
    "psnr": (
        "Fidelity to the truth, pixel by pixel. The average of all plausible images scores best, and that is blurred.",
        "None: a perfect sampler is about 3 dB below the best estimate.",
    ),
    "ssim": ("Fidelity to the truth in local structure and contrast.", "None, as for PSNR."),
    "lpips_*": ("Distance to the truth in features of a network that agree with how people judge.", "None."),
    "stlpips_*": (
        "Distance to the truth as people judge it, by a network that does not mind a shift of a pixel.",
        "None.",
    ),
    "brisque": ("How natural an image looks by itself, without the truth. Smaller is more natural.", "None."),
    "lr_psnr": (
        "Consistency: the sample, degraded again, beside the low-resolution image. "
        "Rounding to 8 bits limits it to about 72 dB at x4 and 76 dB at x8.",
        "As high as rounding allows, where the observation has no noise; else -20 log10(sigma), and more is "
        "fitted to the noise.",
    ),
    "lr_psnr_exact": (
        "Consistency of samples before they are clipped and rounded.",
        "As high as numbers allow, where the observation has no noise; else -20 log10(sigma).",
    ),
    "apd_*": (
        "Diversity: average distance between two samples of one image.",
        "The same distance between a sample and the truth: no more, no less.",
    ),
    "diversity_*": (
        "Diversity that is useful: how much the best of local choices gains over the best sample.",
        "None.",
    ),
    "seconds": ("Wall time for one sample of one image.", "None."),
    "throughput": ("Samples per second in the best batch.", "None."),
}
"""By name or pattern: what a metric says, and its right value (that of a perfect sampler of the posterior)."""

STATISTICS = {
    "apd_ratio_*": "Are two samples as far apart as a sample and the truth? Below: too narrow.",
    "sample_mean_gain": "How much does the mean of the samples gain over one sample?",
    "lr_residual": "Is the degraded sample as far from the observation as the noise? Higher: fitted to the noise.",
    "coverage*": "How often does the interval between samples hold the truth, pixel by pixel?",
    "rank_error": "Is the truth as often the lowest as the middle one, along directions that the operator hides?",
    "tarp_error": "The same for the distance from reference points.",
    "energy": "One score for being near and as spread as one should. Smaller is better.",
    "crps": "One score for being near and as spread as one should, intensity by intensity. Smaller is better.",
    "mmse_gap": "How far is the mean of the samples from the best estimate, in units of the least error?",
    "posterior_std_ratio": "The spread of the samples over the true one.",
    "sliced_wasserstein": "Distance from exact samples over that between two exact sets.",
    "c2st": "Can a classifier tell a sample from an exact one?",
}
"""By name or pattern: what a statistic asks."""


def about_metric(name: str) -> tuple[str, str]:
    """What a metric says and its right value, ("", "") for one that is not known here."""
    return next((text for pattern, text in METRICS.items() if fnmatchcase(name, pattern)), ("", ""))


def about_statistic(name: str) -> str:
    """What a statistic asks, "" for one that is not known here."""
    return next((text for pattern, text in STATISTICS.items() if fnmatchcase(name, pattern)), "")
