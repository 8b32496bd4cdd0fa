"""Hydra composes a configuration, then the task runs; errors of the two are kept apart.

What is wrong with the words of the command line becomes one sentence. What the task raises comes out as it is.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bench.config import HYDRA, compose, search_path, unreadable
from bench.errors import BenchError, near_matches, near_settings

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIGS = "pkg://configs"
GROUPS = ("methods", "dataset", "operator", "protocol", "study", "recipe", "compute", "network", "prior", "launch")
"""Folders of configs/ whose options are chosen by name."""
WITH_VALUE = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p",
              "--experimental-rerun")  # fmt: skip
"""Options of hydra's whose value is the next word."""


def compose_and_run(config_name: str, words: list[str], task: Callable[[DictConfig], int]) -> int:
    """Let hydra compose ``configs/NAME.yaml`` with the overrides and call `task`, once or for a sweep.

    Returns:
        the largest exit code of the tasks.

    Raises:
        BenchError: the words are wrong, in one sentence.
        Exception: what the (last) task raised.

    """
    import hydra

    codes: list[int] = []
    raised: list[BaseException] = []
    here = os.getpid()

    def job(cfg: DictConfig) -> None:
        if os.getpid() != here:  # on a cluster, where only exceptions find their way back
            _run_elsewhere(task, cfg)
            return
        try:
            codes.append(task(cfg))
        except BaseException as error:  # hydra would take it for its own, and end a sweep
            raised.append(error)
            if not isinstance(error, Exception):  # interrupted: no further job of a sweep
                raise

    for word in words:
        _refuse_new_method(word)
    with _arguments(f"python -m bench {config_name}", [*words, *search_path()]):
        try:
            hydra.main(config_path=CONFIGS, config_name=config_name, version_base=HYDRA)(job)()
        except BaseException as error:
            if raised and error is raised[-1]:
                raise
            sentence = explain(error, config_name, words)
            if sentence is None:
                raise
            raise BenchError(sentence) from error
    for earlier in raised[:-1]:
        report(earlier)
    if raised:
        raise raised[-1]
    return max(codes, default=0)


def report(error: BaseException) -> None:
    """Print an error on stderr: a sentence where a person can mend it, else a traceback."""
    if isinstance(error, BenchError):
        print(f"bench: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)


def _run_elsewhere(task: Callable[[DictConfig], int], cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig

    overrides = " ".join(HydraConfig.get().overrides.task)
    try:
        code = task(cfg)
    except BenchError:
        raise
    except Exception as error:
        traceback.print_exc()  # into the job's log
        raise BenchError(f"A job of the sweep failed: {overrides}: {type(error).__name__}: {error}") from error
    if code:
        raise BenchError(f"A job of the sweep is incomplete: {overrides}.")


@contextmanager
def _arguments(program: str, words: Sequence[str]) -> Iterator[None]:
    """Hydra reads the command line from sys.argv, and raises errors instead of printing them if it is told so."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [program, *_options_first(words)]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def _options_first(words: Sequence[str]) -> list[str]:
    """Put hydra's own options before the settings: its parser takes no settings on both sides of an option."""
    options: list[str] = []
    settings: list[str] = []
    for word, before in zip(words, ["", *words], strict=False):
        (options if word.startswith("-") or before in WITH_VALUE else settings).append(word)
    return options + settings


def explain(error: BaseException, config_name: str, words: Sequence[str]) -> str | None:
    """One sentence for what hydra says of the words; None for an error that is not hydra's."""
    from hydra.errors import HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if isinstance(error, OverrideParseException):
        return f"'{error.override}' is not of the form key=value: {str(error).splitlines()[0]}"
    if isinstance(error, MissingConfigException):
        return _missing(error)
    if isinstance(error, YAMLError):
        return unreadable(error)
    if isinstance(error, TypeError | AttributeError) and _raised_in_hydra(error):  # as of methods=[0]
        return _no_name(words, str(error))
    if not isinstance(error, HydraException | OmegaConfBaseException | ValueError):  # hydra raises ValueErrors too
        return None
    first = str(error).splitlines()[0]
    found = re.match(r"Could not override '([^'@]+)", first)
    if found:
        return _unknown(found[1], config_name, words)
    found = re.search(r"config group '([^']+)' does not exist", first)
    if found:
        return f"There is no group '{found[1]}'.{near_matches(found[1], _groups())}"
    found = re.search(r"An item is already at '([^']+)'", first)
    if found:
        return f"There is a setting '{found[1]}' already: write {found[1]}=VALUE, without +."
    if "group override must be a string or a list" in first:  # as of recipe=0
        return _no_name(words, first)
    reason = str(error.__cause__ or error).splitlines()[0]
    return f"The configuration could not be composed: {reason or first}"


def _no_name(words: Sequence[str], reason: str) -> str:
    """What to say where a number, a group or nothing stands in the place of a name; `reason` is hydra's."""
    chosen = []
    for word in words:
        key, _, value = word.partition("=")
        names = value.removeprefix("[").removesuffix("]").split(",")
        if key.lstrip("+~").partition("@")[0] in (*GROUPS, "method") and not all(map(_is_name, names)):
            chosen.append(word)
    what = f"{' and '.join(chosen)}: wrong" if chosen else f"The configuration could not be composed ({reason})"
    return f"{what}: groups take names, as methods=[NAME, ...] or dataset=NAME."


def _is_name(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z_][\w/.-]*", text.strip())) and text.strip() not in ("true", "false", "null")


def _raised_in_hydra(error: BaseException) -> bool:
    """Whether it was hydra's own code that failed, not what it called."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__", "")).startswith("hydra.")


def _missing(error: Any) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if group == "hydra/launcher" and name.startswith("submitit") and importlib.util.find_spec("submitit") is None:
        return "Jobs on a cluster need the package hydra-submitit-launcher: pip install 'diverse-sr-bench[cluster]'."
    from bench.contract import methods
    from bench.data import datasets
    from bench.operators import operators

    for folder, registry in (("methods", methods), ("dataset", datasets), ("operator", operators)):
        if group == folder:
            registered = registry.names()
            if name in registered:
                return f"The {registry.kind} '{name}' is registered but has no configuration: add {group}/{name}.yaml."
            why = f" It could not be imported: {registry.broken[name]}." if name in registry.broken else ""
            return f"There is no {registry.kind} '{name}'.{why or near_matches(name, error.options or registered)}"
    what = {"recipe": "training", "study": "figure"}.get(group, f"option of {group},")
    return f"There is no {what} '{name}'.{near_matches(name, error.options or [])}"


def _refuse_new_method(word: str) -> None:
    """Rows of another name than a file's are variants; hydra would make an entry without the file's settings."""
    found = re.match(r"\+{1,2}methods\.([^.=@]+)=", word)
    if found and found[1] not in _options("methods"):
        label, settings = found[1], word.partition("=")[2]
        raise BenchError(
            f"methods.{label} has no configuration methods/{label}.yaml: for another row of a method write "
            f"'variants={{{label}: {settings}}}'."
        )


def _options(group: str) -> list[str]:
    from bench.help import options

    return options(group)


def _unknown(key: str, config_name: str, words: Sequence[str]) -> str:
    """Name the settings that are there in the place of one that is not."""
    tree = _composed(config_name, [w for w in words if re.match(rf"({'|'.join(GROUPS)})[@/=]", w)])
    parts = key.split(".")
    node: Any = tree
    for depth, part in enumerate(parts):
        if not isinstance(node, dict):
            return f"There is no setting '{key}': {'.'.join(parts[:depth])} is a value, not a group of settings."
        if part not in node:
            return _nearest(parts[: depth + 1], key, node, tree)
        node = node[part]
    return f"There is no setting '{key}'."


def _nearest(parts: list[str], key: str, siblings: dict[str, Any], tree: dict[str, Any]) -> str:
    *above, last = parts
    if above == ["methods"]:
        return f"There is no setting '{key}': {last} is not among the methods {', '.join(siblings)}."
    below = near_settings(last, _flatten(siblings, ""), "".join(f"{part}." for part in above))
    if "Did you mean" not in below and last in tree:
        return f"There is no setting '{key}'. Did you mean '{last}'?"
    return f"There is no setting '{key}'.{below}"


def _groups() -> list[str]:
    from bench.help import networks_and_compute

    return [*GROUPS, *networks_and_compute()]


def _composed(config_name: str, choices: Sequence[str]) -> dict[str, Any]:
    """The configuration without the words that may be wrong; empty where not even that is right."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(compose(config_name, choices))  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException):
        return {}


def _flatten(node: object, prefix: str) -> list[str]:
    if not isinstance(node, dict):
        return []
    keys = []
    for k, v in node.items():
        keys += [f"{prefix}{k}", *_flatten(v, f"{prefix}{k}.")]
    return keys


def complete(command: str, words: Sequence[str]) -> None:
    """Let hydra answer a shell that asks how a word of a command's overrides may end, or install its script."""
    import hydra

    sys.argv = [sys.argv[0], *words]
    hydra.main(config_path=CONFIGS, config_name=command, version_base=HYDRA)(lambda cfg: None)()
