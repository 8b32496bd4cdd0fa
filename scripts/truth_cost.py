"""What the statistics of truth.csv cost beside the other metrics: CPU seconds of one thread, one synthface at x4.

OMP_NUM_THREADS=1 python -m scripts.truth_cost
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from bench.config import RunConfig
from bench.data import make_dataset
from bench.metrics import Evaluation, Metric, load_metrics, resolve_metrics
from bench.metrics.statistic import Statistic, load_statistics
from bench.operators import quantise
from bench.operators.bicubic import Bicubic
from bench.run.evaluate import evaluate

CASES = ((64, 5), (64, 32), (256, 5), (256, 32))
"""Pixels and samples."""


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """The least CPU time of a call that is not the first."""
    call()
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        call()
        found.append(time.process_time() - begun)
    return min(found)


def main() -> None:
    """Print a Markdown table."""
    torch.set_num_threads(1)
    names = resolve_metrics(RunConfig.model_fields["metrics"].default, "stlpips_alex")[0]
    metrics = load_metrics(names, "cpu")
    statistics = load_statistics(posterior=False)
    print("| size | n | metrics, s | statistics, s | share |\n|---|---|---|---|---|")
    for size, n in CASES:
        operator = Bicubic(size, 4)
        image = make_dataset({"name": "synthfaces", "size": size}).load(0)
        hr = torch.as_tensor(image).permute(2, 0, 1)[None] / 255
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(1, n, *hr.shape[1:], generator=generator)
        samples = quantise((hr[:, None] + 0.05 * noise).clamp(0, 1))
        y = operator.observe(hr)

        def cost(loaded: Mapping[str, Metric | Statistic], of: Evaluation) -> float:
            def measure() -> None:
                of.release()
                evaluate(loaded, of)

            return seconds(measure)

        e = Evaluation(hr, y, samples, operator)
        ours, others = cost(statistics, e), cost(metrics, e)
        print(f"| {size} | {n} | {others:.3g} | {ours:.2g} | {ours / others:.1%} |", flush=True)


if __name__ == "__main__":
    main()
