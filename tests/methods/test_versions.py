"""A method whose samples change must say so: rows of another version are never mixed into a table.

`versions.json` keeps the observation of a rendered face and, for every method with its shipped weights, a few pixels of
samples and the version that made them.
After a change that is meant, raise ``version`` among the method's facts and run

    python tests/methods/test_versions.py NAME
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module

from bench.config import read_config
from bench.contract import Noise, methods
from bench.load import make_method
from bench.operators.bicubic import Bicubic

GOLDEN = Path(__file__).with_name("versions.json")
SETTINGS = {
    "daps": {"": ["steps=3", "langevin_steps=10"], "exact": ["steps=3", "conditional=exact", "assumed_sigma=null"]},
    "ddnm": {"": ["steps=4"], "travel": ["steps=4", "travel_repeat=2"]},
    "ddrm": {"": ["steps=4"]},
    "diffpir": {"": ["steps=4"], "as_coded": ["steps=4", "as_coded=true"]},
    "dps": {"": ["steps=4"]},
    "pigdm": {"": ["steps=4"], "code": ["steps=4", "rule=code"]},
    "pnpdm": {v: ["steps=2", "inner=5", f"variance={v}"] for v in ("sde", "learned")},
    "reddiff": {"": ["steps=4"]},
    "sr3": {"": ["steps=4"], "ddim": ["steps=4", "sampler=ddim"]},
}
"""Method to cases to settings, where the shipped ones alone would take long or leave something out."""
SCALE = 8
TOLERANCE = 0.255
"""8-bit levels by which the rounding of another machine may change a pixel: 1e-3 of the range."""
STRAY = 0.04
"""Share of pixels that may change by more: rounding now and then turns a discrete choice (a component of a mixture)."""

OTHERS = ("deepinv_sampler", "diffusers_pipeline")
"""Of other libraries, without weights that come with the project."""
NAMES = [n for n in methods.names() if not methods.facts(n).needs_posterior and n not in OTHERS]
"""All others that run on any image."""


def golden() -> dict[str, Any]:
    """The observation "y", 8-bit [3 h w], and the records of "methods"."""
    kept: dict[str, Any] = json.loads(GOLDEN.read_text())
    return kept


def pixels(name: str, settings: list[str]) -> list[float]:
    """Of two samples of the face, every 16th pixel along both sides, in 8-bit levels."""
    words = [f"methods=[{name}]", *(f"methods.{name}.{s}" for s in settings)]
    with initialize_config_module("configs", version_base="1.3"):
        method = make_method(read_config(compose("run", words)).methods[0])
    y = torch.tensor(golden()["y"]).view(1, 3, 64 // SCALE, 64 // SCALE) / 255
    n = 1 if method.facts.deterministic else 2
    samples = method.prepare(Bicubic(64, SCALE)).sample(y, n, 0.8, Noise(0, ["golden"], range(n)))
    return [round(float(level), 2) for level in (255 * samples[..., 8::16, 8::16]).flatten()]


def record(name: str) -> dict[str, Any]:
    """The version of a method and the pixels of all its cases."""
    cases = SETTINGS.get(name, {"": []})
    return {
        "version": methods.facts(name).version,
        "samples": {case: pixels(name, settings) for case, settings in cases.items()},
    }


def verdict(name: str, found: dict[str, Any], kept: dict[str, Any] | None) -> str | None:
    """Say what is wrong, None where nothing is."""
    renew = f"run python tests/methods/test_versions.py {name}"
    if kept is None or kept["samples"].keys() != found["samples"].keys():
        return f"{name} has no golden samples for all its cases: {renew}."
    if kept["version"] != found["version"]:
        return f"The golden samples of {name} are of version {kept['version']}, it is {found['version']}: {renew}."
    for case, expected in kept["samples"].items():
        gaps = (torch.tensor(found["samples"][case]) - torch.tensor(expected)).abs()
        if (~(gaps <= TOLERANCE)).float().mean() > STRAY:  # a NaN is a gap
            return (
                f"Samples of {name} {case} have changed, by up to {float(gaps.max()):.2f} levels, and its version has "
                f"not: undo what changed them, or raise its version to {kept['version'] + 1} and {renew}."
            )
    return None


@pytest.mark.parametrize("name", NAMES)
def test_samples_are_those_of_the_version(name: str) -> None:
    wrong = verdict(name, record(name), golden()["methods"].get(name))
    assert wrong is None, wrong


def test_nothing_is_kept_of_methods_that_have_gone() -> None:
    assert set(golden()["methods"]) <= set(methods.names())


def test_what_the_verdict_says() -> None:
    kept = {"version": 1, "samples": {"": [0.0] * 96}}
    assert verdict("m", kept, kept) is None
    assert verdict("m", {"version": 1, "samples": {"": [0.2] * 96}}, kept) is None  # rounding
    assert verdict("m", {"version": 1, "samples": {"": [90.0] * 3 + [0.0] * 93}}, kept) is None  # a choice or two
    changed = {"samples": {"": [0.0] * 48 + [1.0] * 48}}
    assert "raise its version to 2" in str(verdict("m", {"version": 1, **changed}, kept))
    assert "of version 1, it is 2" in str(verdict("m", {"version": 2, **changed}, kept))
    assert "raise its version" in str(verdict("m", {"version": 1, "samples": {"": [float("nan")] * 96}}, kept))
    assert "no golden samples" in str(verdict("m", kept, None))
    assert "no golden samples" in str(verdict("m", kept, {"version": 1, "samples": {}}))


def main(names: list[str]) -> None:
    """Renew the golden samples of some methods, or of all."""
    before = golden()
    kept = before["methods"] | {name: record(name) for name in names or NAMES}
    lines = [f'"{n}": {json.dumps(kept[n])}' for n in sorted(kept) if n in methods.names()]
    text = ",\n".join(lines)
    GOLDEN.write_text(f'{{"y": {before["y"]},\n"methods": {{\n{text}\n}}}}\n')


if __name__ == "__main__":
    main(sys.argv[1:])
