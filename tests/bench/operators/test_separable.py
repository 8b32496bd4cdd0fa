"""Separable operators on images that are no squares, against the dense matrix of the Kronecker product."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.operators import Operator, OperatorFacts
from bench.operators.average import Average
from bench.operators.bicubic import Bicubic
from bench.operators.separable import Separable, apply_matrices, exact_products

SIZE = (8, 12)
PIXELS = SIZE[0] * SIZE[1]


class Deficient(Separable):
    """Averages of pairs whose last row repeats the first: what it sees has fewer dimensions than y."""

    facts = OperatorFacts(title="Deficient")
    name = "deficient"

    def matrix(self, side: int) -> np.ndarray:
        matrix = np.kron(np.eye(side // self.scale), np.full((1, self.scale), 1 / self.scale))
        matrix[-1] = matrix[0]
        return matrix


OPERATORS = {
    "bicubic x2": lambda: Bicubic(SIZE, 2, dtype=torch.float64),
    "bicubic x4": lambda: Bicubic(SIZE, 4, dtype=torch.float64),
    "average x4": lambda: Average(SIZE, 4, dtype=torch.float64),
    "of the full size": lambda: Bicubic(SIZE, 1, dtype=torch.float64),
    "rank-deficient": lambda: Deficient(SIZE, 2, dtype=torch.float64),
}


@pytest.fixture(params=OPERATORS)
def operator(request: pytest.FixtureRequest) -> Operator:
    return OPERATORS[request.param]()


@pytest.fixture
def dense(operator: Separable) -> np.ndarray:
    """A of one colour [h w, H W], of pixels row by row."""
    return np.kron(operator.matrix(SIZE[0]), operator.matrix(SIZE[1]))


def images(*shape: int) -> Tensor:
    return torch.rand(2, 3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def times(matrix: np.ndarray, x: Tensor, size: tuple[int, int]) -> Tensor:
    return (x.flatten(-2) @ torch.from_numpy(np.ascontiguousarray(matrix.T))).unflatten(-1, size)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, atol=tolerance, rtol=0)


def test_forward_and_adjoint(operator: Operator, dense: np.ndarray) -> None:
    assert operator.low_size == (SIZE[0] // operator.scale, SIZE[1] // operator.scale)
    close(operator.forward(images(*SIZE)), times(dense, images(*SIZE), operator.low_size))
    close(operator.adjoint(images(*operator.low_size)), times(dense.T, images(*operator.low_size), SIZE))


def test_pinv_is_moore_penrose(operator: Operator, dense: np.ndarray) -> None:
    y = images(*operator.low_size)
    close(operator.pinv(y), times(np.linalg.pinv(dense, rcond=1e-8), y, SIZE), 1e-9)


def test_project_is_the_nearest_of_the_nearest(operator: Operator, dense: np.ndarray) -> None:
    """In the row space it is A^+ y, in the null space x."""
    x, y = images(*SIZE), images(*operator.low_size)
    inverse = np.linalg.pinv(dense, rcond=1e-8)
    close(operator.project(x, y), times(inverse, y, SIZE) + times(np.eye(PIXELS) - inverse @ dense, x, SIZE), 1e-9)


def test_svd_is_a_decomposition(operator: Operator, dense: np.ndarray) -> None:
    svd = operator.svd()
    x, y = images(*SIZE), images(*operator.low_size)
    assert svd.s.shape == SIZE
    close(svd.u(svd.s * svd.v_t(x)), operator.forward(x))  # A = U diag(s) V^T
    close(svd.v(svd.s * svd.u_t(y)), operator.adjoint(y))
    expected = np.zeros(PIXELS)
    found = np.linalg.svd(dense, compute_uv=False)
    expected[: len(found)] = np.where(found > 1e-9 * found.max(), found, 0)
    np.testing.assert_allclose(np.sort(svd.s.numpy().ravel()), np.sort(expected), atol=1e-12)


def test_bases_are_orthogonal(operator: Operator) -> None:
    svd = operator.svd()
    unit = torch.eye(PIXELS, dtype=torch.float64).view(PIXELS, *SIZE)
    v = svd.v(unit).flatten(1)
    close(v @ v.T, torch.eye(PIXELS, dtype=torch.float64))
    close(svd.v_t(svd.v(unit)), unit)
    seen = unit[svd.s.flatten() > 0]
    u = svd.u(seen).flatten(1)
    close(u @ u.T, torch.eye(len(seen), dtype=torch.float64))


@pytest.mark.parametrize("gain", [1.0, "each"])
def test_pull_moves_what_is_seen_alone(operator: Operator, gain: float | str) -> None:
    """The columns of V that A does not see are left out; the result is that of all of them."""
    svd = operator.svd()
    share = 1 / (1 + svd.s.square()) if gain == "each" else 1.0
    x, target = images(*SIZE), svd.v_t(images(*SIZE)).flip(-1)
    close(svd.pull(x, target, share), svd.v(torch.where(svd.s > 0, share * (target - svd.v_t(x)), 0.0)))


def test_the_null_space_has_no_coefficients(operator: Operator) -> None:
    svd = operator.svd()
    hidden = svd.s == 0
    assert (svd.u_t(images(*operator.low_size))[..., hidden] == 0).all()
    c = images(*SIZE)
    close(svd.u(c), svd.u(torch.where(hidden, torch.zeros_like(c), c)), 0)  # whatever is there does not count
    unseen = svd.v(torch.where(hidden, c, torch.zeros_like(c)))
    close(operator.forward(unseen), torch.zeros(2, 3, *operator.low_size, dtype=torch.float64))


def test_average_pooling_is_that_of_torch() -> None:
    operator = Average(SIZE, 4, dtype=torch.float64)
    x, y = images(*SIZE), images(2, 3)
    close(operator.forward(x), torch.nn.functional.avg_pool2d(x, 4))
    close(operator.pinv(y), y.repeat_interleave(4, -1).repeat_interleave(4, -2))
    s = operator.svd().s
    close(s[s > 0], torch.full((6,), 0.25, dtype=torch.float64))


def test_a_precision_is_rounded_from_the_exact_matrices() -> None:
    """float64 -> float32 -> float64 is exact again."""
    exact = Bicubic(SIZE, 4, dtype=torch.float64)
    single = exact.to("cpu", torch.float32)
    assert single.forward(images(*SIZE).float()).dtype == torch.float32
    assert single.svd().s.dtype == torch.float32
    assert (exact.dtype, single.dtype) == (torch.float64, torch.float32)
    close(single.to("cpu", torch.float64).forward(images(*SIZE)), exact.forward(images(*SIZE)), 0)
    assert (single.size, single.scale, single.low_size, single.range) == (SIZE, 4, (2, 3), (0.0, 1.0))


def precisions() -> list[str]:
    return [backend.fp32_precision for backend in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)]


def by_backend() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


COARSE = {
    "for all": lambda: torch.set_float32_matmul_precision("medium"),
    "by backend": by_backend,
    "allow_tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
}


@pytest.fixture(params=COARSE)
def coarse(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What a plugin may do, in any of PyTorch's interfaces; gives the precisions that then hold."""
    before = precisions()
    COARSE[request.param]()
    assert "tf32" in precisions()
    yield precisions()
    torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision = before
    if request.param != "by backend":
        torch.set_float32_matmul_precision("highest")


def test_a_global_precision_does_not_get_into_the_operator(coarse: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor without bf16 or TF32 the figures tell nothing; the precision that holds within does."""
    operator = Bicubic(256, 4)
    x, y = (torch.rand(3, s, s, generator=torch.Generator().manual_seed(0)) for s in (256, 64))
    exact = operator.to("cpu", torch.float64)
    within = []
    real = torch.Tensor.__matmul__

    def matmul(a: Tensor, b: Tensor) -> Tensor:
        within.append(precisions())
        return real(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", matmul)
    results = [operator.forward(x), operator.adjoint(y), operator.pinv(y), operator.svd().v_t(x)]
    monkeypatch.undo()
    assert within == [["ieee", "ieee"]] * 8
    assert precisions() == coarse  # it is the plugin's again
    for found, expected in zip(
        results,
        [exact.forward(x.double()), exact.adjoint(y.double()), exact.pinv(y.double()), exact.svd().v_t(x.double())],
        strict=True,
    ):
        assert (found.double() - expected).abs().max() < 2e-6 * expected.abs().max()  # bf16: 1e-3, TF32: 1e-4


def test_an_error_within_gives_the_precision_back(coarse: list[str]) -> None:
    with pytest.raises(ZeroDivisionError), exact_products():
        raise ZeroDivisionError
    assert precisions() == coarse


def test_products_are_those_of_einsum() -> None:
    left, right, x = images(5, 7)[0, 0], images(4, 6)[0, 0], images(7, 6)
    close(apply_matrices(left, right, x), torch.einsum("ih,bchw,jw->bcij", left, x, right))
