"""Variables of a model as one .npz of plain arrays, each named by its path, such as
params/head/bias.

A file is read in two passes. The first reads names, shapes and dtypes, a few bytes each, and
compares them with the model's; memory for arrays is taken by the second alone. Nothing is ever
unpickled.
"""

import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DTYPES = ("float32", "int32")
_READ_HEADER = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What zipfile and NumPy raise where bytes are missing or others.
_DAMAGE = (zipfile.BadZipFile, ValueError, EOFError, KeyError, OSError, zlib.error)


def write_weights(path: str | os.PathLike, variables: Mapping[str, Any]) -> None:
    """Write variables; equal ones give equal bytes.

    Args:
      path: the file, which should end in .npz.
      variables: {"params", and other collections}, trees of float32 and int32 arrays.

    Raises:
      TypeError: an array has another dtype, naming it.
    """
    arrays = {name: np.asarray(leaf) for name, leaf in name_leaves(variables).items()}
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise TypeError(f"{name} is {array.dtype}, expected one of {DTYPES}")
    with open(path, "wb") as file:  # savez would add an ending to a path
        np.savez_compressed(file, **arrays)


def read_weights(path: str | os.PathLike, like: Mapping[str, Any]) -> dict[str, Any]:
    """Read variables whose names, shapes and dtypes are those of a model.

    Args:
      path: of a file that `write_weights` has written.
      like: the variables, with anything that has a shape and a dtype in place of arrays.

    Returns:
      The variables, as arrays of JAX.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged or holds other things than arrays; or one error that lists
        every array that is unknown, missing, or of another shape or dtype.
    """
    found, expected = _read_headers(path), name_leaves(like)
    problems = [f"{name} is unknown" for name in found if name not in expected]
    for name, leaf in expected.items():
        wanted = _words(leaf.shape, leaf.dtype)
        if name not in found:
            problems.append(f"{name} is missing, expected {wanted}")
        elif _words(*found[name]) != wanted:
            problems.append(f"{name} is {_words(*found[name])}, expected {wanted}")
    if problems:
        raise ValueError(f"{path} does not fit the model:\n  " + "\n  ".join(problems))
    try:
        with np.load(path, allow_pickle=False) as arrays:
            leaves = [jnp.asarray(arrays[name]) for name in expected]
    except _DAMAGE as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def name_leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of a tree of dicts by their paths, in the order of jax.tree.leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def _read_headers(path: str | os.PathLike) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return shape and dtype of every array in a file, by name."""
    headers = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    shape, _, dtype = _READ_HEADER[np.lib.format.read_magic(file)](file)
                headers[member.removesuffix(".npy")] = (shape, dtype)
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise ValueError(f"{path} is not a .npz of plain arrays: {error}") from error
    return headers


def _words(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{np.dtype(dtype).name} {tuple(shape)}"
