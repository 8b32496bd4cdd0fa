"""The text of ``--help`` for the commands that hydra composes, from the descriptions of their settings."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.config import PLUGINS, CompareConfig, FigureConfig, GridConfig, MeasureConfig, RunConfig
from bench.paper.config import ReproduceConfig
from bench.registry import plugin_config_dirs
from bench.sample.config import SampleConfig
from bench.settings import Settings, describe
from bench.training.config import TrainConfig

WIDTH = 120
FOOTER = """\
Add --cfg=job to see the whole configuration, that of the chosen methods included, and --multirun to run one job per
combination of comma-separated values.
"""


@dataclass(frozen=True)
class Help:
    """What is said of one command: its usage and examples, the groups that it chooses from, its settings."""

    usage: str
    groups: tuple[str, ...]
    settings: tuple[type[Settings], ...]
    defaults: tuple[str, ...] = ()


RUN_GROUPS = ("methods", "dataset", "operator", "launch")
COMMANDS = {
    "run": Help(
        """\
Usage: python -m bench run [KEY=VALUE ...]     run the benchmark and write its tables

Examples:
  python -m bench run methods=[bicubic] scale=8
  python -m bench run methods=[bicubic] scale=[4,8] dataset=portraits256 out=results/runs/portraits
  python -m bench run methods=[bicubic] dataset=folder dataset.path=my_images limit=20
  python -m bench run methods=[bicubic] operator=average operator.sigma=0.05
  python -m bench run methods=[bicubic] 'variants={dps20: {method: dps, steps: 20}, dps100: {method: dps}}'
  python -m bench run --multirun methods=[bicubic] seed=0,1,2
  python -m bench run methods=[bicubic,dps] launch.workers=8 launch.gpus=1 launch.cpus=4
""",
        RUN_GROUPS,
        (RunConfig,),
        ("methods=[bicubic]", "dataset=synthfaces", "operator=bicubic"),
    ),
    "sample": Help(
        """\
Usage: python -m bench sample METHOD IMAGE_OR_FOLDER [--degrade] [KEY=VALUE ...]     sample one's own images

Images are low-resolution ones; with --degrade (degrade=true) they are high-resolution ones, which are observed first.

Examples:
  python -m bench sample cvdvae face16.png n=8 tau=0.8
  python -m bench sample dps faces scale=8 methods.dps.steps=50 out=results/samples/faces
  python -m bench sample bicubic photo.jpg scale=4 --degrade fit=crop
""",
        ("methods", "operator"),
        (SampleConfig,),
        ("operator=bicubic",),
    ),
    "check": Help(
        """\
Usage: python -m bench check method=NAME [KEY=VALUE ...]     test a method against the contract, at one scale

Examples:
  python -m bench check method=bicubic
  python -m bench check method=dps scale=8 methods.dps.steps=20
""",
        RUN_GROUPS,
        (RunConfig,),
        ("scale=4", "limit=2", "dataset=synthfaces", "operator=bicubic"),
    ),
    "tune": Help(
        """\
Usage: python -m bench tune method=NAME grid.KEY=[...] [KEY=VALUE ...]     choose settings on validation images

All combinations of the values are run on the first images of the dataset's val split, a table and a plot are written,
and the best is printed as settings. The same command goes on where it was stopped, with more values too.

Examples:
  python -m bench tune method=diffpir grid.zeta=[0.1,0.25,0.5] grid.regularisation=[0.5,1,2] operator.sigma=0.05
  python -m bench tune method=dps grid.guidance=[2,4,6,8] metric=psnr limit=4
  python -m bench tune method=cvdvae tau=[0.6,0.8,1] metric=crps n=5
""",
        RUN_GROUPS,
        (GridConfig, RunConfig),
        ("scale=4", "n=2", "limit=8", "dataset=synthfaces", "operator=bicubic"),
    ),
    "reproduce": Help(
        """\
Usage: python -m bench reproduce PART [KEY=VALUE ...]

PART is paper (all), table1, table2, appendix, figure1, figure3, figure4, figure5, figure6 or plots.

Examples:
  python -m bench reproduce paper methods.cvdvae_ffhq256.low_weights.x8=low_x8.safetensors
  python -m bench reproduce paper dataset=synthfaces limit=48
  python -m bench reproduce table1 dataset=portraits256 plan=true
""",
        (*RUN_GROUPS, "protocol"),
        (ReproduceConfig, RunConfig),
        ("dataset=ffhq256", "protocol=paper", "apd_images=500"),
    ),
    "train": Help(
        """\
Usage: python -m bench train method=NAME [KEY=VALUE ...]

NAME is one of the recipes, which change the settings below: configs/recipe/.

Examples:
  python -m bench train method=vdvae dataset=shipped budget=2h
  python -m bench train method=cvdvae scale=8 dataset=shipped method.network.prior_weights=prior.safetensors
  torchrun --nproc-per-node=4 -m bench train method=vdvae dataset=ffhq256 budget=48h*4
""",
        ("recipe", "dataset"),
        (TrainConfig,),
        ("dataset=synthfaces",),
    ),
    "measure": Help(
        """\
Usage: python -m bench measure RUN_DIR [KEY=VALUE ...]     add metrics to a run, from its stored samples

Examples:
  python -m bench measure results/runs/portraits metrics=[lpips_vgg,stlpips_alex]
  python -m bench measure results/runs/portraits statistics=false metrics=[ssim]
  python -m bench measure results/runs/portraits metrics=[lpips_vgg] launch.workers=4 launch.cpus=2
""",
        ("launch",),
        (MeasureConfig,),
    ),
    "compare": Help(
        """\
Usage: python -m bench compare RUN_DIR RUN_DIR [KEY=VALUE ...]     compare the second run with the first, image by image

The exit code is 1 where a figure of the second run is worse than its tolerance allows.

Examples:
  python -m bench compare results/runs/before results/runs/after
  python -m bench compare results/runs/before results/runs/after 'tolerance={psnr: 0.1, seconds: 0.5}'
""",
        (),
        (CompareConfig,),
    ),
    "figure": Help(
        """\
Usage: python -m bench figure NAME [KEY=VALUE ...]

Examples:
  python -m bench figure uk
  python -m bench figure uk network/vdvae@study.prior=ffhq256 study.prior_weights=ffhq256-iter-1700000-model-ema.th
""",
        ("study",),
        (FigureConfig,),
    ),
}


def help_text(command: str) -> str:
    """What ``python -m bench COMMAND --help`` prints."""
    about = COMMANDS[command]
    lines = [about.usage, *(["Groups (group=option):"] if about.groups else [])]
    for group in about.groups:
        name = {"recipe": "method"}.get(group, group)
        lines.append(_wrapped(f"  {name}", ", ".join(options(group))))
    networks = [f"{group}@KEY" for group in sorted(networks_and_compute())]
    if about.groups and command != "check":
        lines.append(_wrapped("  shapes", f"{', '.join(networks)}, as network/unet@methods.dps.unet=ffhq256"))
    if about.defaults:
        lines.append(f"\nBy default: {' '.join(about.defaults)}")
    lines.append(("\n" if about.groups else "") + "Settings (key=value, with their defaults):")
    rows = [row for settings in about.settings for row in describe(settings)]
    width = min(max(len(key) for key, _, _ in rows), 26)
    lines += [_row(key, kind, text, width) for key, kind, text in rows]
    return "\n".join([*lines, "", FOOTER])


def options(group: str) -> list[str]:
    """Names of the yaml files of a group, those of installed plugins included."""
    return sorted({path.stem for folder in config_folders() for path in (folder / group).glob("*.yaml")})


def networks_and_compute() -> set[str]:
    """Groups that are put somewhere else than under their own name."""
    found = {f"network/{p.name}" for folder in config_folders() for p in (folder / "network").glob("*") if p.is_dir()}
    return found | {"compute", "prior"}


def config_folders() -> Iterator[Path]:
    """Folders of yaml files, without importing what is in them."""
    spec = importlib.util.find_spec("configs")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        yield Path(folder)
    for group in PLUGINS:
        yield from map(Path, plugin_config_dirs(group))


def _row(key: str, kind: str, text: str, width: int) -> str:
    return _wrapped(f"  {key:<{width}}", f"{text} ({kind})" if text else kind, width + 4)


def _wrapped(head: str, text: str, indent: int = 12) -> str:
    """A head and a text beside it, or below where the head is long."""
    padded = f"{head:<{indent}}"
    first = padded if len(padded) <= indent else f"{head}\n{' ' * indent}"
    body = textwrap.wrap(text, WIDTH - indent) or [""]
    return first + f"\n{' ' * indent}".join(body)
