"""Numbers kept as small integers, on disk or in memory, that a batch reads as float32."""

from typing import NamedTuple

import numpy as np


class Scaling(NamedTuple):
    """How stored numbers become inputs: (value / divisor - mean) / std.

    Attributes:
      divisor: a positive number.
      mean: (F,) or (L, F) float32, or None for 0.
      std: as mean, positive, or None for 1.
    """

    divisor: float
    mean: np.ndarray | None = None
    std: np.ndarray | None = None


class Scaled:
    """Stored numbers that read as float32, a few rows at a time.

    Attributes:
      values: (n, L, F) integers, in memory or on disk.
      scaling: how they become inputs.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, values: np.ndarray, scaling: Scaling):
        if values.dtype.kind not in "iu":
            raise TypeError(f"values are {values.dtype}, expected integers")
        for what, number in scaling._asdict().items():
            if number is None:
                continue
            if not np.isfinite(number).all() or (what != "mean" and np.min(number) <= 0):
                raise ValueError(f"{what} is {number}, expected finite and, but for mean, positive")
        divisor, mean, std = scaling
        largest = np.iinfo(values.dtype).max / divisor + np.abs(0 if mean is None else mean)
        if np.max(largest / np.float64(1 if std is None else std)) > np.finfo(np.float32).max:
            raise ValueError(f"{scaling} makes inputs that float32 does not hold, expected smaller")
        self.values = values
        self.scaling = scaling

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, L, F)."""
        return self.values.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.values.ndim

    @property
    def size(self) -> int:
        """Number of values."""
        return self.values.size

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows) -> np.ndarray:
        """Read rows as float32."""
        divisor, mean, std = self.scaling
        out = np.divide(self.values[rows], np.float32(divisor), dtype=np.float32)
        if mean is not None:
            out -= mean
        if std is not None:
            out /= std
        return out

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)
