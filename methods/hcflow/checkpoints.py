"""Checkpoints of HCFlow: ours (safetensors) and the official ``.pth`` state dicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from bench import weights
from bench.weights import Seen
from methods.hcflow.flow import Hcflow, HcflowConfig

SHIPPED = Path(__file__).parent / "shipped"


def flow_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take away the prefix of DistributedDataParallel."""
    return {k.removeprefix("module."): v for k, v in state.items()}


def seen(state: Mapping[str, Tensor], config: HcflowConfig) -> Iterator[Seen]:
    """Settings that a file shows. `quant`, which sampling does not use, leaves no trace in it."""
    state = flow_names(dict(state))
    setting = f"flow.x{2**config.levels}"

    def count(before: str, after: str) -> int:
        """How many numbers stand between the two in names."""
        ends = (name.removesuffix(after) for name in state if name.startswith(before) and name.endswith(after))
        return sum(end.removeprefix(before).isdigit() for end in ends)

    first = "flow.level0_condFlow"
    features = state[f"{first}.conv_first.weight"].shape[0]
    levels = count("flow.level", "_condFlow.conv_first.weight")
    conditional = count(f"{first}.additional_flow_steps.", ".permute.weight")
    yield Seen(f"{setting}.levels", levels, config.levels)
    yield Seen(f"{setting}.conditional", conditional, config.conditional)
    yield Seen(f"{setting}.steps", count("flow.layers.", ".permute.weight") // levels + conditional, config.steps)
    yield Seen(f"{setting}.features", features, config.features)
    yield Seen(f"{setting}.growth", state[f"{first}.RRDB_trunk0.0.RDB1.conv1.weight"].shape[0], config.growth)
    blocks = [count(f"{first}.RRDB_trunk{i}.", ".RDB1.conv1.weight") for i in (0, 1)]
    yield Seen(f"{setting}.blocks", blocks, list(config.blocks))
    yield Seen(f"{setting}.hidden", state["flow.layers.1.affine.f.conv1.weight"].shape[0], config.hidden)


def load_weights(model: Hcflow, name: str | Path) -> Path:
    """Load a file into a flow; see :func:`bench.weights.load_weights`."""
    return weights.load_weights(
        model, name, shipped=SHIPPED, rename=flow_names, seen=lambda state: seen(state, model.config)
    )
