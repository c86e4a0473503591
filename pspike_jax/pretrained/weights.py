"""Variables of a model as one .npz of plain arrays, each named by its path, such as
params/head/bias.

A file is opened once. Names, shapes and dtypes are read first, a few bytes each, and compared with
the model's; memory for arrays is taken after that alone. Nothing is ever unpickled.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.data.archives import open_npz

DTYPES = ("float32", "int32")
_ROOM = 1 << 12  # bytes of a file for each array, besides its numbers: names and headers


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


def read_weights(
    path: str | os.PathLike, like: Mapping[str, Any], content: bytes | None = None
) -> dict[str, Any]:
    """Read variables whose names, shapes and dtypes are those of a model.

    Args:
      path: of a file that `write_weights` has written.
      like: the variables, with anything that has a shape and a dtype in place of arrays.
      content: the file's bytes, where they were read, and checked, already.

    Returns:
      The variables, as arrays of JAX.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, holds other things than arrays, or more bytes than the model
        needs; or one error that lists every array that is unknown, missing, or of another shape or
        dtype.
    """
    expected = name_leaves(like)
    leaves = []
    with open_npz(path, content, most=most_bytes(like)) as archive:
        problems = _compare(archive.headers, expected)
        if not problems:
            # Bytes may be stored in an order that is not this machine's.
            leaves = [
                jnp.asarray(np.asarray(archive.read(name), leaf.dtype))
                for name, leaf in expected.items()
            ]
    if problems:
        raise ValueError(f"{path} does not fit the model:\n  " + "\n  ".join(problems))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def most_bytes(like: Mapping[str, Any]) -> int:
    """Return how many bytes a file of these variables has at most.

    Args:
      like: anything that has a shape and a dtype in place of arrays.
    """
    leaves = jax.tree.leaves(like)
    numbers = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    return numbers + _ROOM * (1 + len(leaves))


def name_leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves of a tree of dicts by their paths, in the order of jax.tree.leaves."""
    leaves = jax.tree_util.tree_leaves_with_path(nn.meta.unbox(tree))
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def _compare(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Say of every array how it differs from the model's."""
    problems = [f"{name} is unknown" for name in found if name not in expected]
    for name, leaf in expected.items():
        wanted = _words(leaf.shape, leaf.dtype)
        if name not in found:
            problems.append(f"{name} is missing, expected {wanted}")
        elif _words(found[name].shape, found[name].dtype) != wanted:
            problems.append(
                f"{name} is {_words(found[name].shape, found[name].dtype)}, expected {wanted}"
            )
    return problems


def _words(shape: tuple[int, ...], dtype: Any) -> str:
    return f"{np.dtype(dtype).name} {tuple(shape)}"
