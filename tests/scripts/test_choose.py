"""The energy score against a naive double loop, and that the truth has the smallest."""

import pytest
import torch

from scripts.choose import energy_score


def test_energy_score_is_the_double_loop() -> None:
    g = torch.Generator().manual_seed(0)
    x, t = torch.rand(3, 4, 3, 5, 5, generator=g), torch.rand(3, 3, 5, 5, generator=g)
    for b, found in enumerate(energy_score(x, t)):
        p, values = 4, 75
        error = sum(float((x[b, i] - t[b]).square().sum()) ** 0.5 for i in range(p)) / p
        spread = sum(float((x[b, i] - x[b, j]).square().sum()) ** 0.5 for i in range(p) for j in range(p))
        expected = (error - spread / (2 * p * (p - 1))) / values**0.5
        assert found.item() == pytest.approx(expected, rel=1e-6)


def test_energy_score_is_unbiased_and_smallest_for_the_true_distribution() -> None:
    """Standard normal truths: E|x - x'| - E|x' - x''| / 2 is half of E|x - x'| for samples of that distribution."""
    g = torch.Generator().manual_seed(0)
    values = 12
    t = torch.randn(4000, values, generator=g)
    noise = torch.randn(4000, 6, values, generator=g)
    found = {spread: energy_score(spread * noise, t).mean().item() for spread in (0.0, 0.6, 1.0, 1.6)}
    assert min(found, key=lambda s: found[s]) == 1.0
    distance = (torch.randn(20000, values, generator=g) - torch.randn(20000, values, generator=g)).norm(dim=1).mean()
    assert found[1.0] == pytest.approx(distance.item() / 2 / values**0.5, rel=0.02)
    few = energy_score(noise[:, :2], t).mean().item()  # the number of samples does not move it
    assert few == pytest.approx(found[1.0], rel=0.03)


def test_energy_score_needs_two_samples() -> None:
    with pytest.raises(ValueError, match="two samples"):
        energy_score(torch.zeros(1, 1, 3), torch.zeros(1, 3))
