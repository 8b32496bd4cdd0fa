"""All samplers on images whose posterior is known: results/reference/truth.

    python -m scripts.truth_reference FOLDER [--stages 1 2 3] [--sigmas 0 0.05]

runs every zero-shot sampler beside the oracle, the posterior mean and the prior on `gaussians` at 32 pixels, in stages
(`STAGES`) that share a run directory FOLDER/sigmaS for each noise. Samplers take the exact denoiser, rows `NAME_net`
the network that was trained on these images. A stage that was interrupted goes on where it ended.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from bench.cli import main as bench
from bench.config import compose, read_config
from bench.run.runner import run

SETTINGS: dict[str, dict[str, Any]] = {
    "dps": {"clip": False},
    "diffpir": {"clip": False},
    "pnpdm": {"inner": 100, "variance": "sde"},
}
"""The images leave [0, 1], and the exact denoiser has no learned variance; everything else is as shipped, but for
PnP-DM's published 100 inner steps."""
ZETA: dict[str, Any] = {"guidance": 1.0}
"""Of rows `dps100_zeta1`; the shipped one is 6."""
QUICK = ["ddrm", "ddnm", "pigdm", "diffpir", "reddiff", "dps"]
SLOW = ["daps", "pnpdm"]
"""Take five and about ten evaluations a step."""
SHORT = [f"{m}{steps}" for m in QUICK for steps in (20, 100)] + ["dps100_zeta1", "daps20", "pnpdm20"]
LONG = ["ddrm1000", "diffpir1000", "daps100", "pnpdm100"]


class Stage(NamedTuple):
    """Rows, and on what; a later stage names the rows of the former ones, which are done.

    Attributes:
        rows: with the exact denoiser.
        trained: with the trained one.
        images: so many, the first of the test split.

    """

    rows: list[str]
    trained: list[str]
    images: int


STAGES = [
    Stage(SHORT, [], 200),
    Stage([*SHORT, *LONG], [], 40),
    Stage([*SHORT, *LONG], [*(f"{m}{steps}" for m in QUICK for steps in (20, 100)), "daps20", "pnpdm20"], 40),
]
"""About half an hour of one idle core, a quarter, and an hour and a half."""
SCALES = [4, 8]
SIGMAS = [0.05, 0.0]


def variant(row: str, weights: str) -> dict[str, Any]:
    """Settings of a row: `ddrm20` is DDRM in 20 steps."""
    label, _, extra = row.partition("_")
    name = label.rstrip("0123456789")
    settings = SETTINGS.get(name, {}) | (ZETA if extra == "zeta1" else {})
    found = {"method": name, "weights": weights, "steps": int(label[len(name) :]), **settings}
    return found | {"compute": {"rows": 40}}  # what the processor's caches hold


def written(value: Any) -> str:
    """A value in the grammar of the command line."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{written(v)}" for k, v in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def words(folder: Path, stage: Stage, sigma: float) -> list[str]:
    """The settings of a stage at one noise."""
    rows = {row: variant(row, "exact") for row in stage.rows}
    rows |= {f"{row}_net": variant(row, "gaussians") for row in stage.trained}
    return [
        "methods=[oracle,posterior_mean,prior_only]", f"variants={written(rows)}", "dataset=gaussians",
        "dataset.size=32", f"operator.sigma={sigma:g}", f"scale={SCALES}", f"limit={stage.images}", "batch=8",
        "device=cpu", "metrics=[psnr,apd_mse,seconds]", "timing.repeats=3", "timing.max_batch=1", "timing.budget=5",
        "save_samples=all", "figure_images=1", f"out={folder}/sigma{sigma:g}",
    ]  # fmt: skip


def main() -> int:
    """Run what was asked for, then write the tables; the largest exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS)
    arguments = parser.parse_args()
    good = True
    for stage in (STAGES[number - 1] for number in arguments.stages):
        for sigma in arguments.sigmas:
            good &= run(read_config(compose("run", words(arguments.folder, stage, sigma))))[1]
    codes = [bench(["tables", str(folder)]) for folder in (arguments.folder / f"sigma{s:g}" for s in arguments.sigmas)]
    return max([*codes, 0 if good else 1])


if __name__ == "__main__":
    raise SystemExit(main())
