"""Read tensors, and nothing but tensors, from files."""

import importlib
import os
from collections.abc import Mapping

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
      ValueError: another ending, or a mapping that holds more than tensors. PyTorch raises its own
        error where a file holds code.
    """
    path = os.fspath(path)
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    ending = os.path.splitext(path)[1]
    if ending == ".npz":
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
