import numpy as np
import pytest

from bench.launch.parcel import Parcel


def test_what_is_sent_arrives() -> None:
    arrays = {
        "a/b": np.arange(6, dtype=np.float64).reshape(2, 3)[:, ::-1],
        "empty": np.zeros((0, 4), np.float32),
        "picture": np.full((2, 2, 3), 255, np.uint8),
    }
    content = {"indices": [1, 2], "name": "τ = 0.8 \udce9", "none": None, "x": 0.1}
    back = Parcel.from_bytes(Parcel(content, arrays).to_bytes())
    assert back.content == content
    for name, a in arrays.items():
        np.testing.assert_array_equal(back.arrays[name], a)
        assert back.arrays[name].dtype == a.dtype


@pytest.mark.parametrize("data", [b"", b"{}", b"\x80\x04\x95", b"\xff" * 100])
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no parcel"):
        Parcel.from_bytes(data)
