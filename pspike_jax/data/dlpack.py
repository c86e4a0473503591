"""Arrays of other libraries, such as PyTorch's tensors, by DLPack."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt


class SupportsDLPack(Protocol):
    """An array of any library that shares its memory."""

    def __dlpack__(self) -> object:
        """Share it."""


# What readers of data take: arrays, frames, lists of arrays of any lengths, tensors.
Arrays: TypeAlias = npt.ArrayLike | SupportsDLPack | Sequence[npt.ArrayLike | SupportsDLPack]


def from_dlpack(value: Any, what: str) -> Any:
    """Return an array that supports DLPack as one of NumPy, and anything else as it is.

    Args:
      value: anything.
      what: what messages call it.

    Returns:
      The other library's own memory where NumPy can read it.

    Raises:
      TypeError: the library does not share it.
    """
    if not hasattr(value, "__dlpack__") or isinstance(value, (np.ndarray, jax.Array)):
        return value
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError):  # another device, or bfloat16
        pass
    try:
        return np.asarray(jnp.from_dlpack(value))
    except Exception as error:  # every library refuses in its own way
        raise TypeError(
            f"{what} are a {type(value).__name__} that cannot be shared: {error}"
        ) from error
