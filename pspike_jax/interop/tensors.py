"""Read tensors, and nothing but tensors, from files, and check that they fit a network."""

import importlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from pspike_jax.data.archives import read_npz
from pspike_jax.data.untrusted import MOST_BYTES, open_regular


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a state dict from a `.npz` or `.pth` file; no file is unpickled.

    Args:
      path: `.npz`, as NumPy writes it, or `.pth`, `.pt`, as `torch.save(model.state_dict(), path)`
        writes it since PyTorch 1.6 (then PyTorch must be installed).

    Returns:
      {name: array}.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: PyTorch is needed and missing.
      ValueError: another ending; a file that is damaged, or holds code, or more than tensors, or
        tensors of more than `data.untrusted.MOST_BYTES`.
    """
    path = os.fspath(path)
    with open_regular(path, None):  # a pipe would be waited for
        pass
    ending = os.path.splitext(path)[1]
    if ending == ".npz":
        return {name: _native(array) for name, array in read_npz(path).items()}
    if ending not in (".pth", ".pt"):
        raise ValueError(f"{path} ends in {ending!r}; expected .npz, .pth or .pt")
    torch = _torch_for(path)
    try:
        # Mapped: what a damaged file claims to hold is not allocated.
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # PyTorch raises a dozen types, its unpickler's own among them
        raise ValueError(f"{path}: not a readable file of tensors ({error})") from error
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds a {type(loaded).__name__}; expected a state dict")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not hasattr(tensor, "detach"):
            raise ValueError(f"{path}: {name!r} is a {type(tensor).__name__}; expected a tensor")
    try:
        taken = sum(tensor.nbytes for tensor in loaded.values())
        tensors = loaded if taken <= MOST_BYTES else {}
        arrays = {name: np.array(tensor.detach().numpy()) for name, tensor in tensors.items()}
    except Exception as error:  # sparse or quantised ones, types of a short float
        raise ValueError(f"{path}: a tensor has no NumPy array ({error})") from error
    if taken > MOST_BYTES:
        raise ValueError(f"{path}: its tensors take more than {MOST_BYTES:,} bytes")
    return arrays


def _native(array: np.ndarray) -> np.ndarray:
    """Return the same numbers with bytes in this machine's order, which alone JAX reads."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _torch_for(path):
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise ImportError(
            f"reading {path} needs PyTorch: pip install torch, or save the tensors as .npz"
        ) from error


def check_entries(
    state_dict: Mapping[str, Any], shapes: Mapping[str, tuple], problems: Iterable[str] = ()
) -> None:
    """Raise one error for all that does not fit.

    Args:
      state_dict: {name: array}.
      shapes: {name: shape} of the real arrays that it has to hold.
      problems: what else was found, a line each.

    Raises:
      ValueError: an entry is missing, misshapen or not real, or there are other problems.
    """
    problems = list(problems)
    for name, shape in shapes.items():
        if name not in state_dict:
            problems.append(f"{name} is missing")
            continue
        array = np.asarray(state_dict[name])
        if array.shape != shape:
            problems.append(f"{name} has shape {array.shape}; expected {shape}")
        elif not any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer)):
            problems.append(f"{name} has dtype {array.dtype}; expected real numbers")
    if problems:
        raise ValueError("the state dict does not fit:\n  " + "\n  ".join(problems))
