"""Names of a program's arrays beside their places here: loading and exporting by one table."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from pspike_jax.interop.tensors import check_entries
from pspike_jax.models.sequence import SequenceModel


class Entry(NamedTuple):
    """One array of a program.

    Attributes:
      name: there.
      path: here, collection first.
      layer: of the arrays that are stacked over layers here; None where they are not.
      row: of the first of the axes that are left; None for all.
      transpose: the two axes are exchanged there.
      column: there it has a last axis of 1.
    """

    name: str
    path: tuple[str, ...]
    layer: int | None = None
    row: int | None = None
    transpose: bool = False
    column: bool = False

    def of(self, array: np.ndarray) -> np.ndarray:
        """Return the view of an array here that has the shape of the one there."""
        for index in (self.layer, self.row):
            array = array if index is None else array[index]
        array = array.T if self.transpose else array
        return array[:, None] if self.column else array


def load_entries(
    state_dict: Mapping[str, Any],
    model: SequenceModel,
    entries: Iterable[Entry],
    inputs: jax.ShapeDtypeStruct,
    optional: Iterable[str] = (),
) -> dict[str, Any]:
    """Fill a model's variables from a program's arrays.

    Args:
      state_dict: {name: array}.
      model: of the sizes of these arrays.
      entries: of all its arrays.
      inputs: shape and dtype of what it may be called with.
      optional: names that may be missing; then the model's own start stays.

    Returns:
      Variables.

    Raises:
      ValueError: entries are unknown, missing, misshapen or not real; one error lists all.
    """
    entries, optional = list(entries), set(optional)
    arrays = {name: np.asarray(array) for name, array in state_dict.items()}
    boxed = jax.eval_shape(model.init, jax.random.key(0), inputs)
    flat = flax.traverse_util.flatten_dict(nn.meta.unbox(boxed))
    fresh = {path: np.zeros(leaf.shape, np.float32) for path, leaf in flat.items()}
    for path, array in fresh.items():
        if path[-1] == "var":
            array[...] = 1
    views = {entry.name: entry.of(fresh[entry.path]) for entry in entries}
    unknown = [f"{name} is unknown" for name in sorted(set(map(str, arrays)) - set(views))]
    wanted = {n: view.shape for n, view in views.items() if n in arrays or n not in optional}
    check_entries(arrays, wanted, unknown)
    for name in wanted:
        views[name][...] = arrays[name]
    return flax.traverse_util.unflatten_dict({p: jnp.asarray(a) for p, a in fresh.items()})


def export_entries(trees: Mapping[str, Any], entries: Iterable[Entry]) -> dict[str, np.ndarray]:
    """Name arrays, or their gradients, as a program does.

    Args:
      trees: {collection: tree}; entries of other collections are left out.
      entries: of all arrays.

    Returns:
      {name: array}.
    """
    flat = flax.traverse_util.flatten_dict(dict(trees))
    return {
        entry.name: entry.of(np.asarray(flat[entry.path]))
        for entry in entries
        if entry.path[0] in trees
    }
