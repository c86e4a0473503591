"""State dicts as lists of entries: what each array is called there, and where it lies here."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.tensors import check_entries

COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; of no effect with a fixed momentum


class Entry(NamedTuple):
    """One array of a state dict.

    Attributes:
      name: there.
      path: here, within the variables, the collection first.
      layer: index on the leading axis of arrays that are stacked over layers, or None.
      part: index on the last axis, where real and imaginary parts are arrays of their own there.
      shape: there, where it differs by axes of size 1; None where it does not.
      row: index on the first of the axes that are left, or None.
      transpose: whether the two axes are exchanged there; None: of kernels, as PyTorch has them.
      column: whether it has a last axis of 1 there.
    """

    name: str
    path: tuple[str, ...]
    layer: int | None = None
    part: int | None = None
    shape: tuple[int, ...] | None = None
    row: int | None = None
    transpose: bool | None = None
    column: bool = False


def load_entries(
    state_dict: Mapping[str, Any],
    module: nn.Module,
    entries: Iterable[Entry],
    inputs: Any,
    optional: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the variables of a module from a state dict.

    Args:
      state_dict: {name: array or CPU tensor}.
      module: a model.
      entries: all of its arrays.
      inputs: what `module.init` takes, or its shape and type.
      optional: names that may be missing; their arrays are 0, and 1 where they are variances.

    Returns:
      {collection: tree}, float32.

    Raises:
      ValueError: one error that lists every entry that is unknown, missing, misshapen or not
        real.
    """
    entries, optional = list(entries), set(optional)
    boxed = jax.eval_shape(module.init, jax.random.key(0), inputs)
    shapes = flax.traverse_util.flatten_dict(nn.meta.unbox(boxed))
    arrays = {
        path: np.full(leaf.shape, 1.0 if path[-1] == "var" else 0.0, np.float32)
        for path, leaf in shapes.items()
    }
    views = {entry.name: _view(arrays[entry.path], entry) for entry in entries}
    there = {
        e.name: e.shape or views[e.name].shape
        for e in entries
        if e.name in state_dict or e.name not in optional
    }
    unknown = [name for name in state_dict if name not in there and not name.endswith(COUNTER)]
    check_entries(state_dict, there, [f"{name} is unknown" for name in sorted(unknown)])
    for name in there:
        views[name][...] = np.asarray(state_dict[name]).reshape(views[name].shape)
    missing = set(arrays) - {entry.path for entry in entries}
    if missing:
        raise ValueError(f"no entry for {sorted(missing)}")
    return flax.traverse_util.unflatten_dict({p: jnp.asarray(a) for p, a in arrays.items()})


def export_entries(
    variables: Mapping[str, Any], entries: Iterable[Entry]
) -> dict[str, np.ndarray]:
    """Name arrays, or their gradients, as a program does: renames, reshapes and transposes only.

    Args:
      variables: {collection: tree}; entries of other collections are left out.
      entries: as in `load_entries`.

    Returns:
      {name: array}.
    """
    flat = flax.traverse_util.flatten_dict({k: dict(v) for k, v in variables.items()})
    exported = {}
    for entry in entries:
        if variables.get(entry.path[0]):
            view = _view(np.asarray(flat[entry.path]), entry)
            exported[entry.name] = view.reshape(entry.shape or view.shape)
    return exported


def dense(name: str, path: tuple[str, ...], layer: int | None = None, bias: bool = True):
    """Yield the entries of a linear map, whose kernel is transposed there."""
    yield Entry(f"{name}.weight", ("params", *path, "kernel"), layer)
    if bias:
        yield Entry(f"{name}.bias", ("params", *path, "bias"), layer)


def norm(
    name: str, path: tuple[str, ...], kind: str, layer: int | None = None
) -> Iterator[Entry]:
    """Yield the entries of a `Normalization` of a kind."""
    yield Entry(f"{name}.weight", ("params", *path, kind, "scale"), layer)
    yield Entry(f"{name}.bias", ("params", *path, kind, "bias"), layer)
    if kind == "batch":
        yield Entry(f"{name}.running_mean", ("batch_stats", *path, kind, "mean"), layer)
        yield Entry(f"{name}.running_var", ("batch_stats", *path, kind, "var"), layer)


def _view(array: np.ndarray, entry: Entry) -> np.ndarray:
    for index in (entry.layer, entry.row):
        array = array if index is None else array[index]
    array = array if entry.part is None else array[..., entry.part]
    turned = entry.path[-1].endswith("kernel") if entry.transpose is None else entry.transpose
    array = array.T if turned else array
    return array[:, None] if entry.column else array
