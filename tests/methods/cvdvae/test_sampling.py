"""What does not change a sample: the size of the batch, the memory format, the precision (nearly)."""

import hydra
import pytest
import torch
from torch import Tensor

from bench.config import read_config
from bench.contract import Noise
from bench.data import make_dataset
from bench.errors import BenchError
from bench.operators.bicubic import Bicubic
from bench.run.runner import make_method, observe

DEVICE = torch.device("cpu")


def sample(*overrides: str, n: int = 3, ids: tuple[str, ...] = ("a", "b")) -> Tensor:
    """Samples [2, n, 3, 64, 64] of two faces with the shipped weights, before the output is drawn."""
    words = ["methods=[cvdvae]", "methods.cvdvae.output=mean", *(f"methods.cvdvae.{o}" for o in overrides)]
    with hydra.initialize_config_module("configs", version_base="1.3"):
        method = make_method(read_config(hydra.compose("run", words)).methods[0])
    method.prepare(Bicubic(64, 8), DEVICE)
    dataset = make_dataset({"name": "synthfaces", "size": 64, "split": "val"})
    exact = Bicubic(64, 8, dtype=torch.float64)
    y = torch.stack([observe(dataset, i, exact)[1] for i in range(len(ids))])
    return method.sample(y, n, 0.8, Noise(0, ids, range(n)))


def test_pieces_do_not_change_samples() -> None:
    together = sample("batch=6")
    for batch in (1, 2, 4):
        torch.testing.assert_close(sample(f"batch={batch}"), together, atol=1e-5, rtol=0)


def test_memory_format_does_not_change_samples() -> None:
    torch.testing.assert_close(sample("channels_last=true"), sample(), atol=1e-5, rtol=0)


def test_bf16_is_near() -> None:
    difference = (sample("precision=bf16") - sample()).abs()
    assert difference.mean() < 2e-3
    assert difference.max() > 0  # it does something


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("batch=0", "batch=0 must be at least 1"),
        ("precision=16", "precision=16 is not one of 32, bf16"),
        ("compile=fast", "compile=fast is not one of"),
        ("output=median", "output=median is not one of"),
        ("low_weights={x4:null,x8:null}", "cvdvae has no weights for x8: train them"),
    ],
)
def test_bad_settings_are_one_sentence(setting: str, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        sample(setting)
