"""Any metric of pyiqa as ``pyiqa:NAME``. The package has a non-commercial licence and is the extra ``iqa``."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, near_matches
from bench.metrics import Evaluation, Metric, MetricFacts

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _pyiqa() -> Any:
    try:
        import pyiqa
    except ImportError as error:
        raise BenchError(
            "Metrics 'pyiqa:NAME' need the package pyiqa (non-commercial licence): pip install 'diverse-sr-bench[iqa]'."
        ) from error
    return pyiqa


@cache
def iqa_facts(name: str) -> MetricFacts:
    """Facts of pyiqa's metric `name`, from its own registry."""
    pyiqa = _pyiqa()
    if name not in pyiqa.list_models():
        raise BenchError(f"pyiqa has no metric '{name}'.{near_matches(name, pyiqa.list_models())}")
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    config = DEFAULT_CONFIGS[name]
    return MetricFacts(
        label=name,
        better="lower" if config.get("lower_better", False) else "higher",
        unit="",
        domain="sample",
        range=str(config.get("score_range", "see pyiqa")),
        source=f"pyiqa.create_metric('{name}')",
    )


class IqaMetric(Metric):
    """One metric of pyiqa, with or without reference."""

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.name = name
        iqa_facts(name)
        try:
            self.net = _pyiqa().create_metric(name, device=self.device)
        except (OSError, RuntimeError) as error:
            raise BenchError(
                f"pyiqa could not load '{name}' ({error}). It downloads weights: "
                "check the network, or leave the metric out."
            ) from error

    def __call__(self, e: Evaluation) -> Tensor:
        """[B, n]."""
        import torch

        full_reference = self.net.metric_mode == "FR"
        with torch.no_grad():
            values = self.net(e.flat, e.hr_repeated) if full_reference else self.net(e.flat)
        return e.per_sample(values.flatten().float())
