"""The command line: ``python -m bench COMMAND``.

Hydra composes the configuration of the commands that compute; the others take plain arguments. Every error that a
person can mend is printed as one sentence on stderr.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bench.errors import BenchError, near_matches

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bench.run.store import RunDir

INTERRUPTED = 130
TERMINATED = 143

USAGE = """\
Measure diverse super-resolution methods behind one interface.

Usage: python -m bench COMMAND [...]

Commands:
  run       run methods over a dataset; write tables and figures     [hydra overrides]
  sample    sample one's own low-resolution images                   METHOD IMAGE_OR_FOLDER [hydra overrides]
  check     run the contract on one method                           method=NAME [hydra overrides]
  tune      choose a method's settings on validation images          method=NAME grid.KEY=[...] [hydra overrides]
  train     train a method                                           method=NAME [hydra overrides]
  figure    compute a figure from a method                           NAME [hydra overrides]
  reproduce the paper's tables and figures                           PART [hydra overrides]
  tables    make the tables and figures of a run directory again     RUN_DIR
  report    write report.html about one run directory or more        RUN_DIR [RUN_DIR ...] [--out FILE]
  measure   further metrics of a run, from its stored samples        RUN_DIR [hydra overrides]
  compare   two runs, image by image; 1 where the second is worse    RUN_DIR RUN_DIR [hydra overrides]
  export    a run as one parquet and one JSON file for other tools   RUN_DIR
  methods   list the methods
  metrics   list the metrics
  data      list the datasets and how to get them, or download one   [get NAME]
  operators list the operators, y = A x + sigma n
  weights   list, download or take local files of known checkpoints  [get NAME | add NAME FILE]
  new       write a method, metric, dataset or operator to begin with KIND NAME [--package FOLDER]

Examples:
  python -m bench run methods=[bicubic] scale=8
  python -m bench run methods=[bicubic] dataset=portraits256 scale=[4,8] out=results/runs/portraits
  python -m bench run methods=[bicubic] operator=average operator.sigma=0.05
  python -m bench sample cvdvae face16.png n=8 tau=0.8 out=results/samples/face
  python -m bench check method=bicubic
  python -m bench train method=vdvae dataset=shipped budget=2h
  python -m bench reproduce paper dataset=synthfaces limit=10
  python -m bench tables results/runs/portraits
  python -m bench measure results/runs/portraits metrics=[lpips_vgg]
  python -m bench compare results/runs/before results/runs/after 'tolerance={psnr: 0.1}'

python -m bench COMMAND --help tells more. Completion: eval "$(bench -sc install=bash)"
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code.

    Returns:
        0 all done, 1 failed or incomplete, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated (SIGTERM, as a
        scheduler sends it before it takes a machine away).

    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with _sigterm_raises() as terminated:
        try:
            return _command(words)
        except KeyboardInterrupt:
            pass
        except Exception as error:  # BenchErrors among them
            if not terminated:  # else some library has made another error of it
                if not isinstance(error, BenchError) and not _out_of_memory(error):
                    raise
                print(f"bench: {error if isinstance(error, BenchError) else NO_MEMORY}", file=sys.stderr)
                return 1
        how = "terminated" if terminated else "interrupted"
        print(f"bench: {how}. What is done is kept; the same command goes on.", file=sys.stderr)
        return TERMINATED if terminated else INTERRUPTED


def entry() -> NoReturn:
    """Run a command as a process of its own."""
    code = main()
    for number in (signal.SIGTERM, signal.SIGINT):  # all is written and said; libraries take their time to end
        signal.signal(number, signal.SIG_IGN)
    sys.exit(code)


NO_MEMORY = (
    "out of memory. What is done is kept; the same command goes on where there is more, or with a smaller batch or "
    "compute.rows."
)


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    if isinstance(error, ImportError) and "failed to map segment" in str(error):  # of a library, into address space
        return True
    if "torch" not in sys.modules:
        return False
    from bench.machine import is_out_of_memory

    return is_out_of_memory(error)


class Terminated(KeyboardInterrupt):
    """SIGTERM was received: everything ends as with Ctrl-C."""


@contextmanager
def _sigterm_raises() -> Iterator[list[int]]:
    """Raise `Terminated` at the first SIGTERM and ignore those that follow; yield a list that then holds its number."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield received
        return

    def end(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is done is being kept
        raise Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _command(words: list[str]) -> int:
    """Run a command; BenchError and KeyboardInterrupt come out as they are."""
    if any(w in ("-sc", "--shell-completion", "--shell_completion") for w in words):
        return _complete(words)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if words else 2
    try:
        if words[0] not in COMMANDS:
            raise BenchError(f"There is no command '{words[0]}'.{near_matches(words[0], COMMANDS)}")
        if words[0] in HYDRA_COMMANDS and any(w in ("-h", "--help") for w in words):
            from bench.help import help_text

            print(help_text(words[0]), end="")
            return 0
        return COMMANDS[words[0]](words[1:])
    except SystemExit as end:  # argparse and hydra leave in this way
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.config import read_config
        from bench.report.html.page import REPORT
        from bench.run.runner import run

        config = read_config(cfg)
        directory, complete = run(config)
        print(_write_results(directory, config.paper))
        if directory.cells():
            print(f"\nTables and figures: {directory.path}\nTo look at: {directory.path / REPORT}")
        if not complete:
            print(f"bench: {_failed(directory)}", file=sys.stderr)
        return 0 if complete else 1

    return _composed("run", words, task)


def _failed(directory: RunDir) -> str:
    """What to say of a run in which something failed."""
    failures = directory.failures
    first = failures[0]
    image = f"{first['image']}: " if first["image"] else ""
    reason = " ".join(first["reason"].split()).rstrip(".")
    return (
        f"{len(failures)} failed and are left out of the tables; the first: {first['what']}: {image}{reason}. "
        f"All are in {directory.failures_file}."
    )


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

    return _composed("check", _one_method("check", words), task)


def _one_method(command: str, words: list[str]) -> list[str]:
    """Words of hydra's for a command that takes method=NAME."""
    named = [w.removeprefix("method=") for w in words if w.startswith("method=")]
    rest = [w for w in words if not w.startswith("method=")]
    if len(named) > 1 or (not named and not any(w.startswith("-") for w in words)):
        raise BenchError(f"{command} takes one method: python -m bench {command} method=NAME.")
    return [*(f"methods=[{name}]" for name in named), *rest]


def _tune(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.config import read_tune
        from bench.run.store import RunDir
        from bench.tune import tune

        config = read_tune(cfg)
        text, complete = tune(config)
        print(f"{text}\n\nTable and plot: {config.run.out}/tune.md, .csv, .png, .pdf")
        if not complete:
            print(f"bench: {_failed(RunDir(config.run.out))}", file=sys.stderr)
        return 0 if complete else 1

    if any(w.startswith("dataset.split=") and w != "dataset.split=val" for w in words):
        raise BenchError("tune chooses on validation images only: leave dataset.split=... out.")
    words = [f"++{w}" if w.startswith("grid.") else w for w in words]  # names that no file has
    return _composed("tune", _one_method("tune", words), task)


def _train(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.run.store import RunDir
        from bench.training.config import read_training
        from bench.training.trainer import Trainer

        module, config = read_training(cfg)
        import torch.distributed as distributed

        first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun has started
        with RunDir(config.out).lock() if first else nullcontext():
            state = Trainer(module, config).fit()
            if distributed.is_initialized():  # else its threads may abort a process that exits
                distributed.barrier()
                distributed.destroy_process_group()
        if not first:
            return 0
        print(f"{state.step} steps, {state.seconds / 3600:.2f} device-hours, {state.skipped} skipped: {config.out}")
        return 0

    if not any(w.startswith(("method=", "recipe=", "-")) for w in words):
        raise BenchError("train takes one method: python -m bench train method=NAME.")
    # a recipe is the folder's name; what is trained is a method
    recipe = [f"recipe={w.removeprefix('method=')}" if w.startswith("method=") else w for w in words]
    return _composed("train", recipe, task)


def _figure(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        import torch

        from bench.config import read_figure
        from bench.run.study import write_study

        c = read_figure(cfg)
        write_study(c.study, c.seed, torch.device(c.device), c.out)
        print(f"{c.out}.csv, {c.out}.png, {c.out}.pdf")
        return 0

    if words and "=" not in words[0] and not words[0].startswith("-"):
        words = [f"study={words[0]}", *words[1:]]
    elif not any(w.startswith("-") for w in words):
        raise BenchError("figure needs a name: python -m bench figure uk.")
    return _composed("figure", words, task)


def _reproduce(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.paper.config import read_reproduction
        from bench.paper.reproduce import reproduce

        if reproduce(read_reproduction(cfg)):
            return 0
        print("bench: something was left out or failed; see above.", file=sys.stderr)
        return 1

    named = [w for w in words if "=" not in w and not w.startswith("-")]
    if not named and not any(w.startswith("part=") for w in words):
        raise BenchError("reproduce needs a part: python -m bench reproduce paper.")
    rest = [w for w in words if w not in named]
    if named:
        rest.append(f"part=[{','.join(named)}]")
    dataset = next((w for w in words if w.startswith("dataset=")), "dataset=ffhq256")
    if dataset != "dataset=ffhq256":
        rest += [] if any(w.startswith("protocol=") for w in words) else ["protocol=small"]
    return _composed("reproduce", rest, task)


def _sample(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.sample.config import read_sample
        from bench.sample.draw import sample_images
        from bench.sample.page import write_page

        config = read_sample(cfg)
        outcome = sample_images(config)
        for name, reason in outcome.failed.items():
            print(f"bench: {'' if name in reason else name + ': '}{reason}", file=sys.stderr)
        if outcome.done:
            page = write_page(config.out, outcome.failed)
            count = len(outcome.done)
            print(f"Samples of {count} {'image' if count == 1 else 'images'}: {page}")
        return 1 if outcome.failed else 0

    words = ["degrade=true" if w == "--degrade" else w for w in words]
    usage = "sample takes a method and an image or a folder: python -m bench sample METHOD IMAGE_OR_FOLDER."
    return _composed("sample", _places(words, ("methods", "input"), usage), task)


def _named(words: list[str]) -> tuple[list[str], list[str]]:
    """Words that are no settings, as names and paths, and the others, hydra's options with their values among them."""
    from bench.composing import WITH_VALUE

    rest = [w for w, before in zip(words, ["", *words], strict=False) if _is_setting(w) or before in WITH_VALUE]
    return [w for w in words if w not in rest], rest


def _is_setting(word: str) -> bool:
    return word.startswith("-") or ("=" in word and not Path(word).exists())


def _quoted(path: str) -> str:
    """A path as a value of hydra's, whatever letters it has."""
    # backslashes are letters but before a quote
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + (r"\'" if m[2] else ""), path)
    return f"'{escaped}'"


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


def _report(words: list[str]) -> int:
    text = "Write a page about one run directory, or several side by side: tables, pictures, plots and differences."
    parser = _parser("report", text)
    parser.add_argument("run_dirs", metavar="RUN_DIR", type=Path, nargs="+", help="as results/runs/NAME")
    parser.add_argument(
        "--out", metavar="FILE", type=Path,
        help="the page; report.html in the run directory, or here if there are several",
    )  # fmt: skip
    parser.epilog = "Example: python -m bench report results/runs/portraits results/runs/others --out both.html"
    arguments = parser.parse_args(words)
    from bench.report.html.page import REPORT, write_report
    from bench.run.store import RunDir

    runs = [RunDir(path) for path in dict.fromkeys(arguments.run_dirs)]
    path = arguments.out or (runs[0].path if len(runs) == 1 else Path()) / REPORT
    if path.suffix != ".html":
        raise BenchError(f"--out {path} is no name of a page: let it end in .html.")
    with ExitStack() as stack:
        for run in runs:
            run.config  # noqa: B018 -- a folder that is no run directory gets no lock
            stack.enter_context(run.lock())
        write_report(runs, path)
    print(path)
    return 0


def _measure(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.config import read_measure
        from bench.run.measure import measure

        directory, left = measure(read_measure(cfg))
        for sentence in left:
            print(f"bench: {sentence}", file=sys.stderr)
        with directory.lock():
            print(_write_results(directory, bool(directory.config.get("paper"))))
        return 1 if left else 0

    usage = "measure takes a run directory: python -m bench measure RUN_DIR metrics=[...]."
    return _composed("measure", _places(words, ("run",), usage), task)


def _compare(words: list[str]) -> int:
    def task(cfg: DictConfig) -> int:
        from bench.config import read_compare
        from bench.report.compare import comparison_text, judged, pair_runs, table_of, worse_text
        from bench.run.store import RunDir

        config = read_compare(cfg)
        pairs = pair_runs(RunDir(config.first), RunDir(config.second))
        frame = judged(table_of(pairs, config.metrics), config.tolerance or {})
        print("\n".join([comparison_text(frame), *(f"\n{note}" for note in pairs.notes)]))
        if sentence := worse_text(frame, pairs.gone):
            print(f"bench: {sentence}", file=sys.stderr)
        return 1 if sentence else 0

    usage = "compare takes two run directories: python -m bench compare RUN_DIR RUN_DIR."
    return _composed("compare", _places(words, ("first", "second"), usage), task)


def _places(words: list[str], keys: tuple[str, ...], usage: str) -> list[str]:
    """Give names and paths among the words their keys; BenchError with the usage where their number is wrong."""
    named, rest = _named(words)
    given = {w.partition("=")[0] for w in rest}
    missing = [key for key in keys[len(named) :] if key not in given]
    if len(named) > len(keys) or (missing and not any(w.startswith("-") for w in rest)):
        raise BenchError(usage)
    placed = [
        f"methods=[{word}]" if key == "methods" else f"{key}={_quoted(word)}"
        for key, word in zip(keys, named, strict=False)
    ]
    return [*placed, *rest]


def _export(words: list[str]) -> int:
    parser = _parser("export", "Write a run as one parquet and one JSON file for other tools (docs/schema.md).")
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="a run directory, as results/runs/NAME")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to; without it the run directory")
    parser.epilog = "Example: python -m bench export results/runs/portraits --out portraits"
    arguments = parser.parse_args(words)
    from bench.report.export import write_export
    from bench.run.store import RunDir

    for path in write_export(RunDir(arguments.run_dir), arguments.out):
        print(path)
    return 0


def _write_results(directory: RunDir, paper: bool) -> str:
    """Write tables, figures and the report of a run directory; return the table for the console."""
    from bench.paper.tables import write_paper
    from bench.report.html.page import REPORT, write_report
    from bench.report.write import write_all

    for cell in directory.claimed():
        if half := len(cell.half_done()):
            sentence = f"{half} images have rows of one kind alone, which the same run computes again"
            print(f"bench: {cell.folder}: {sentence}; they are left out.", file=sys.stderr)
    table = write_all(directory)
    if paper:
        write_paper(directory)
    write_report([directory], directory.path / REPORT)
    return table


def _list(kind: str) -> Callable[[list[str]], int]:
    """Print the table of a kind of plugins, and which of them are broken."""

    def command(words: list[str]) -> int:
        _parser(kind, f"List the {kind}. Example: python -m bench {kind}").parse_args(words)
        from bench import listing

        print(getattr(listing, f"{kind}_table")())
        broken = listing.broken_plugins(kind)
        for sentence in broken:
            print(f"bench: {sentence}", file=sys.stderr)
        return 1 if broken else 0

    return command


def _data(words: list[str]) -> int:
    if words[:1] != ["get"]:
        return _list("data")(words)
    text = "Download a dataset. Example: python -m bench data get ffhq256"
    parser = argparse.ArgumentParser(prog="python -m bench data get", description=text)
    parser.add_argument("name", help="goes on where an earlier attempt ended")
    name = parser.parse_args(words[1:]).name
    from bench.data import datasets

    print(datasets.get(name).download())
    return 0


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
    from bench import download, listing, weights

    if arguments.action == "get":
        print(download.get(weights.find(arguments.name)))
    elif arguments.action == "add":
        print(download.add(weights.find(arguments.name), arguments.file))
    else:
        print(listing.weights_table())
    return 0


def _new(words: list[str]) -> int:
    from bench import new

    return new.command(words)


def _parser(command: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"python -m bench {command}", description=description)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "sample": _sample,
    "check": _check,
    "tune": _tune,
    "train": _train,
    "figure": _figure,
    "reproduce": _reproduce,
    "tables": _tables,
    "report": _report,
    "measure": _measure,
    "compare": _compare,
    "export": _export,
    "methods": _list("methods"),
    "metrics": _list("metrics"),
    "data": _data,
    "operators": _list("operators"),
    "weights": _weights,
    "new": _new,
}
CHOICES = {"train": "recipe=vdvae", "figure": "study=uk"}
"""What a command needs before its settings can be completed."""
PLACES = ("sample", "measure", "compare")
"""Commands whose settings come after names or paths."""
RECIPE_FOR_METHOD = re.compile(r"^method=")
HYDRA_COMMANDS = ("run", "sample", "check", "tune", "train", "figure", "reproduce", "measure", "compare")


def _composed(config_name: str, words: list[str], task: Callable[[DictConfig], int]) -> int:
    """Compose a configuration from words and call a task with it; see :mod:`bench.composing`."""
    from bench.composing import compose_and_run

    return compose_and_run(config_name, words, task)


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
        rest = [RECIPE_FOR_METHOD.sub("recipe=", w) if command == "train" else w for w in typed[1:]]
        if command in PLACES:  # hydra knows nothing of paths and names
            open_word = "" if line.endswith(" ") else rest[-1]
            before = rest if line.endswith(" ") else rest[:-1]
            if command == "sample" and "=" not in open_word and not any("=" not in w for w in before):
                from bench.help import options

                print(" ".join(name for name in options("methods") if name.startswith(open_word)))
                return 0
            rest = [*(w for w in before if "=" in w), *([open_word] if open_word else [])]
        choice = CHOICES.get(command, "")  # hydra completes nothing where a choice is still to be made
        if choice and not any(w.startswith(choice.partition("=")[0]) for w in rest[:-1]):
            rest = [choice, *rest]
        os.environ["COMP_LINE"] = " ".join([head, *rest]) + (" " if line.endswith(" ") else "")
    from bench.composing import complete

    complete(command, [w for w in words if w not in HYDRA_COMMANDS])
    return 0
