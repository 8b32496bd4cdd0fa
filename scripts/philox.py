"""Counter-based normal numbers that are the same on every device, to see what drawing noise on a GPU would gain.

Philox 4x32-10 (Salmon et al., SC 2011) in integer arithmetic of torch, with the Box-Muller transform: the words are
equal on every device, the normal numbers up to the rounding of log, cos and sin.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF
ROUNDS = 10


def words(counter: Tensor, key: Tensor) -> Tensor:
    """The block cipher: counter [..., 4] and key [..., 2] as int64 below 2^32, to [..., 4] of the same kind."""
    c0, c1, c2, c3 = counter.unbind(-1)
    k0, k1 = key.unbind(-1)
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, MULTIPLIERS[0])
        high1, low1 = _multiply(c2, MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return torch.stack([c0, c1, c2, c3], -1)


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a product; int64 would overflow, so that a is taken in two halves."""
    low = (a & 0xFFFF) * b
    high = (a >> 16) * b + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def normal(keys: Tensor, count: int, call: int = 0) -> Tensor:
    """Standard normal float32 [R, count] for stream keys [R, 2] (int64 below 2^32), on their device.

    Args:
        keys: one for each (seed, image, sample).
        count: numbers of each stream.
        call: the stream's how-many-th call; other calls give other numbers.

    """
    blocks = -(-count // 4)
    counter = torch.zeros(blocks, 4, dtype=torch.int64, device=keys.device)
    counter[:, 0] = torch.arange(blocks, device=keys.device)
    counter[:, 1] = call
    drawn = words(counter.expand(len(keys), -1, -1), keys[:, None].expand(-1, blocks, -1))
    u = (drawn >> 8).float().add(0.5).mul(2.0**-24)  # 24 bits, never 0 or 1
    radius = (-2 * u[..., :2].log()).sqrt()
    angle = 2 * math.pi * u[..., 2:]
    return torch.cat([radius * angle.cos(), radius * angle.sin()], -1).flatten(1)[:, :count]
