"""What does not change a sample: the size of the batch, the memory format, the precision (nearly)."""

import hydra
import pytest
import torch
from torch import Tensor

from bench.config import read_config
from bench.contract import Noise
from bench.data import make_dataset
from bench.errors import BenchError
from bench.load import make_method
from bench.operators.bicubic import Bicubic
from bench.run.draw import observe


def sample(*overrides: str, n: int = 3, ids: tuple[str, ...] = ("a", "b")) -> Tensor:
    """Samples [2, n, 3, 64, 64] of two faces with the shipped weights, before the output is drawn."""
    words = ["methods=[cvdvae]", "methods.cvdvae.output=mean", *(f"methods.cvdvae.{o}" for o in overrides)]
    with hydra.initialize_config_module("configs", version_base="1.3"):
        method = make_method(read_config(hydra.compose("run", words)).methods[0])
    method.prepare(Bicubic(64, 8))
    dataset = make_dataset({"name": "synthfaces", "size": 64, "split": "val"})
    exact = Bicubic(64, 8, dtype=torch.float64)
    y = torch.stack([observe(dataset, i, exact, 0)[1] for i in range(len(ids))])
    return method.sample(y, n, 0.8, Noise(0, ids, range(n)))


def test_pieces_do_not_change_samples() -> None:
    together = sample("compute.rows=6")
    for rows in (1, 2, 4):
        torch.testing.assert_close(sample(f"compute.rows={rows}"), together, atol=1e-5, rtol=0)


def test_memory_format_does_not_change_samples() -> None:
    torch.testing.assert_close(sample("compute.channels_last=true"), sample(), atol=1e-5, rtol=0)


def test_bf16_is_near() -> None:
    difference = (sample("compute.precision=bf16") - sample()).abs()
    assert difference.mean() < 2e-3
    assert difference.max() > 0  # it does something


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("compute.rows=0", r"compute\.rows=0 is wrong"),
        ("compute.precision=16", "precision=16 is wrong: it should be '32' or 'bf16'"),
        ("compute.compile=fast", "compile=fast is wrong: it should be"),
        ("output=median", "output=median is wrong: it should be"),
        ("low_weights={x4:null,x8:null}", "cvdvae has no low_weights for x8: train it"),
    ],
)
def test_bad_settings_are_one_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        sample(setting)
