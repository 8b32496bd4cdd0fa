"""Begin a larger VD-VAE where a smaller one ended: write weights of a new shape that continue those of an old one.

    python -m scripts.grow_vdvae OLD_SHAPE OLD_WEIGHTS NEW_SHAPE FILE

Shapes are names in ``configs/network/vdvae`` or yaml files. Blocks are matched by resolution and order. A block that
only the new shape has begins without effect on the state (its last convolutions are zero), so that the grown network
computes what the old one did; its encoder's branch begins at random. Two shapes that differ in ``patch`` (1 and 2)
share what they have up to half of the size: the blocks of the full size are left out, their neighbours take over as far
as they can (the first convolution exactly, the last one without what the left-out blocks added).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.errors import BenchError
from bench.settings import validate
from methods.cvdvae.vdvae import TopDownBlock, Vdvae, VdvaeConfig, parse_blocks
from methods.cvdvae.weights import load_weights

CONFIGS = Path(__file__).parents[1] / "configs" / "network" / "vdvae"


def names_of_blocks(text: str) -> list[tuple[int, int | None, int]]:
    """(resolution, factor or source, number among the like before it) of every block of a string."""
    parsed = parse_blocks(text)
    return [(r, mark, parsed[:i].count((r, mark))) for i, (r, mark) in enumerate(parsed)]


def silence(block: nn.Module) -> None:
    """Take away what a new block adds to the state."""
    layers = [block.z_proj, block.resnet.c4] if isinstance(block, TopDownBlock) else [block.c4]
    for layer in layers:
        nn.init.zeros_(layer.weight)  # type: ignore[union-attr, arg-type]
        nn.init.zeros_(layer.bias)  # type: ignore[union-attr, arg-type]


def unshuffled(weight: Tensor) -> Tensor:
    """The kernel [C, 12, 3, 3] on squares of 2x2 pixels that equals a 3x3 kernel [C, 3, 3, 3] and 2x2 averaging."""
    four = sum(
        nn.functional.pad(weight, (dx, 1 - dx, dy, 1 - dy)) for dy in (0, 1) for dx in (0, 1)
    )  # [C, 3, 4, 4], stride 2, first row one pixel above the square
    assert isinstance(four, Tensor)
    six = nn.functional.pad(four / 4, (1, 1, 1, 1))  # three squares a side
    return six.unflatten(2, (3, 2)).unflatten(4, (3, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)


@torch.no_grad()
def grow(old: Vdvae, new: Vdvae) -> None:
    """Fill a network with what another one learnt.

    Raises:
        BenchError: what both have is of different width.

    """
    for part, theirs, mine in (
        ("decoder", old.decoder.dec_blocks, new.decoder.dec_blocks),
        ("encoder", old.encoder.enc_blocks, new.encoder.enc_blocks),
    ):
        learnt = dict(zip(names_of_blocks(getattr(old.config, part)), theirs, strict=True))
        for name, block in zip(names_of_blocks(getattr(new.config, part)), mine, strict=True):
            if name not in learnt:
                silence(block)
                continue
            try:
                block.load_state_dict(learnt[name].state_dict())
            except RuntimeError as error:
                raise BenchError(f"The {part}'s blocks at {name[0]} pixels differ in width: give both one.") from error
    for mine_bias, their_bias in zip(new.decoder.bias_xs, old.decoder.bias_xs, strict=True):
        mine_bias.copy_(their_bias)
    first, last = old.encoder.in_conv.state_dict(), old.decoder.out_net.out_conv.state_dict()
    gain, bias = old.decoder.gain.data, old.decoder.bias.data
    if (old.config.patch, new.config.patch) == (1, 2):
        more = new.config.channels(new.config.finest) - old.config.channels(old.config.size)
        first = {
            "weight": nn.functional.pad(unshuffled(first["weight"]), (0, 0, 0, 0, 0, 0, 0, more)),
            "bias": nn.functional.pad(first["bias"], (0, more)),
        }
        # the four pixels of a square begin equal
        last = {name: p.repeat_interleave(4, 0) for name, p in last.items()}
        last["weight"] = nn.functional.pad(last["weight"], (0, 0, 0, 0, 0, more))
        gain, bias = (nn.functional.pad(t, (0, 0, 0, 0, 0, more), value=v) for t, v in ((gain, 1.0), (bias, 0.0)))
    elif old.config.patch != new.config.patch:
        raise BenchError("Only a network on single pixels (patch 1) grows into one on squares (patch 2).")
    new.decoder.gain.copy_(gain)
    new.decoder.bias.copy_(bias)
    new.encoder.in_conv.load_state_dict(first)
    new.decoder.out_net.out_conv.load_state_dict(last)


def read_shape(name: str) -> Vdvae:
    """A network from a name in ``configs/network/vdvae`` or a yaml file."""
    path = Path(name) if name.endswith(".yaml") else CONFIGS / f"{name}.yaml"
    return Vdvae(validate(VdvaeConfig, yaml.safe_load(path.read_text()), name))


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for argument in ("old", "weights", "new", "file"):
        parser.add_argument(argument)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    old, new = read_shape(arguments.old), read_shape(arguments.new)
    load_weights(old, arguments.weights)
    grow(old, new)
    save_file({name: p.contiguous() for name, p in new.state_dict().items()}, arguments.file)


if __name__ == "__main__":
    main()
