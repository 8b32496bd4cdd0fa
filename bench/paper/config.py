"""The settings of a reproduction, described once: type, default, bounds and help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config import Names, RunConfig, Taus, plain, run_config
from bench.errors import BenchError, near_matches
from bench.settings import Settings, setting, validate

if TYPE_CHECKING:
    from omegaconf import DictConfig

TABLES = ("table1", "table2", "appendix")
"""Of the paper, and one that it lacks: statistics with a known right value."""
PICTURES = ("figure1", "figure3", "figure4", "figure5")
PARTS = (*TABLES, *PICTURES, "figure6", "plots")
OF_REFERENCE = {"table2", "figure1", "figure5"}
"""Parts that show one method."""
NOT_COMPUTED = "Figure 2 is a drawing of the network: there is nothing to compute."


class Table2Config(Settings):
    """The paper's Table 2."""

    taus: Taus = setting([0.1, 0.8], alias="tau", help="temperatures of the reference method")


class AppendixConfig(Settings):
    """Statistics with a known right value."""

    taus: Taus = setting([1.0, 0.8], alias="tau", help="temperatures; right values hold at 1")


class PicturesConfig(Settings):
    """Figures 1, 3, 4 and 5."""

    ids: Names | None = setting(None, help="image ids; null for the dataset's first ones")
    images: int = setting(3, ge=1, help="how many")
    samples: int = setting(3, ge=1, help="samples of each")
    taus: Taus = setting([0.1, 0.3, 0.5, 0.8, 1.0], alias="tau", help="temperatures of Figure 5")


class ReproduceConfig(Settings):
    """What ``python -m bench reproduce`` has besides the settings of a run."""

    parts: Names = setting(["paper"], alias="part", help=f"paper (all), {', '.join(PARTS)}")
    reference: str = setting("cvdvae", help="the method of Table 2 and of Figures 1 and 5")
    plan: bool = setting(False, help="only say what is there, what it takes and how long")
    download: bool = setting(True, help="fetch weights that can be fetched")
    table2: Table2Config = Table2Config()
    appendix: AppendixConfig = AppendixConfig()
    pictures: PicturesConfig = PicturesConfig()
    figure6: Mapping[str, Any]


@dataclass(frozen=True)
class Reproduction:
    """What to do; the keys are those of ``python -m bench reproduce``.

    Attributes:
        run: the run that all tables share; its temperatures are those of all parts.
        parts: a selection of `PARTS`.
        reference: label of the method of Table 2 and of Figures 1 and 5.
        table1_tau, table2_taus, appendix_taus, figure5_taus: temperatures.
        ids, images, samples: the pictures' images (None for the first ones), their number, samples of each.
        study: Figure 6.
        plan_only: whether to stop after the plan.
        download: whether to fetch weights.

    """

    run: RunConfig
    parts: tuple[str, ...]
    reference: str
    table1_tau: float
    table2_taus: tuple[float, ...]
    appendix_taus: tuple[float, ...]
    figure5_taus: tuple[float, ...]
    ids: tuple[str, ...] | None
    images: int
    samples: int
    study: Mapping[str, Any]
    plan_only: bool
    download: bool


def read_reproduction(cfg: DictConfig) -> Reproduction:
    """Check hydra's configuration; BenchError names the key that is wrong."""
    raw = plain(cfg)
    own = {f.alias or name for name, f in ReproduceConfig.model_fields.items()}
    c: ReproduceConfig = validate(ReproduceConfig, {k: v for k, v in raw.items() if k in own})
    parts = _parts(c.parts)
    run = run_config({"out": None, **{k: v for k, v in raw.items() if k not in own}})
    if len(run.taus) != 1:
        raise BenchError("tau takes one value here, that of Table 1; Table 2 has table2.tau.")
    labels = [m.label for m in run.methods]
    if c.reference not in labels and OF_REFERENCE & set(parts):
        raise BenchError(
            f"reference={c.reference} is not among the methods {', '.join(labels)}: add reference=NAME, the one that "
            "Table 2 and Figures 1 and 5 show."
        )
    out = Path(str(raw["out"])) if raw.get("out") else Path("results/reproduce") / str(run.dataset["name"])
    taus = tuple(dict.fromkeys((*run.taus, *c.table2.taus, *c.appendix.taus)))
    return Reproduction(
        run=run.model_copy(update={"taus": taus, "out": out}),
        parts=parts,
        reference=c.reference,
        table1_tau=run.taus[0],
        table2_taus=c.table2.taus,
        appendix_taus=c.appendix.taus,
        figure5_taus=c.pictures.taus,
        ids=c.pictures.ids,
        images=c.pictures.images,
        samples=c.pictures.samples,
        study=c.figure6,
        plan_only=c.plan,
        download=c.download,
    )


def _parts(names: tuple[str, ...]) -> tuple[str, ...]:
    """The parts that these words ask for, in order."""
    if "figure2" in names:
        raise BenchError(NOT_COMPUTED)
    for name in names:
        if name not in ("paper", *PARTS):
            raise BenchError(f"There is no part '{name}'.{near_matches(name, ['paper', *PARTS])}")
    return tuple(p for p in PARTS if p in names or "paper" in names)
