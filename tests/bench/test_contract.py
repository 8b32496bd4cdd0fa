import torch

from bench.contract import Noise


def test_a_stream_depends_on_seed_image_and_sample_only() -> None:
    whole = Noise(0, ["a", "b", "c"], [0, 1, 2])
    first, second = whole.normal(3, 4), whole.uniform(5)
    alone = Noise(0, ["b"], [2])
    assert torch.equal(alone.normal(3, 4)[0, 0], first[1, 2])
    assert torch.equal(alone.uniform(5)[0, 0], second[1, 2])
    assert first.shape == (3, 3, 3, 4)


def test_streams_differ() -> None:
    base = Noise(0, ["a"], [0]).normal(8)
    assert not torch.equal(base, Noise(1, ["a"], [0]).normal(8))
    assert not torch.equal(base, Noise(0, ["b"], [0]).normal(8))
    assert not torch.equal(base, Noise(0, ["a"], [1]).normal(8))


def test_moments() -> None:
    x = Noise(3, [str(i) for i in range(20)], range(5)).normal(1000)
    assert abs(x.mean()) < 0.02
    assert abs(x.std() - 1) < 0.02
    u = Noise(3, ["a"], [0]).uniform(100_000)
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 0.005


def test_noise_can_be_drawn_in_parts() -> None:
    whole = Noise(3, ["a", "b"], [0, 1, 4])
    first, second = whole.normal(2, 5), whole.uniform(3)
    parts = Noise(3, ["a", "b"], [0, 1, 4])
    rows = [slice(0, 4), slice(4, 6)]
    normal = torch.cat([parts.normal(2, 5, rows=r) for r in rows])
    uniform = torch.cat([parts.uniform(3, rows=r) for r in rows])
    assert torch.equal(normal, first.flatten(0, 1))
    assert torch.equal(uniform, second.flatten(0, 1))
