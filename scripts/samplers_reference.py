"""All zero-shot samplers on one prior at about 100 evaluations each: results/reference/samplers.

    python -m scripts.samplers_reference FOLDER [--sets synthfaces portraits64] [--sigmas 0 0.05] [--limit 60]

runs them at x4 beside bicubic, five samples an image, in run directories FOLDER/SET/sigmaS. A run that was interrupted
goes on where it ended, and a larger limit adds images. The settings that differ from the shipped ones were chosen on
validation synthfaces by ``bench tune`` (docs/samplers.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.cli import main as bench
from bench.config import compose, read_config
from bench.run.runner import run
from scripts.truth_reference import written

SETS = {"synthfaces": (["dataset=synthfaces"], 60), "portraits64": (["dataset=portraits256", "dataset.size=64"], 40)}
"""Settings and number of test images."""
EQUAL: dict[str, dict[str, Any]] = {
    "dps": {"steps": 100},
    "ddrm": {"steps": 100},
    "ddnm": {"steps": 100},
    "pigdm": {"steps": 100},
    "diffpir": {"steps": 100},
    "reddiff": {"steps": 100},
    "daps": {"steps": 20},
    "pnpdm": {"steps": 8},
}
"""100 evaluations each, but for 86 of PnP-DM without noise; those of DPS and PiGDM with as many gradients."""
CHOSEN: dict[float, dict[str, dict[str, Any]]] = {
    0.0: {"pnpdm": {"rho_min": 0.05}},
    0.05: {"dps": {"guidance": 3.0}, "reddiff": {"regularisation": 4.0}},
}
"""By sigma."""
COMPUTE = {"precision": "bf16", "rows": 20}


def words(folder: Path, name: str, sigma: float, limit: int | None) -> list[str]:
    """The settings of one run."""
    settings, count = SETS[name]
    rows = {m: {"method": m, **own, **CHOSEN[sigma].get(m, {}), "compute": COMPUTE} for m, own in EQUAL.items()}
    return [
        "methods=[bicubic]", f"variants={written(rows)}", *settings, f"operator.sigma={sigma:g}", "scale=4", "n=5",
        f"limit={min(count, limit or count)}", "batch=4", "device=cpu", "launch.cpus=1",
        "metrics=[psnr,stlpips_alex,brisque,lr_psnr,apd_mse,apd_stlpips_alex,seconds]", "perceptual=stlpips_alex",
        "timing.repeats=3", "timing.max_batch=1", "timing.budget=5", f"out={folder / name}/sigma{sigma:g}",
    ]  # fmt: skip


def main() -> int:
    """Run what was asked for; the exit code is 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--sigmas", type=float, nargs="+", choices=list(CHOSEN), default=list(CHOSEN))
    parser.add_argument("--limit", type=int, help="images of each set; all by default")
    a = parser.parse_args()
    good, codes = True, []
    for name in a.sets:
        for sigma in a.sigmas:
            config = read_config(compose("run", words(a.folder, name, sigma, a.limit)))
            good &= run(config)[1]
            codes.append(bench(["tables", str(config.directory), "--paper"]))
    return max([*codes, 0 if good else 1])


if __name__ == "__main__":
    raise SystemExit(main())
