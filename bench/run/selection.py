"""What a configuration asks for: cells, images, prepared methods and operators."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from bench.config import MethodConfig, RunConfig
from bench.contract import UNKNOWN_POSTERIOR, Method, methods
from bench.data import Dataset, datasets
from bench.errors import BenchError
from bench.load import make_method
from bench.operators import Operator, make_operator, operator_kind
from bench.run.cell import CellKey

if TYPE_CHECKING:
    from bench.posterior import Posterior

SHORT_STEPS = 5
"""Steps of an iterative method where only its speed is of interest."""


def dataset_operator(config: RunConfig, dataset: Dataset, scale: int, device: torch.device | str = "cpu") -> Operator:
    """Build the operator of a run for its dataset's images."""
    operator = make_operator(config.operator, scale, dataset.size, device, range=dataset.range)
    if operator.range not in (None, dataset.range):
        raise BenchError(
            f"operator.range={list(operator.range or ())} is not that of {config.dataset['name']}, "
            f"{list(dataset.range or ())}: leave it out, or give null."
        )
    return operator


def prepared_method(config: RunConfig, m: MethodConfig, dataset: Dataset, scale: int) -> Method:
    """Build a method and load it for the operator on the run's device; see :meth:`bench.contract.Method.prepare`."""
    operator = dataset_operator(config, dataset, scale, torch.device(config.device))
    method = make_method(m)
    posterior = dataset_posterior(dataset, operator) if method.needs_posterior else None
    return method.prepare(operator, operator.device, posterior=posterior)


def dataset_posterior(dataset: Dataset, operator: Operator) -> Posterior | None:
    """The exact posterior of a dataset's images seen through an operator, None where it is not known."""
    if dataset.mixture is None:
        return None
    from bench.posterior import Posterior

    return Posterior(dataset.mixture, operator)


def short_form(config: MethodConfig) -> MethodConfig:
    """The same method with few steps, where it is an iterative one."""
    iterative = "steps" in inspect.signature(methods.get(config.name)).parameters
    if not iterative or make_method(config).evaluations <= SHORT_STEPS:
        return config
    return replace(config, parameters={**config.parameters, "steps": SHORT_STEPS})


def cell_keys(config: RunConfig) -> list[CellKey]:
    """Everything a run measures, by scale, method and temperature; BenchError for what a method cannot do."""
    keys = []
    for scale in config.scales:
        kind = operator_kind(config.operator, scale)
        for m in config.methods:
            facts = methods.facts(m.name)
            if reason := facts.refuses(kind, scale, config.sigma):
                raise BenchError(f"{reason}. Change the setting, or leave {m.label} out of methods=[...].")
            if facts.needs_posterior and not datasets.facts(str(config.dataset["name"])).posterior:
                raise BenchError(f"{UNKNOWN_POSTERIOR.format(facts.title)}: add dataset=gaussians, or leave it out.")
            keys += [CellKey(m.label, scale, tau) for tau in (config.taus if facts.uses_tau else (None,))]
    return keys


def selected_images(config: RunConfig, dataset: Dataset) -> range:
    """Indices of the images that ``images`` and ``limit`` choose; the dataset's default number where both are null.

    Raises:
        BenchError: there are none.

    """
    first, last = config.images or (0, None)
    limit = config.limit or (None if config.images else dataset.facts.default_limit)
    stop = min(n for n in (len(dataset), last, limit and first + limit) if n is not None)
    if stop <= first:
        raise BenchError(f"images={first}:{'' if last is None else last} holds none of the {len(dataset)} images.")
    return range(first, stop)
