"""The settings of a run, described once: type, default, bounds and help.

Hydra composes a configuration from their defaults (``configs/__init__.py``), the groups under ``configs/`` and the
command line; `read_config` checks it and makes it typed, before anything is computed. Nothing here needs a network
library, so that help and completion are quick.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    field_validator,
)

from bench.errors import BenchError, near_matches
from bench.files import digest
from bench.launch.settings import LaunchConfig, check_launch
from bench.metrics import PERCEPTUAL
from bench.operators import operators
from bench.registry import plugin_config_dirs
from bench.settings import Settings, as_text, setting, validate

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from yaml import YAMLError

UNNAMED = (
    "device", "batch", "timing", "apd_images", "paper", "figure_images", "save_samples", "save_budget", "stale",
    "resample", "metrics", "statistics", "launch",
)  # fmt: skip
"""Keys that change no row, and so not the name of the default run directory either."""
LABEL = r"[A-Za-z0-9][A-Za-z0-9_.+-]*"
LONGEST = 100
"""Letters of a name of rows, which is a part of a folder's name."""
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class MethodConfig:
    """One row: its label in tables, the registered method's name, its parameters, and the group that it stands in."""

    label: str
    name: str
    parameters: Mapping[str, Any]
    place: str = "methods"


def parse_images(value: Any) -> Any:
    """First image and the one after the last, None for all that follow, from "A:B"; None for all."""
    if value is None or isinstance(value, tuple):
        return value
    if isinstance(value, list) and len(value) == 2:  # as a record has it
        return tuple(value)
    match = re.fullmatch(r"(\d+):(\d*)", str(value))
    first, end = (int(match[1]), int(match[2]) if match[2] else None) if match else (0, 0)
    if end is not None and first >= end:
        raise ValueError("a range, as 200:400 for the images 200 to 399, or 200: for all from 200 on")
    return first, end


def parse_size(value: Any) -> int:
    """Bytes from a number, or from text as "500MB" (1 MB = 10^6 bytes)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?B?)", str(value).upper())
    if match is None or match[2] not in UNITS or isinstance(value, bool):
        raise ValueError("a size, as 500MB or 20GB")
    return round(float(match[1]) * UNITS[match[2]])


def check_perceptual(name: str) -> str:
    """Return the name of a perceptual distance, whether a metric asks for it or not."""
    if name != "auto" and name not in PERCEPTUAL:
        raise BenchError(f"There is no perceptual distance '{name}'.{near_matches(name, PERCEPTUAL)}")
    return name


def as_list(value: Any) -> Any:
    """One value or a list of at least one, as a tuple."""
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values:
        raise ValueError("one value or a list of at least one")
    return values


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


Many = (BeforeValidator(as_list), AfterValidator(_distinct), Field(json_schema_extra={"one_or_many": True}))
Scale = Annotated[int, Field(ge=2)]
Tau = Annotated[float, Field(gt=0, le=1)]
Scales = Annotated[tuple[Scale, ...], *Many]
Taus = Annotated[tuple[Tau, ...], *Many]
Names = Annotated[tuple[str, ...], *Many]

Images = Annotated[
    tuple[int, int | None] | None, BeforeValidator(parse_images), WithJsonSchema({"text": "A:B, A: or null"})
]
Bytes = Annotated[int, BeforeValidator(parse_size), WithJsonSchema({"text": "bytes, as 500MB or 20GB"})]

Out = Annotated[
    Path,
    Field(strict=False),
    BeforeValidator(lambda value: "" if value is None else as_text(value)),
    WithJsonSchema({"text": "path or null"}),
]
"""Where results go; ``Path()``, as null, until the settings have given it a name."""


class TimingConfig(Settings):
    """How wall time is measured; see :mod:`bench.run.timing`."""

    warmup: int = setting(1, ge=1, help="calls of each method that are not counted")
    repeats: int = setting(7, ge=1, help="timed calls at batch 1, of all methods in turns; more while `budget` allows")
    budget: float = setting(
        20.0, gt=0, help="seconds after which no more than `repeats` and no larger batch are begun, for each cell"
    )
    max_batch: int = setting(64, ge=1, help="largest batch that is tried for the throughput")


class RunConfig(Settings):
    """What a run does; the keys are those of ``python -m bench run``."""

    methods: tuple[MethodConfig, ...]
    dataset: Mapping[str, Any]
    operator: Mapping[str, Any]
    scales: Scales = setting([4, 8], alias="scale", help="scale factor")
    taus: Taus = setting(
        None, alias="tau", help="temperature; methods without one run once; null for the dataset's default (0.8 mostly)"
    )
    n: int = setting(5, ge=1, help="samples per image")
    images: Images = setting(None, help="range of the dataset's images, 200:400 for 200 to 399; null for all")
    limit: int | None = setting(
        None, ge=1, help="number of images, the first of `images`; null for the dataset's default"
    )
    variants: Annotated[
        Mapping[str, Mapping[str, Any]] | None, WithJsonSchema({"text": "LABEL to METHOD and settings"})
    ] = setting(None, help="more rows, as {dps20: {method: dps, steps: 20}}: configs/methods/METHOD.yaml with changes")
    seed: int = setting(0, ge=0, help="of all randomness")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    out: Out = setting(
        None,
        help="run directory, where the same command goes on; null for results/runs/DATASET-HASH (reproduce: "
        "results/reproduce/DATASET; tune: results/tune/METHOD-HASH)",
    )
    batch: int = setting(1, ge=1, help="images per batch; halved when the device's memory is too small")
    quantise: bool = setting(True, help="round samples to 8 bits before they are measured, as saved images are")
    stale: Literal["refuse", "recompute"] = setting(
        "refuse",
        help="where settings, weights, a method or images are no longer those of the stored rows: "
        "say what changed and stop, or set the rows aside and compute anew",
    )
    save_samples: Literal["auto", "all", "none"] = setting(
        "auto", help="keep samples without loss; auto: while they take less than `save_budget`"
    )
    save_budget: Bytes = setting("500MB", help="of stored samples, with save_samples=auto")
    resample: bool = setting(False, help="sample again where a new metric needs samples that were not kept")
    figure_images: int = setting(4, ge=0, help="images per scale that figures show")
    apd_images: int | None = setting(
        None, ge=1, help="images whose pairs of samples count for the APD in tables, the first; null for all"
    )
    paper: bool = setting(False, help="write the paper's figures beside the measured ones (paper.csv, .md, .tex)")
    perceptual: Annotated[str, AfterValidator(check_perceptual)] = setting(
        "auto",
        help="lpips_alex, lpips_vgg or stlpips_alex; auto takes lpips_alex where its weights are "
        "on this machine, else stlpips_alex",
    )
    metrics: Names = setting(
        ["psnr", "ssim", "perceptual", "brisque", "lr_psnr", "apd_mse", "apd_perceptual", "diversity_perceptual",
         "seconds", "noise_seconds", "throughput"],
        help="as python -m bench metrics lists them; `perceptual` stands for the distance above",
    )  # fmt: skip
    statistics: bool = setting(True, help="compute statistics with a known right value (truth.csv; docs/truth.md)")
    timing: TimingConfig = TimingConfig()
    launch: LaunchConfig = LaunchConfig()

    @field_validator("scales", mode="wrap")
    @classmethod
    def _only_scale(cls, value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        """1 where the operator keeps the size, whatever is asked for: two scales would be the same row twice."""
        name = str(info.data.get("operator", {}).get("name"))
        scaled = name not in operators.names() or operators.facts(name).scaled
        if scaled:
            return check(value)
        # 1 is the one that is right, and what a record has
        if others := tuple(v for v in as_list(value) if v != 1 or v is True):
            check(others)
        return (1,)

    @property
    def sigma(self) -> float:
        """Standard deviation of the operator's noise."""
        return float(self.operator.get("sigma", 0.0))

    @property
    def directory(self) -> Path:
        """The run directory, whether it is given or follows from the settings."""
        if self.out != Path():
            return self.out
        named = {k: v for k, v in self.record().items() if k not in UNNAMED}
        return Path("results/runs") / f"{self.dataset['name']}-{digest(named)[:8]}"

    def record(self) -> dict[str, Any]:
        """Plain values, as written to ``config.yaml`` of the run directory."""
        return {
            "methods": {m.label: {"method": m.name, **m.parameters} for m in self.methods},
            **self.model_dump(mode="json", by_alias=True, exclude={"methods", "variants", "out", "perceptual"}),
        }


class FigureConfig(Settings):
    """What ``python -m bench figure`` computes, beside the settings of the study."""

    study: Mapping[str, Any]
    seed: int = setting(0, ge=0, help="of all randomness")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    out: Out = setting(None, help="path without suffix; null for results/figures/NAME")


class GridConfig(Settings):
    """What ``python -m bench tune`` compares, beside the settings of the run."""

    grid: Mapping[str, Any] = setting(
        {}, help="values of the method's settings, as grid.zeta=[0.1,0.25] grid.steps=[20,50]; all combinations are run"
    )
    metric: str = setting("perceptual", help="what decides: a name of python -m bench metrics, or a statistic's")


@dataclass(frozen=True)
class TuneConfig:
    """A grid of settings of one method.

    Attributes:
        run: measures all of them, one row of methods each.
        method: name of the method's configuration.
        grid: the settings of each row by its label, dotted names to values, in the order of the grid.
        metric: what decides.

    """

    run: RunConfig
    method: str
    grid: Mapping[str, Mapping[str, Any]]
    metric: str


Place = Annotated[Path, Field(strict=False), BeforeValidator(as_text), WithJsonSchema({"text": "path"})]
"""Something that is there."""


class MeasureConfig(Settings):
    """What ``python -m bench measure`` does."""

    run: Place
    metrics: Names | None = setting(
        None, help="to be added, as python -m bench metrics lists them; null for those of the run"
    )
    perceptual: Annotated[str, AfterValidator(check_perceptual)] = setting(
        "auto", help="what `perceptual` stands for; auto takes that of the run"
    )
    statistics: bool = setting(True, help="also compute the statistics that are not there yet (docs/truth.md)")
    device: str = setting("auto", help="auto, cpu, cuda, cuda:1, ...")
    launch: LaunchConfig = LaunchConfig()


class CompareConfig(Settings):
    """What ``python -m bench compare`` does."""

    first: Place
    second: Place
    metrics: Names | None = setting(None, help="some of those that both runs have; null for all")
    tolerance: Annotated[
        Mapping[str, Annotated[float, Field(ge=0)]] | None, WithJsonSchema({"text": "METRIC to number"})
    ] = setting(
        None,
        help="how much worse the mean of a metric may be, in the units of tables, as {psnr: 0.1, seconds: 0.5}; others "
        "by one unit of the last digit that tables print, times and metrics without a better direction by anything",
    )


def read_measure(cfg: DictConfig) -> MeasureConfig:
    """Check hydra's configuration and make it typed; BenchError names the key that is wrong."""
    config: MeasureConfig = validate(MeasureConfig, plain(cfg))
    return config.model_copy(update={"device": resolve_device(config.device)})


def read_compare(cfg: DictConfig) -> CompareConfig:
    """Check hydra's configuration and make it typed; BenchError names the key that is wrong."""
    config: CompareConfig = validate(CompareConfig, plain(cfg))
    return config


def read_config(cfg: DictConfig) -> RunConfig:
    """Check hydra's configuration and make it typed.

    Raises:
        BenchError: a value is missing, of the wrong type or out of range; the sentence names the key.

    """
    return run_config(plain(cfg))


def run_config(raw: Mapping[str, Any]) -> RunConfig:
    """`read_config` for plain values."""
    if not raw.get("methods") and not raw.get("variants"):
        raise BenchError("methods is empty: give at least one, as in methods=[bicubic].")
    for group in ("dataset", "operator"):
        if not isinstance(raw.get(group), Mapping) or "name" not in raw[group]:
            raise BenchError(f"{group} is empty: give one, as in {group}={EXAMPLES[group]}.")
    methods = [vars(m) for m in method_configs(raw)]
    from bench.data import datasets

    tau = raw.get("tau")
    if tau is None:
        tau = datasets.facts(str(raw["dataset"]["name"])).default_tau
    config: RunConfig = validate(RunConfig, {**raw, "methods": methods, "tau": tau})
    check_launch(config.launch)
    device, launch = resolve_device(config.device), config.launch
    if launch.gpus is None:
        launch = launch.model_copy(update={"gpus": int(device.startswith("cuda"))})
    config = config.model_copy(update={"device": device, "launch": launch})
    return config.model_copy(update={"out": config.directory})


def read_tune(cfg: DictConfig) -> TuneConfig:
    """Check hydra's configuration of a grid and make it typed.

    The dataset's split becomes "val", where it has splits.

    Raises:
        BenchError: as `read_config`; no grid, more than one method, or a dataset without validation images.

    """
    from bench.data.splits import with_split

    raw = plain(cfg)
    own: GridConfig = validate(GridConfig, {key: raw.pop(key) for key in GridConfig.model_fields})
    if raw.get("variants") or len(raw["methods"]) != 1:
        raise BenchError("tune takes one method, without variants: python -m bench tune method=NAME grid.KEY=[...].")
    ((name, base),) = raw["methods"].items()
    rows = _combinations(own.grid)
    many = len(_values("tau", raw["tau"])) > 1 if raw.get("tau") is not None else False
    if len(rows) < 2 and not many:
        raise BenchError(f"There is nothing to choose from: add values, as grid.steps=[20,50] of a setting of {name}.")
    methods = {label: {"method": name, **merge(_group(base, name), _nested(row))} for label, row in rows.items()}
    dataset = with_split(raw["dataset"], "val")
    config = run_config({**raw, "methods": methods, "dataset": dataset})
    if raw.get("out") is None:  # a wider grid goes on in the same place
        kept = {k: v for k, v in config.record().items() if k not in (*UNNAMED, "methods", "tau")}
        out = Path("results/tune") / f"{name}-{digest([kept, base])[:8]}"
        config = config.model_copy(update={"out": out})
    return TuneConfig(config, str(name), rows, own.metric)


def _combinations(grid: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """All combinations of a grid's values, by label; the last setting changes fastest."""
    values = {key: _values(f"grid.{key}", value) for key, value in _dotted(grid)}
    found = {}
    for chosen in product(*values.values()):
        row = dict(zip(values, chosen, strict=True))
        label = "_".join(f"{key}-{value}" for key, value in row.items()) or "as-given"
        if not re.fullmatch(LABEL, label) or len(label) > LONGEST:
            label = f"grid-{digest(row)[:12]}"
        found[label] = row
    return found


def _values(key: str, value: Any) -> tuple[Any, ...]:
    """What a setting is to be, one after the other."""
    try:
        values: tuple[Any, ...] = as_list(value)
    except ValueError as error:
        raise BenchError(f"{key}=[] is wrong: it should be {error}.") from None
    return values


def _dotted(group: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in group.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in row.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        found = merge(found, value)
    return found


EXAMPLES = {"dataset": "synthfaces", "operator": "bicubic"}


def read_figure(cfg: DictConfig) -> FigureConfig:
    """Check hydra's configuration of a figure and make it typed; BenchError names the key that is wrong."""
    config: FigureConfig = validate(FigureConfig, plain(cfg))
    out = config.out if config.out != Path() else Path("results/figures") / str(config.study["name"])
    return config.model_copy(update={"device": resolve_device(config.device), "out": out})


def plain(cfg: DictConfig) -> dict[str, Any]:
    """Hydra's configuration as plain dictionaries and lists; BenchError where a value is missing."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise BenchError(f"{missing[0]} has no value: add {missing[0]}=VALUE.")
        values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise BenchError(f"A value refers to what is not there: {str(error).splitlines()[0]}.") from error
    return values


def method_configs(raw: Mapping[str, Any]) -> tuple[MethodConfig, ...]:
    """The rows of a run: those of ``methods``, then those of ``variants``.

    Args:
        raw: plain values with ``methods``, label to settings, and ``variants``, label to ``method`` and what is changed
            of its file's settings.

    Raises:
        BenchError: an unknown method, a label that is taken or that cannot be a folder's name.

    """
    found = []
    if not isinstance(raw.get("methods") or {}, Mapping):
        raise BenchError(
            f"methods={raw['methods']} is no group of settings: write KEY: VALUE into the yaml file of a method, below "
            "'# @package methods.NAME'."
        )
    for label, settings in _group(raw.get("methods"), "methods").items():
        parameters = dict(_group(settings, f"methods.{label}"))
        found.append(MethodConfig(check_label(str(label)), str(parameters.pop("method", label)), parameters))
    for label, settings in _group(raw.get("variants"), "variants").items():
        changes = dict(_group(settings, f"variants.{label}"))
        if "method" not in changes:
            raise BenchError(f"variants.{label} has no method: write variants={{{label}: {{method: NAME, ...}}}}.")
        if label in [m.label for m in found]:
            raise BenchError(f"variants.{label}: there is a row '{label}' already; choose another name.")
        found.append(replace(method_config(str(changes.pop("method")), changes, str(label)), place="variants"))
    return tuple(found)


def method_config(name: str, settings: Mapping[str, Any] = {}, label: str | None = None) -> MethodConfig:
    """Read ``configs/methods/NAME.yaml``, here or in a plugin's folder, without a run.

    Args:
        name: of the configuration file.
        settings: merged into the file's, at every depth.
        label: name in tables; None for the file's name.

    Raises:
        BenchError: there is no such file, or its header is missing.

    """
    from hydra.errors import MissingConfigException
    from yaml import YAMLError

    try:
        cfg = compose(None, [f"+methods={check_label(name)}"])
    except MissingConfigException as error:
        raise BenchError(f"There is no method '{name}'.{near_matches(name, error.options or [])}") from None
    except YAMLError as error:
        raise BenchError(unreadable(error)) from None
    found = _group(plain(cfg)["methods"], f"methods/{name}.yaml")
    if name not in found:
        raise BenchError(f"methods/{name}.yaml has no header: write '# @package methods.{name}' into its first line.")
    merged = merge(_group(found[name], f"methods.{name}"), settings)
    return MethodConfig(check_label(label or name), str(merged.pop("method", name)), merged)


def unreadable(error: YAMLError) -> str:
    """One sentence for a yaml file that does not parse."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}" if mark else "A yaml file"
    return f"{where}: this is no YAML ({problem or str(error).splitlines()[0]}): mend the file."


def compose(name: str | None, words: Sequence[str] = ()) -> DictConfig:
    """Let hydra compose ``configs/NAME.yaml`` (None for nothing) with overrides, also within a task of hydra's.

    Raises:
        HydraException, OmegaConfBaseException: the words are wrong.

    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    state = GlobalHydra.instance()
    running, state.hydra = state.hydra, None
    try:
        with hydra.initialize_config_module("configs", version_base=HYDRA):
            return hydra.compose(name, [*words, *search_path()])
    finally:
        state.hydra = running


def check_label(label: str) -> str:
    """Return a name of rows; BenchError unless it can be a folder's name and a key of the configuration."""
    if len(label) > LONGEST:
        raise BenchError(
            f"'{label[:20]}...' cannot be the name of rows: it has {len(label)} letters, use {LONGEST} at most."
        )
    if not re.fullmatch(LABEL, label):
        raise BenchError(f"'{label}' cannot be the name of rows: use letters, digits and - _ . + only.")
    return label


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Plain settings with others put over them, at every depth."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _group(value: Any, key: str) -> Mapping[str, Any]:
    """A group of settings, empty for none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BenchError(f"{key}={value} is wrong: it should be a group of settings, as {{KEY: VALUE}}.")
    return value


def search_path() -> list[str]:
    """Where the yaml files of installed plugins are, as an override for hydra."""
    folders = sorted({d for group in PLUGINS for d in plugin_config_dirs(group)})
    return [f"hydra.searchpath=[{','.join(f'file://{d}' for d in folders)}]"] if folders else []


HYDRA = "1.3"
"""The version whose ways are meant."""
PLUGINS = ("bench.methods", "bench.datasets", "bench.operators")
"""Groups of entry points whose packages may have a folder of yaml files."""


def resolve_device(name: str) -> str:
    """Return "cpu" or "cuda:N" for a name or "auto"; BenchError where this machine has no such device."""
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BenchError(f"device={name} is no device: use auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise BenchError(f"device={name} is not there ({count} CUDA devices found): use device=cpu or device=auto.")
        return f"cuda:{device.index or 0}"
    if device.type != "cpu":
        raise BenchError(f"device={name} is not supported: use auto, cpu, cuda or cuda:N.")
    return "cpu"
