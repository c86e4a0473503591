"""The device mesh, and where batches and training state live on it.

Axes: "data" splits the batch; "fsdp" splits the batch and the parameters; "model" splits features
and the parameters that belong to them; "sequence" splits time. Whatever the mesh, noise has the
same bits and batch statistics are those of the whole batch; sums differ by rounding.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pspike_jax.data.batches import Split
from pspike_jax.nn.placement import check_steps
from pspike_jax.training.axes import partition

AXES = ("data", "fsdp", "model", "sequence")
BATCH_AXES = ("data", "fsdp")


def make_mesh(
    *,
    data: int | None = None,
    fsdp: int = 1,
    model: int = 1,
    sequence: int = 1,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Arrange devices in a mesh.

    Args:
      data: size of the data axis; None takes all devices that the other axes leave.
      fsdp: size of the axis that splits batch and parameters.
      model: size of the feature axis.
      sequence: size of the time axis.
      devices: devices to use; None takes all.

    Returns:
      Mesh with the axes `AXES`.

    Raises:
      TypeError: a size is not a whole number.
      ValueError: a size is below 1, or they do not multiply to the number of devices; the message
        proposes sizes that do.
    """
    devices = jax.devices() if devices is None else list(devices)
    given = {"data": data, "fsdp": fsdp, "model": model, "sequence": sequence}
    for axis, size in given.items():
        if size is None and axis == "data":
            continue
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"mesh axis {axis} is {size!r}, expected a whole number")
        if size < 1:
            raise ValueError(f"mesh axis {axis} is {size}, expected at least 1")
    others = fsdp * model * sequence
    sizes = (max(1, len(devices) // others) if data is None else data, fsdp, model, sequence)
    if math.prod(sizes) != len(devices):
        raise ValueError(
            f"mesh {dict(zip(AXES, sizes))} needs {math.prod(sizes)} devices, there are "
            f"{len(devices)}; for example {_proposal(sizes, len(devices))} fits"
        )
    return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=devices)


def _proposal(sizes: tuple[int, ...], devices: int) -> str:
    """Return sizes near the given ones that use all devices; the data axis takes the rest."""
    proposed = {}
    for axis, size in list(zip(AXES, sizes))[1:]:
        proposed[axis] = math.gcd(size, devices)
        devices //= proposed[axis]
    return ", ".join(f"{axis}={size}" for axis, size in ({"data": devices} | proposed).items())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of labels and the like: examples are split over "data" and "fsdp".

    Args:
      mesh: the mesh.

    Returns:
      Sharding whose first axis is split.
    """
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shardings(mesh: Mesh, documents: int = 1) -> dict[str, NamedSharding]:
    """Return the shardings of the arrays of a batch by name.

    Args:
      mesh: the mesh.
      documents: of an example; where there are 2, inputs and lengths have an axis for them.

    Returns:
      {"inputs", "lengths", "labels"}: `batch_sharding`, for inputs with time over "sequence".
    """
    inputs = examples = batch_sharding(mesh)
    if mesh.shape["sequence"] > 1:
        before_time = (BATCH_AXES,) + (None,) * (documents - 1)
        inputs = NamedSharding(mesh, PartitionSpec(*before_time, "sequence"))
    return {"inputs": inputs, "lengths": examples, "labels": examples}


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
    """Choose a sharding for each leaf of a training state.

    Args:
      abstract: tree of shapes and dtypes.
      mesh: the mesh.

    Returns:
      Tree of shardings, by the rules of `axes.RULES` for the last name of each leaf's path.
    """

    def sharding(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        return NamedSharding(mesh, partition(name, leaf.shape, mesh.shape))

    return jax.tree.map_with_path(sharding, abstract)


def gather_parameters(params: Any) -> Any:
    """Bring the parts that "fsdp" split together for a pass; their gradients are split again.

    Otherwise the compiler may send activations around instead, which are larger.

    Args:
      params: tree of parameters, traced under the mesh of `jax.sharding.get_abstract_mesh`.

    Returns:
      The same parameters, each device with all that its part of the batch needs.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.shape.get("fsdp", 1) == 1:
        return params
    sizes = {**mesh.shape, "fsdp": 1}

    def gather(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        spec = partition(jax.tree_util.keystr(path[-1:], simple=True), leaf.shape, sizes)
        return jax.lax.with_sharding_constraint(leaf, spec)

    return jax.tree.map_with_path(gather, params)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole.

    Args:
      mesh: the mesh.

    Returns:
      Sharding that splits nothing.
    """
    return NamedSharding(mesh, PartitionSpec())


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """Say which rows of a batch this process must read.

    Args:
      batch_size: B.
      mesh: the mesh.

    Returns:
      (b,) row numbers in [0, B), ascending: those that a device of this process holds.
    """
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    pieces = sorted({index.indices(batch_size)[:2] for (index,) in indices})
    return np.concatenate([np.arange(*piece) for piece in pieces])


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put a batch on the devices of a mesh.

    Args:
      batch: arrays whose first axis is the `local_rows` of the batch; where there is one process,
        the whole batch.
      mesh: the mesh.

    Returns:
      The whole batch, split over "data" and "fsdp", inputs also over "sequence".
    """
    shardings = batch_shardings(mesh, batch["lengths"].ndim) if "inputs" in batch else {}
    pieces = mesh.shape["data"] * mesh.shape["fsdp"]
    here = len(local_rows(pieces, mesh))
    return {
        name: jax.make_array_from_process_local_data(
            shardings.get(name, batch_sharding(mesh)),
            array,
            (len(array) * pieces // here, *array.shape[1:]),
        )
        for name, array in batch.items()
    }


def check_batch_size(batch_size: int, mesh: Mesh, name: str) -> None:
    """Refuse a batch that the mesh cannot split evenly.

    Args:
      batch_size: B.
      mesh: the mesh.
      name: what the message calls it.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise ValueError(
            f"{name} is {batch_size}, expected a multiple of {parts}, the devices that share a "
            f"batch; for example {-(-batch_size // parts) * parts}"
        )


def check_length(split: Split, mesh: Mesh) -> None:
    """Refuse sequences that the mesh cannot split evenly in time.

    Args:
      split: the examples.
      mesh: the mesh.

    Raises:
      ValueError: the message proposes sizes that fit.
    """
    # Time lies behind the examples, and behind the documents of an example.
    check_steps(split.inputs.shape[split.lengths.ndim], mesh.shape["sequence"])
