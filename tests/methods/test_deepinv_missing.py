"""Where the extra `deepinv` is missing; test_deepinv_sampler.py needs it."""

import pytest

from bench.contract import methods
from bench.errors import BenchError
from bench.operators import make_operator
from bench.settings import build


def test_without_deepinv_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import methods.deepinv_sampler as module

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    unet = {"size": 32, "channels": 32, "multipliers": [1, 2], "attention": [16], "head_channels": 16, "patch": 2}
    method = build(methods.get("deepinv_sampler"), {"unet": unet, "weights": "x", "steps": 4}, "m", "deepinv_sampler")
    with pytest.raises(BenchError, match=r"pip install 'diverse-sr-bench\[deepinv\]'"):
        method.prepare(make_operator({"name": "average"}, 4, 32))
