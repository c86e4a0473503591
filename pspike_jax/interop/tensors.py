"""Read tensors, and nothing but tensors, from files, and check that they fit a network."""

import importlib
import os
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np


def read_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a state dict from a `.npz` or `.pth` file; no file is unpickled.

    Args:
      path: `.npz`, as NumPy writes it, or `.pth`, `.pt`, as `torch.save(model.state_dict(), path)`
        writes it (then PyTorch must be installed).

    Returns:
      {name: array}.

    Raises:
      FileNotFoundError: there is no such file.
      ImportError: PyTorch is needed and missing.
      ValueError: another ending, a `.npz` that is none, or a file that holds more than tensors.
        PyTorch raises its own error where a file holds code.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    ending = os.path.splitext(path)[1]
    if ending == ".npz":
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{path} is no .npz archive, as numpy.savez writes it")
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if ending not in (".pth", ".pt"):
        raise ValueError(f"{path} ends in {ending!r}; expected .npz, .pth or .pt")
    loaded = _torch_for(path).load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path} holds a {type(loaded).__name__}; expected a state dict")
    for name, tensor in loaded.items():
        if not hasattr(tensor, "detach"):
            raise ValueError(f"{path}: {name!r} is a {type(tensor).__name__}; expected a tensor")
    return {name: tensor.detach().numpy() for name, tensor in loaded.items()}


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
