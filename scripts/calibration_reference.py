"""Figures of published packages that tests hold ours against (tests/bench/metrics/test_calibration.py).

    pip install --target FOLDER numpy==2.4.6 scoringrules==0.10.0 properscoring==0.1 tarp==0.1.1
    PYTHONPATH=FOLDER python -m scripts.calibration_reference

prints energy score and CRPS of the first five images, and TARP's curve of all forty. None of the packages is needed to
run the suite or its tests.
"""

from __future__ import annotations

import numpy as np


def golden() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth [40, 12], samples [40, 6, 12] and reference points [40, 12], as the tests have them."""
    rng = np.random.default_rng(7)
    truth, samples = rng.normal(size=(40, 12)), 0.7 * rng.normal(size=(40, 6, 12))
    return truth, samples, rng.uniform(-1, 1, size=(40, 12))


def main() -> None:
    """Print what the packages give."""
    import properscoring
    import scoringrules
    from tarp import get_tarp_coverage

    truth, samples, references = golden()
    x, t = samples[:5], truth[:5]
    energy = scoringrules.es_ensemble(t, x, estimator="fair")
    print("scoringrules, energy score:", energy.tolist())
    crps = scoringrules.crps_ensemble(t, x, m_axis=1, estimator="fair").mean(1)
    print("scoringrules, CRPS:", crps.tolist())
    print("properscoring, CRPS:", properscoring.crps_ensemble(t, x, axis=1).mean(1).tolist())
    coverage, _ = get_tarp_coverage(samples.swapaxes(0, 1), truth, references, norm=False, num_alpha_bins=7)
    print("tarp, coverage:", coverage.tolist())


if __name__ == "__main__":
    main()
