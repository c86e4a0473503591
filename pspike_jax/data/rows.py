"""Chosen rows of a memory map, read when a batch asks for them: a split need not be copied."""

import mmap

import numpy as np


class Rows:
    """Some rows of an array, as an array.

    Attributes:
      array: (m, ...), in memory or on disk.
      rows: (n,) numbers of its rows.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray):
        self.array = array
        self.rows = np.asarray(rows)

    @property
    def dtype(self) -> np.dtype:
        """That of the array."""
        return self.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return (len(self.rows), *self.array.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index) -> np.ndarray:
        """Read rows by number, slice, mask or array, and then along further axes."""
        first, *rest = index if isinstance(index, tuple) else (index,)
        if first is Ellipsis:
            return np.asarray(self)[index]
        chosen = self.array[self.rows[first]]
        return chosen[(slice(None),) * np.ndim(self.rows[first]) + tuple(rest)]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.array[self.rows], dtype)


def is_mapped(array: np.ndarray) -> bool:
    """Tell whether an array, or what it is a view of, lies in a file.

    Args:
      array: any array.

    Returns:
      True for memory maps and their views.
    """
    while array is not None:
        if isinstance(array, (np.memmap, mmap.mmap)):
            return True
        array = getattr(array, "base", None)
    return False
