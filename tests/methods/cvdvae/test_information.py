import numpy as np
import pytest
import torch

from bench.cli import main
from methods.cvdvae.information import decode, pairwise_rmse
from scripts.compare_vdvae import ours


def test_pairwise_rmse_against_numpy() -> None:
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    pairs = [np.sqrt(((x[i] - x[j]) ** 2).mean()) for i in range(4) for j in range(i)]
    assert pairwise_rmse(x).item() == pytest.approx(np.mean(pairs))


def test_given_groups_are_shared_and_the_others_drawn() -> None:
    model = ours("small", low=False)
    generator = torch.Generator().manual_seed(0)
    _, code = decode(model, [], 1, generator)
    given = [z[0] for z in code[:4]]
    _, latents = decode(model, given, 3, generator)
    assert len(latents) == 10
    for l, z in enumerate(latents):
        same = torch.equal(z[0].expand_as(z), z)
        assert same == (l < 4)
    assert all(torch.equal(latents[l][2], given[l]) for l in range(4))


def test_the_command_writes_the_shipped_priors_curve(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    """Appendix A: the curve falls with k and lies lower for larger s."""
    import pandas as pd

    assert (
        main(["figure", "uk", "study.codes=2", "study.images=3", "study.every=6", "device=cpu", f"out={tmp_path}/uk"])
        == 0
    )
    mean = pd.read_csv(tmp_path / "uk.csv").groupby(["k", "scale"])["rmse"].mean().unstack()
    assert (mean.loc[0] > mean.loc[12]).all()
    assert (mean.diff(axis=1).iloc[:, 1:] < 0).all().all()
    assert (tmp_path / "uk.png").is_file()
    assert (tmp_path / "uk.pdf").is_file()
