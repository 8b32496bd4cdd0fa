"""The typed configuration: what the command line becomes, and what depends on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from bench.config import (
    FigureConfig,
    MethodConfig,
    RunConfig,
    check_label,
    compose,
    merge,
    method_config,
    method_configs,
    parse_images,
    parse_size,
    plain,
    read_config,
)
from bench.errors import BenchError
from bench.paper.config import ReproduceConfig, read_reproduction
from bench.settings import Settings, build, defaults, describe, setting, validate, written
from bench.training.config import TrainConfig, read_training

Configure = Callable[..., RunConfig]


@pytest.mark.parametrize(
    ("name", "cls", "words"),
    [
        ("run", RunConfig, []),
        ("train", TrainConfig, ["recipe=vdvae"]),
        ("figure", FigureConfig, ["study=uk"]),
        ("reproduce", ReproduceConfig, ["dataset.path=x"]),
    ],
)
def test_hydra_composes_the_defaults_that_the_models_describe(name: str, cls: type[Settings], words: list[str]) -> None:
    composed = plain(compose(name, words))
    for key, value in defaults(cls).items():
        assert key in composed
        if name == "run":
            assert composed[key] == json.loads(json.dumps(value))


@pytest.mark.parametrize("cls", [RunConfig, TrainConfig, FigureConfig, ReproduceConfig])
def test_every_setting_has_a_default_a_type_and_help(cls: type[Settings]) -> None:
    rows = list(describe(cls))
    assert rows
    for key, kind, text in rows:
        assert "=" in key
        assert kind
        assert text, key


def test_values_become_what_they_stand_for(configure: Configure) -> None:
    c = configure("scale=[8,4,8]", "tau=0.1", "images=200:400", "save_budget=20GB", "limit=7")
    assert c.scales == (8, 4)
    assert c.taus == (0.1,)
    assert c.images == (200, 400)
    assert c.save_budget == 20 * 10**9
    assert c.limit == 7
    assert c.metrics == ("psnr",)
    assert (c.stale, c.save_samples, c.resample, c.figure_images) == ("refuse", "auto", False, 4)
    assert c.timing.repeats == 1
    assert c.methods == (MethodConfig("bicubic", "bicubic", {}),)
    assert configure("images=3:").images == (3, None)


def test_the_record_is_plain_and_read_again(configure: Configure) -> None:
    c = configure("images=2:5", "methods=[dps]", "methods.dps.steps=7", "operator.sigma=0.1")
    record = c.record()
    assert json.loads(json.dumps(record)) == record
    assert record["methods"]["dps"]["method"] == "dps"
    assert record["methods"]["dps"]["steps"] == 7
    assert record["images"] == [2, 5]
    assert record["operator"]["sigma"] == 0.1
    assert record["scale"] == [8]
    assert not {"out", "variants"} & set(record)


def directory_of(*words: str) -> Path:
    return read_config(compose("run", ["device=cpu", *words])).out


def test_the_name_of_the_default_directory_follows_from_what_changes_rows() -> None:
    base = directory_of()
    assert base.parent == Path("results/runs")
    assert base.name.startswith("synthfaces-")
    for word in ("images=0:3", "n=2", "seed=1", "tau=0.5", "operator.sigma=0.1", "operator=average", "methods=[dps]"):
        assert directory_of(word) != base, word
    assert directory_of("variants={again: {method: bicubic}}") != base
    for word in ("batch=7", "paper=true", "stale=recompute", "save_samples=none", "save_budget=1GB", "resample=true",
                 "figure_images=1", "metrics=[psnr]", "perceptual=lpips_vgg", "timing.repeats=3"):  # fmt: skip
        assert directory_of(word) == base, word
    assert directory_of("out=2024") == Path("2024")


def test_a_folder_that_is_a_number_and_null_for_none() -> None:
    assert directory_of("out=null") == directory_of()


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 5 * 10**8), ("1.5 GB", 15 * 10**8), ("20kb", 20000), ("7", 7), (7, 7), ("0", 0)]
)
def test_sizes(text: Any, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["MB", "-3MB", "3XB", True, None, "1e3"])
def test_what_is_no_size(text: Any) -> None:
    with pytest.raises(ValueError, match="a size, as 500MB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["5", 5, "5:5", "6:5", ":", ":5", "-1:5", "a:b", "1:2:3"])
def test_what_is_no_range_of_images(text: Any) -> None:
    with pytest.raises(ValueError, match="a range, as 200:400"):
        parse_images(text)


def test_methods_are_read_without_a_run() -> None:
    assert method_config("bicubic") == MethodConfig("bicubic", "bicubic", {})
    large = method_config("dps_ffhq256", {"steps": 5, "unet": {"channels": 8}}, "mine")
    assert (large.label, large.name) == ("mine", "dps")
    assert large.parameters["steps"] == 5
    assert large.parameters["unet"]["channels"] == 8
    assert large.parameters["unet"]["head_channels"] == 64  # configs/network/unet/ffhq256.yaml
    assert large.parameters["weights"] == "ffhq_10m.pt"
    assert "method" not in large.parameters
    with pytest.raises(BenchError, match=r"There is no method 'bicubc'. Did you mean 'bicubic'"):
        method_config("bicubc")


def test_rows_are_methods_then_variants() -> None:
    raw = {
        "methods": {"bicubic": {}, "named": {"method": "dps", "steps": 3}},
        "variants": {"dps.20+": {"method": "dps", "steps": 20}, "big": {"method": "dps_ffhq256"}},
    }
    rows = method_configs(raw)
    assert [(m.label, m.name) for m in rows] == [
        ("bicubic", "bicubic"), ("named", "dps"), ("dps.20+", "dps"), ("big", "dps")
    ]  # fmt: skip
    assert rows[1].parameters == {"steps": 3}
    assert rows[2].parameters["steps"] == 20
    assert rows[3].parameters["steps"] == 1000
    assert raw["variants"]["big"] == {"method": "dps_ffhq256"}  # the caller's values are left alone


def test_only_variants(configure: Configure) -> None:
    c = configure("methods=[]", "variants={one: {method: bicubic}, two: {method: bicubic}}")
    assert [m.label for m in c.methods] == ["one", "two"]


@pytest.mark.parametrize("label", ["", "a b", "a/b", "..", ".", "-x", "ä", "a=b", "a:b", "a\n"])
def test_labels_that_are_no_names_of_folders(label: str) -> None:
    with pytest.raises(BenchError, match="cannot be the name of rows"):
        check_label(label)


def test_merging_at_every_depth() -> None:
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}
    assert merge(base, {"a": {"c": {"d": 3}}, "e": [4]}) == {"a": {"b": 1, "c": {"d": 3}}, "e": [4]}
    assert base == {"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}


def test_composing_within_a_task_leaves_hydra_as_it_was() -> None:
    from hydra.core.global_hydra import GlobalHydra

    state = GlobalHydra.instance()
    before, marker = state.hydra, object()
    state.hydra = marker  # type: ignore[assignment]
    try:
        method_config("bicubic")
        assert state.hydra is marker
        with pytest.raises(BenchError):
            method_config("nothing")
        assert state.hydra is marker
    finally:
        state.hydra = before


def test_reproduction() -> None:
    words = ["dataset=synthfaces", "protocol=small", "device=cpu", "part=[plots,table2]", "tau=0.5",
             "variants={dps20: {method: dps, steps: 20}}"]  # fmt: skip
    r = read_reproduction(compose("reproduce", words))
    assert r.parts == ("table2", "plots")
    assert r.table1_tau == 0.5
    assert r.run.taus == (0.5, 0.1, 0.8, 1.0)  # of Table 1, Table 2 and the appendix
    assert r.figure5_taus == (0.1, 0.3, 0.5, 0.8, 1.0)
    assert r.run.out == Path("results/reproduce/synthfaces")
    assert r.run.apd_images == 500
    assert [m.label for m in r.run.methods] == ["bicubic", "hcflow", "cvdvae", "sr3", "dps", "dps20"]
    with pytest.raises(BenchError, match="reference=x is not among the methods bicubic"):
        read_reproduction(compose("reproduce", [*words, "reference=x"]))
    with pytest.raises(BenchError, match="tau takes one value here"):
        read_reproduction(compose("reproduce", [*words, "tau=[0.1,0.2]"]))


def test_training() -> None:
    words = ["recipe=cvdvae", "scale=8", "device=cpu", "budget=48h*4", "method.network.prior_weights=null"]
    module, c = read_training(compose("train", ["recipe=vdvae", "device=cpu", "budget=30m", "seed=3"]))
    assert (c.budget, c.precision, c.betas, c.scale) == (1800.0, "bf16", (0.9, 0.99), None)
    assert c.out.parent == Path("results/training")
    assert c.record["seed"] == 3
    assert "out" not in c.record
    again, _ = read_training(compose("train", ["recipe=vdvae", "device=cpu", "seed=3"]))
    for a, b in zip(module.parameters(), again.parameters(), strict=True):  # initial weights follow from the seed
        assert a.equal(b)
    with pytest.raises(BenchError, match="is trained for one scale: add scale=4"):
        read_training(compose("train", [w for w in words if w != "scale=8"]))


class Shape(Settings):
    width: int = setting(8, "channels", ge=1)
    sides: tuple[int, int] = setting((1, 2), "of the image")


class Plugin:
    def __init__(
        self,
        shape: Shape,
        files: Mapping[str, Shape | None],
        steps: Annotated[int, Field(ge=2)] = 4,
        mode: Literal["a", "b"] = "a",
        folder: Path = Path("x"),
        levels: Sequence[float] = (1.0,),
        unknown: SomethingElse = None,  # type: ignore[name-defined] # noqa: F821
    ) -> None:
        self.given = (shape, files, steps, mode, folder, levels, unknown)


def test_a_constructor_gets_its_settings_typed() -> None:
    values = {"shape": {"sides": [3, 4]}, "files": {"x4": {"width": 2}, "x8": None}, "folder": "y", "levels": [1, 2.5]}
    shape, files, steps, mode, folder, levels, unknown = build(Plugin, values, "methods.p", "p").given
    assert shape == Shape(sides=(3, 4))
    assert files["x4"].width == 2
    assert files["x8"] is None
    assert (steps, mode, folder, list(levels), unknown) == (4, "a", Path("y"), [1, 2.5], None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"stpes": 1}, "methods.p.stpes is no setting of p. Did you mean 'steps'"),
        ({"shape": {"widht": 1}}, "methods.p.shape.widht is no setting of p. Did you mean 'width'?"),
        ({"files": {"x4": {"widht": 1}}}, "methods.p.files.x4.widht is no setting of p. Did you mean 'width'?"),
        ({"steps": True}, "methods.p.steps=true is wrong: it should be a whole number."),
        ({"steps": 2.5}, "methods.p.steps=2.5 is wrong: it should be a whole number."),
        ({"steps": None}, "methods.p.steps=null is wrong: it should be a whole number."),
        ({"shape": 3}, "methods.p.shape=3 is wrong: it should be a group of settings."),
        ({"shape": {"sides": [1]}}, "methods.p.shape.sides is wrong: it should have more values."),
        ({"mode": "c"}, "methods.p.mode=c is wrong: it should be 'a' or 'b'."),
        ({"levels": ["x"]}, "methods.p.levels=x is wrong: it should be a number."),
    ],
)
def test_wrong_settings_of_a_constructor(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BenchError) as caught:
        build(Plugin, {"shape": {}, "files": {}, **changes}, "methods.p", "p")
    assert str(caught.value).startswith(sentence)


def test_a_missing_setting() -> None:
    with pytest.raises(BenchError, match=r"methods.p.shape has no value: add methods.p.shape=VALUE"):
        build(Plugin, {"files": {}}, "methods.p", "p")
    with pytest.raises(BenchError, match="width=x is wrong"):
        validate(Shape, {"width": "x"})


def test_values_as_on_the_command_line() -> None:
    assert written([4, None, True, "a", 2e-4, {"b": [1]}]) == "[4,null,true,a,0.0002,{b: [1]}]"


def test_groups_of_free_names_are_given_whole() -> None:
    """As the docs write them, without +."""
    words = ["launch=slurm", "launch.workers=2", "launch.cpus=1", "launch.options={partition: gpu, account: faces}"]
    assert read_config(compose("run", words)).launch.options == {"partition": "gpu", "account": "faces"}
    words = ["methods=[deepinv_sampler]", "methods.deepinv_sampler.options={zeta: 0.25, lambda_: 2}"]
    parameters = read_config(compose("run", words)).methods[0].parameters
    assert parameters["options"] == {"zeta": 0.25, "lambda_": 2}
