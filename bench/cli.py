"""The command line: ``python -m bench COMMAND``.

Hydra composes the configuration of the commands that compute; the others take plain arguments. Every error that a
person can mend is printed as one sentence on stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tabulate import tabulate

from bench.config import search_path
from bench.errors import BenchError, near_matches

if TYPE_CHECKING:
    from bench.run.store import RunDir

CONFIGS = "pkg://configs"
INTERRUPTED = 130

USAGE = """\
Measure diverse super-resolution methods behind one interface.

Usage: python -m bench COMMAND [...]

Commands:
  run       run methods over a dataset; write tables and figures     [hydra overrides]
  check     run the contract on one method                           method=NAME [hydra overrides]
  train     train a method                                           method=NAME [hydra overrides]
  figure    compute a figure from a method                           NAME [hydra overrides]
  reproduce the paper's tables and figures                           PART [hydra overrides]
  tables    make the tables and figures of a run directory again     RUN_DIR
  methods   list the methods
  metrics   list the metrics
  data      list the datasets and how to get them
  weights   list, download or take local files of known checkpoints  [get NAME | add NAME FILE]

Examples:
  python -m bench run methods=[bicubic] scale=8
  python -m bench run methods=[bicubic] dataset=portraits256 scale=[4,8] out=results/runs/portraits
  python -m bench check method=bicubic
  python -m bench train method=vdvae dataset=shipped budget=2h
  python -m bench reproduce paper dataset=synthfaces limit=10
  python -m bench tables results/runs/portraits

python -m bench COMMAND --help tells more. Completion: eval "$(bench -sc install=bash)"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code: 0 all done, 1 failed or incomplete, 2 wrong usage, 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if any(w in ("-sc", "--shell-completion", "--shell_completion") for w in words):
        return _complete(words)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else 2
    try:
        if words[0] not in COMMANDS:
            raise BenchError(f"There is no command '{words[0]}'.{near_matches(words[0], COMMANDS)}")
        return COMMANDS[words[0]](words[1:])
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted. What is done is kept; the same command goes on.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.config import read_config
        from bench.run.runner import part_done, run

        config = read_config(cfg)
        directory, complete = run(config)
        if config.shard is None:
            print(_write_results(directory, config.paper))
            print(f"\nTables and figures: {directory.path}")
        else:
            print(part_done(config.shard))
        if not complete:
            failures = directory.failures
            first = failures[0]
            image = f"{first['image']}: " if first["image"] else ""
            print(
                f"bench: {len(failures)} failed and are left out of the tables; the first: {first['what']}: {image}"
                f"{first['reason']} All are in {directory.failures_file}.",
                file=sys.stderr,
            )
        return 0 if complete else 1

    return _hydra("run", words, task)


def _check(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.config import read_config
        from bench.run.check import check_method

        failed = 0
        for result in check_method(read_config(cfg)):
            failed += result.verdict == "fail"
            print(f"{result.verdict:>4}  {result.name}: {result.detail}", flush=True)
        print("\nThe method keeps the contract." if not failed else f"\n{failed} checks failed.")
        return 1 if failed else 0

    named = [w.removeprefix("method=") for w in words if w.startswith("method=")]
    rest = [w for w in words if not w.startswith("method=")]
    if len(named) > 1 or (not named and not any(w.startswith("-") for w in words)):
        raise BenchError("check takes one method: python -m bench check method=NAME.")
    return _hydra("check", [*(f"methods=[{name}]" for name in named), *rest], task)


def _train(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        import torch

        from bench.training.config import read_training
        from bench.training.trainer import Trainer

        torch.manual_seed(cfg.seed)  # initial weights
        module, config = read_training(cfg)
        first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun has started
        with RunDir(config.out).lock() if first else nullcontext():
            state = Trainer(module, config).fit()
            if torch.distributed.is_initialized():  # else its threads may abort a process that exits
                torch.distributed.barrier()
                torch.distributed.destroy_process_group()
        if not first:
            return 0
        print(f"{state.step} steps, {state.seconds / 3600:.2f} device-hours, {state.skipped} skipped: {config.out}")
        return 0

    from bench.run.store import RunDir

    # a recipe is the folder's name; what is trained is a method
    recipe = [f"recipe={w.removeprefix('method=')}" if w.startswith("method=") else w for w in words]
    return _hydra("train", _for_help(recipe, "recipe=vdvae"), task)


def _figure(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        import torch

        from bench.config import resolve_device
        from bench.run.study import write_study
        from bench.values import plain

        out = Path(cfg.out or f"results/figures/{cfg.study.name}")
        write_study(plain(cfg)["study"], int(cfg.seed), torch.device(resolve_device(cfg.device)), out)
        print(f"{out}.csv, {out}.png, {out}.pdf")
        return 0

    words = _for_help(words, "study=uk")
    if words and "=" not in words[0] and not words[0].startswith("-"):
        words = [f"study={words[0]}", *words[1:]]
    elif not any(w.startswith("-") for w in words):
        raise BenchError("figure needs a name: python -m bench figure uk.")
    return _hydra("figure", words, task)


def _reproduce(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.paper.reproduce import read_reproduction, reproduce

        if reproduce(read_reproduction(cfg)):
            return 0
        print("bench: something was left out or failed; see above.", file=sys.stderr)
        return 1

    help_asked = any(w in ("-h", "--help") for w in words)
    named = [w for w in words if "=" not in w and not w.startswith("-")]
    if not help_asked and not named and not any(w.startswith("part=") for w in words):
        raise BenchError("reproduce needs a part: python -m bench reproduce paper.")
    rest = [w for w in words if w not in named]
    if named:
        rest.append(f"part=[{','.join(named)}]")
    dataset = next((w for w in words if w.startswith("dataset=")), "dataset=ffhq256")
    if dataset != "dataset=ffhq256":
        rest += [] if any(w.startswith("protocol=") for w in words) else ["protocol=small"]
    elif not help_asked and not any(w.startswith("dataset.path=") for w in words):
        rest.append("dataset.path=ffhq-256.npy")
    return _hydra("reproduce", rest, task)


def _tables(words: list[str]) -> int:
    parser = _parser("tables", "Make the tables and figures of a run directory again, without any model.")
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="a run directory, as results/runs/NAME")
    parser.add_argument("--paper", action="store_true", help="also write the paper's figures beside the measured ones")
    parser.epilog = "Example: python -m bench tables results/runs/portraits --paper"
    arguments = parser.parse_args(words)
    from bench.run.store import RunDir

    directory = RunDir(arguments.run_dir)
    paper = arguments.paper or bool(directory.config.get("paper"))
    with directory.lock():
        print(_write_results(directory, paper))
    return 0


def _write_results(directory: RunDir, paper: bool) -> str:
    """Write tables and figures of a run directory; return the table for the console."""
    from bench.paper.tables import write_paper
    from bench.report.figures import sample_grids
    from bench.report.plots import write_plots
    from bench.report.tables import write_tables

    table = write_tables(directory)
    if paper:
        write_paper(directory)
    sample_grids(directory)
    write_plots(directory)
    return table


def _methods(words: list[str]) -> int:
    _parser("methods", "List the methods. Example: python -m bench methods").parse_args(words)
    from bench.contract import methods

    lines = []
    for name in methods.names():
        f = methods.get(name).facts
        scales = "any" if f.scales is None else ", ".join(f"x{s}" for s in f.scales)
        lines.append(
            [name, f.title, scales, "yes" if f.uses_tau else "no", f.evaluations, f.weights_licence, f.citation]
        )
    heads = ["name", "title", "scales", "tau", "evaluations", "weights' licence", "citation"]
    print(tabulate(lines, headers=heads, tablefmt="simple", maxcolwidths=[None] * 6 + [60]))
    return _broken(methods.broken)


def _metrics(words: list[str]) -> int:
    _parser("metrics", "List the metrics. Example: python -m bench metrics").parse_args(words)
    from bench.metrics import metrics
    from bench.report.tables import ARROWS, unit

    lines = []
    for name in metrics.names():
        f = metrics.get(name).facts
        lines.append([name, ARROWS[f.better], unit(f), f.domain, f.range, f.source])
    heads = ["name", "better", "unit", "per", "range", "source"]
    print(tabulate(lines, headers=heads, tablefmt="simple", maxcolwidths=[None] * 4 + [30, 60]))
    print("\nAny metric of pyiqa as pyiqa:NAME (extra `iqa`, non-commercial licence).")
    return _broken(metrics.broken)


def _data(words: list[str]) -> int:
    _parser("data", "List the datasets and how to get them. Example: python -m bench data").parse_args(words)
    from bench.data import datasets

    lines = []
    for name in datasets.names():
        f = datasets.get(name).facts
        lines.append([name, f.title, "all" if f.default_limit is None else f.default_limit, f.licence, f.how_to_get])
    heads = ["name", "title", "images", "licence", "how to get it"]
    print(tabulate(lines, headers=heads, tablefmt="simple", maxcolwidths=[None, None, None, 30, 70]))
    return _broken(datasets.broken)


def _weights(words: list[str]) -> int:
    text = "List the known checkpoints, download one, or take a file. Example: python -m bench weights get lpips_vgg"
    parser = _parser("weights", text)
    actions = parser.add_subparsers(dest="action")
    getting = actions.add_parser("get", help="download; goes on where an earlier attempt ended")
    getting.add_argument("name")
    adding = actions.add_parser("add", help="take a local file")
    adding.add_argument("name")
    adding.add_argument("file", type=Path)
    arguments = parser.parse_args(words)
    from bench import weights

    if arguments.action == "get":
        print(weights.get(weights.find(arguments.name)))
        return 0
    if arguments.action == "add":
        print(weights.add(weights.find(arguments.name), arguments.file))
        return 0
    lines = []
    for c in weights.CHECKPOINTS:
        size = f"{c.path.stat().st_size / 1e6:.0f}" if c.path.is_file() else ""
        how = "get" if c.url else "add"
        lines.append([c.name, weights.state(c), size, how, c.file, c.used_by, c.licence, c.page])
    import methods

    for path in sorted(Path(methods.__path__[0]).glob("*/shipped/*.safetensors")):
        method = path.parent.parent.name
        size = f"{path.stat().st_size / 1e6:.1f}"
        lines.append(
            [f"{method}/{path.stem}", "shipped", size, "", path.name, f"methods.{method}", "MIT", "this project"]
        )
    for shipped in weights.METRIC_FILES:
        size = f"{shipped.path.stat().st_size / 1e6:.1f}"
        lines.append(
            [shipped.name, "shipped", size, "", shipped.path.name, shipped.used_by, shipped.licence, shipped.page]
        )
    heads = ["name", "state", "MB", "how", "file", "used by", "licence", "origin"]
    print(tabulate(lines, headers=heads, tablefmt="simple", maxcolwidths=[None] * 4 + [34, 34, None, 40]))
    print(f"\nKept in {weights.folder_of_weights()}. python -m bench weights get NAME, or add NAME FILE.")
    return 0


def _for_help(words: list[str], choice: str) -> list[str]:
    """Show the help of one choice where none is made: hydra's help needs a whole configuration."""
    key = choice.partition("=")[0] + "="
    asked = any(w in ("-h", "--help") for w in words) and not any(w.startswith(key) for w in words)
    return [choice, *words] if asked else words


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"python -m bench {command}", description=description)


def _broken(plugins: dict[str, str]) -> int:
    for name, reason in plugins.items():
        print(f"bench: plugin '{name}' could not be imported: {reason}", file=sys.stderr)
    return 1 if plugins else 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "check": _check,
    "train": _train,
    "figure": _figure,
    "reproduce": _reproduce,
    "tables": _tables,
    "methods": _methods,
    "metrics": _metrics,
    "data": _data,
    "weights": _weights,
}
HYDRA_COMMANDS = ("run", "check", "train", "figure", "reproduce")


def _hydra(config_name: str, words: list[str], task: Callable[[DictConfig], int]) -> int:
    """Let hydra compose ``configs/NAME.yaml`` with the overrides and call `task`; translate its errors."""
    codes: list[int] = []
    raised: list[BenchError | KeyboardInterrupt] = []
    here = os.getpid()

    def job(cfg: DictConfig) -> None:
        if os.getpid() != here:  # on a cluster, where only exceptions find their way back
            if task(cfg):
                raise BenchError(f"A job of the sweep is incomplete: {' '.join(HydraConfig.get().overrides.task)}.")
            return
        try:
            codes.append(task(cfg))
        except (BenchError, KeyboardInterrupt) as error:  # hydra would add lines of its own, and end a sweep
            raised.append(error)

    before = sys.argv
    sys.argv = [f"python -m bench {config_name}", *words, *search_path()]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raise errors instead of printing them
    try:
        hydra.main(config_path=CONFIGS, config_name=config_name, version_base="1.3")(job)()
    except OverrideParseException as error:
        raise BenchError(f"'{error.override}' is not of the form key=value: {str(error).splitlines()[0]}") from error
    except MissingConfigException as error:
        raise BenchError(_missing(error)) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # hydra raises ValueErrors too
        raise BenchError(_misspelt(error, config_name, words)) from error
    finally:
        sys.argv = before
    for earlier in raised[:-1]:
        print(f"bench: {earlier}", file=sys.stderr)
    if raised:
        raise raised[-1]
    return max(codes, default=0)


def _missing(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    from bench.contract import methods
    from bench.data import datasets

    for folder, registry in (("methods", methods), ("dataset", datasets)):
        if group == folder:
            if name in registry.names():
                return f"The {registry.kind} '{name}' is registered but has no configuration: add {group}/{name}.yaml."
            why = f" It could not be imported: {registry.broken[name]}." if name in registry.broken else ""
            return f"There is no {registry.kind} '{name}'.{why or near_matches(name, registry.names())}"
    return f"There is no configuration '{error.missing_cfg_file}'.{near_matches(name, error.options or [])}"


def _misspelt(error: Exception, config_name: str, words: Sequence[str]) -> str:
    first = str(error).splitlines()[0]
    if not first.startswith("Could not override '"):
        reason = str(error.__cause__ or error).splitlines()[0]
        return f"The configuration could not be composed: {reason if reason else first}"
    key = first.split("'")[1].partition("@")[0]
    known = _known_keys(config_name, [w for w in words if w.startswith(("methods=", "dataset="))])
    return f"There is no setting '{key}'.{near_matches(key, known)}"


def _known_keys(config_name: str, groups: list[str]) -> list[str]:
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_module("configs", version_base="1.3"):
            cfg = hydra.compose(config_name, [*groups, *search_path()])
    except (HydraException, OmegaConfBaseException):
        return []
    return _flatten(OmegaConf.to_container(cfg), "")


def _flatten(node: object, prefix: str) -> list[str]:
    if not isinstance(node, dict):
        return []
    keys = []
    for k, v in node.items():
        keys += [f"{prefix}{k}", *_flatten(v, f"{prefix}{k}.")]
    return keys


def _complete(words: list[str]) -> int:
    """Answer the shell: commands first, then hydra's completion of the command's overrides."""
    line = os.environ.get("COMP_LINE", "")
    head, *typed = line.split() or ["bench"]
    command = next((w for w in [*words, *typed] if w in HYDRA_COMMANDS), None)
    if not any(w.startswith("query=") for w in words):
        command = "run"  # installing: the script is the same for all commands
    elif command is None or (len(typed) == 1 and not line.endswith(" ")):
        print(" ".join(c for c in COMMANDS if c.startswith(typed[0] if typed else "")))
        return 0
    if typed:
        os.environ["COMP_LINE"] = " ".join([head, *typed[1:]]) + (" " if line.endswith(" ") else "")
    sys.argv = [sys.argv[0], *(w for w in words if w not in HYDRA_COMMANDS)]
    hydra.main(config_path=CONFIGS, config_name=command, version_base="1.3")(lambda cfg: None)()
    return 0
