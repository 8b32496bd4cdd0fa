"""A grown network computes what the one it grew from computes."""

import pytest
import torch
import torch.nn.functional as F

from bench.errors import BenchError
from methods.cvdvae.vdvae import Vdvae, VdvaeConfig
from scripts.compare_vdvae import fill, images
from scripts.grow_vdvae import grow, unshuffled

OLD = VdvaeConfig(
    size=32, decoder="1x1,4m1,8m4,8x1,16m8,32m16", encoder="32d2,16x1,16d2,8d2,4d4,1x1", width=12, widths={32: 8},
    no_bias_above=8, mixtures=2, bits=8,
)  # fmt: skip


def networks(**changes) -> tuple[Vdvae, Vdvae]:
    torch.manual_seed(0)
    old, new = Vdvae(OLD), Vdvae(OLD.model_copy(update=changes))
    fill(old)
    return old, new


def parameters(model: Vdvae, x: torch.Tensor) -> torch.Tensor:
    """Of the output, with the means of the posteriors."""
    return model.infer(x, lambda l, q: q.mean)[0]


@torch.no_grad()
def test_new_groups_and_blocks_begin_without_effect() -> None:
    old, new = networks(decoder="1x1,4m1,8m4,8x3,16m8,16x2,32m16,32x1", encoder="32x1,32d2,16x2,16d2,8d2,4x1,4d4,1x1")
    grow(old, new)
    x = images(32, batch=2)
    torch.testing.assert_close(parameters(new, x), parameters(old, x))
    assert len(new.decoder.blocks) == 11


def test_what_is_new_learns() -> None:
    old, new = networks(decoder="1x1,4m1,8m4,8x1,16m8,16x1,32m16")
    grow(old, new)
    distortion, rate = new.elbo(images(32, batch=2), lambda l, q: q.draw(torch.ones_like(q.mean)))
    (distortion + rate).mean().backward()
    block = new.decoder.blocks[5]
    assert block.z_proj.weight.grad.abs().max() > 0
    assert block.resnet.c4.weight.grad.abs().max() > 0
    assert block.enc.c4.weight.grad.abs().max() > 0


@torch.no_grad()
def test_a_first_convolution_moves_to_squares_of_pixels() -> None:
    weight, x = torch.randn(5, 3, 3, 3), torch.randn(2, 3, 16, 16)
    expected = F.avg_pool2d(F.conv2d(x, weight, padding=1), 2)
    found = F.conv2d(F.pixel_unshuffle(x, 2), unshuffled(weight), padding=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_network_moves_to_squares_of_pixels() -> None:
    """Equal to the old one without its blocks at full size, its state enlarged."""
    old, new = networks(patch=2, decoder="1x1,4m1,8m4,8x1,16m8", encoder="16x1,16d2,8d2,4d4,1x1")
    grow(old, new)
    x = images(32, batch=2)
    features = old.encoder.in_conv(old.normalise(x))
    state = F.pad(F.avg_pool2d(features, 2), (0, 0, 0, 0, 0, 4))
    torch.testing.assert_close(new.encoder.in_conv(F.pixel_unshuffle(new.normalise(x), 2)), state)
    seen = new.decoder.run(lambda l, block, state, prior: prior.mean)[16]
    enlarged = F.interpolate(seen[:, :8], scale_factor=2)
    expected = old.decoder.out_net.out_conv(enlarged * old.decoder.gain + old.decoder.bias)
    torch.testing.assert_close(new.decoder(lambda l, block, state, prior: prior.mean), expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"widths": {32: 8, 8: 16}}, "decoder's blocks at 8 pixels differ in width"),
        ({"patch": 4, "decoder": "1x1,4m1,8m4", "encoder": "8d2,4d4,1x1"}, "Only a network on single pixels"),
    ],
)
def test_shapes_that_do_not_continue(changes: dict, sentence: str) -> None:
    old, new = networks(**changes)
    with pytest.raises(BenchError, match=sentence):
        grow(old, new)
