"""What driver and workers send each other: plain values and arrays, as bytes that hold no code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

ERROR = "error"
"""Key of the sentence in the answer of a worker that could not do a task."""


@dataclass(frozen=True)
class Parcel:
    """Plain values, as JSON has them, and arrays by name."""

    content: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """In the format of safetensors, with the plain values as its metadata."""
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(a) for name, a in self.arrays.items()}
        return save(arrays, metadata={"content": json.dumps(dict(self.content))})

    @classmethod
    def from_bytes(cls, data: bytes) -> Parcel:
        """What `to_bytes` has made.

        Raises:
            ValueError: it is something else.

        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            return cls(json.loads(header["__metadata__"]["content"]), arrays)
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(f"no parcel: {error}") from error
