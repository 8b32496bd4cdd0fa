"""The schema of ``export.json`` and the columns of ``export.parquet``: what other tools may rely on (docs/schema.md).

``docs/schema/export.json`` is the same as JSON Schema. A change that readers must know of raises `VERSION`: the first
number where something is gone or means something else, the second where something is new.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

VERSION = "1.1"
COLUMNS = {
    "scale": "int64",
    "method": "string",
    "tau": "double",
    "metric": "string",
    "kind": "string",
    "index": "int64",
    "image": "string",
    "content": "string",
    "sample": "int64",
    "component": "int64",
    "value": "double",
}
"""Columns of the parquet file and their types in Arrow; null where one does not apply."""


class Figure(BaseModel):
    """A mean over images with its 95% interval; of times the median, least and most; null where not defined."""

    mean: float | None
    lo: float | None = Field(description="lower bound of the 95% interval (BCa, over images); of times the least")
    hi: float | None = Field(description="upper bound")
    n: int = Field(description="images (repeats, for times) of the mean")


class StatisticFigure(BaseModel):
    """A statistic with the value of a perfect sampler (docs/truth.md); null where it is not defined."""

    value: float | None
    lo: float | None
    hi: float | None
    right: float | None = Field(description="what a perfect sampler gives")
    distance: float | None = Field(
        description="beyond -1 or 1 the right value is ruled out at the level of 95%; null also where it is infinite: "
        "see `p`"
    )
    p: float | None = Field(description="probability that a perfect sampler is as far from the right value")
    p_joint: float | None = Field(description="p after Holm's correction for all statistics of the row")
    ruled_out: bool = Field(description="whether the right value is ruled out, by all statistics of the row together")
    n: int = Field(description="images that have it")


class MetricEntry(BaseModel):
    """What a metric is."""

    name: str
    label: str
    better: Literal["higher", "lower", "neither"]
    unit: str = Field(description="of values in these files")
    factor: float = Field(description="tables of the run directory show values times this; values here are without it")
    domain: Literal["sample", "pair", "image", "timing"]
    range: str
    source: str


class RowEntry(BaseModel):
    """One method at one scale and temperature."""

    label: str = Field(description="name of the rows, `method` in the parquet file")
    method: str = Field(description="registered name")
    title: str
    scale: int
    tau: float | None = Field(description="temperature; null for a method without one")
    version: int = Field(description="of the method's code")
    settings: dict[str, Any]
    weights: dict[str, str] = Field(description="sha256 of the files of weights, by their role")
    deterministic: bool
    evaluations: int = Field(description="network evaluations per sample")
    images: int
    samples: int = Field(description="per image")
    device: str | None = Field(description="that times were measured on")
    metrics: dict[str, Figure]
    statistics: dict[str, StatisticFigure]
    impossible: list[str] = Field(description="sentences on figures that cannot be right")


class Failure(BaseModel):
    """What failed in the last start."""

    what: str
    image: str | None
    reason: str


class Export(BaseModel):
    """A run directory as one document."""

    schema_version: str = Field(description="of this document and of the parquet file; readers check the first number")
    suite_version: str
    run: str = Field(description="name of the run directory")
    dataset: dict[str, Any]
    operator: dict[str, Any]
    n: int
    seed: int
    quantise: bool
    metrics: list[MetricEntry]
    rows: list[RowEntry]
    failures: list[Failure]
    environment: list[dict[str, Any]] = Field(description="per start: versions, device, threads")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of `Export`, as kept in docs/schema/export.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Export.model_json_schema()}
