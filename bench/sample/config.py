"""The settings of ``python -m bench sample``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.config import MethodConfig, Out, Place, Tau, method_configs, plain, resolve_device
from bench.contract import UNKNOWN_POSTERIOR, methods
from bench.errors import BenchError
from bench.files import digest
from bench.operators import operators
from bench.settings import Settings, setting, validate, written

if TYPE_CHECKING:
    from omegaconf import DictConfig

Fit = Literal["refuse", "crop", "shrink", "tile"]


class SampleConfig(Settings):
    """What ``sample`` does; the keys are those of ``python -m bench sample``."""

    methods: tuple[MethodConfig, ...]
    operator: Mapping[str, Any]
    input: Place
    scale: int | None = setting(None, ge=1, help="scale factor; null where only one fits the image")
    n: int = setting(5, ge=1, help="samples per image; a deterministic method gives one")
    tau: Tau = setting(0.8, help="temperature; methods without one ignore it")
    fit: Fit = setting(
        "refuse",
        help="an image of another size than the method takes: refuse it, crop its centre, shrink its central part "
        "(Lanczos), or tile it (every tile is sampled alone, so that seams can be seen)",
    )
    degrade: bool = setting(
        False, help="take high-resolution images, observe them with the operator, and show the truth beside the samples"
    )
    seed: int = setting(0, ge=0, help="of all randomness; samples are keyed by it and by the content of the image")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    out: Out = setting(None, help="folder of the samples; null for results/samples/METHOD-HASH")

    @property
    def method(self) -> MethodConfig:
        """The one method."""
        return self.methods[0]

    def shared(self) -> dict[str, Any]:
        """What all images of a folder of samples have in common, as plain values: a folder is never mixed."""
        facts = methods.facts(self.method.name)
        return {
            "method": self.method.name,
            "label": self.method.label,
            "title": facts.title,
            "version": facts.version,
            "settings": {k: v for k, v in self.method.parameters.items() if k != "compute"},
            "operator": {"sigma": 0.0, **self.operator},
            "tau": self.tau if facts.uses_tau else None,
            "n": 1 if facts.deterministic else self.n,
            "seed": self.seed,
            "degrade": self.degrade,
        }


def read_sample(cfg: DictConfig) -> SampleConfig:
    """Check hydra's configuration and make it typed.

    Raises:
        BenchError: a value is missing, of the wrong type or out of range, no single method, or one that needs a
            posterior that no image of one's own has.

    """
    raw = plain(cfg)
    found = method_configs(raw)
    if len(found) != 1:
        raise BenchError(f"sample takes one method, not {len(found)}: python -m bench sample METHOD IMAGE_OR_FOLDER.")
    facts = methods.facts(found[0].name)
    if facts.needs_posterior:
        raise BenchError(
            f"{UNKNOWN_POSTERIOR.format(facts.title)}, and that of your own is not: choose another method."
        )
    if not isinstance(raw.get("operator"), Mapping) or "name" not in raw["operator"]:
        raise BenchError("operator is empty: give one, as in operator=bicubic.")
    c: SampleConfig = validate(SampleConfig, {**raw, "methods": [vars(m) for m in found]})
    if (given := tuple(c.operator.get("range") or ())) != (0, 1):
        raise BenchError(
            f"operator.range={written(given) if given else 'null'} is wrong: image files have intensities in [0, 1], "
            "leave it out."
        )
    if c.operator["name"] in operators.names() and not operators.facts(c.operator["name"]).scaled:
        c = c.model_copy(update={"scale": 1})  # whatever is asked for, as in a run
    asked = {k: v for k, v in {"scale": c.scale, "fit": c.fit}.items() if v not in (None, "refuse")}
    default = Path("results/samples") / f"{c.method.label}-{digest(c.shared() | asked)[:8]}"
    out = c.out if c.out != Path() else default
    return c.model_copy(update={"device": resolve_device(c.device), "out": out})
