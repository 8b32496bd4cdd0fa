"""Hydra's configuration groups, as a package so that they are installed with the code.

The settings of the commands are described in ``bench``: their defaults are what ``run.yaml`` and the others begin with,
as ``run_settings`` and so on.
"""

from hydra.core.config_store import ConfigStore

from bench.config import CompareConfig, FigureConfig, GridConfig, MeasureConfig, RunConfig
from bench.paper.config import ReproduceConfig
from bench.sample.config import SampleConfig
from bench.settings import defaults
from bench.training.config import TrainConfig

for _name, _group in (
    ("run", RunConfig),
    ("tune", GridConfig),
    ("sample", SampleConfig),
    ("measure", MeasureConfig),
    ("compare", CompareConfig),
    ("train", TrainConfig),
    ("figure", FigureConfig),
    ("reproduce", ReproduceConfig),
):
    ConfigStore.instance().store(f"{_name}_settings", defaults(_group), provider="bench")
