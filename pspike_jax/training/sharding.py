"""The device mesh, and where batches and training state live on it.

Axes: "data" splits the batch; "fsdp" splits the batch and the parameters; "model" and "sequence"
hold copies unless a model's own rule uses them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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
      ValueError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    rest = fsdp * model * sequence
    sizes = (len(devices) // rest if data is None else data, fsdp, model, sequence)
    if np.prod(sizes) != len(devices) or min(sizes) < 1:
        raise ValueError(
            f"mesh {dict(zip(AXES, sizes))} needs {np.prod(sizes)} devices, there are "
            f"{len(devices)}; for example data={len(devices)} and 1 for the others fits"
        )
    return jax.make_mesh(sizes, AXES, (AxisType.Auto,) * len(AXES), devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: examples are split over "data" and "fsdp".

    Args:
      mesh: the mesh.

    Returns:
      Sharding whose first axis is split.
    """
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def state_shardings(abstract: Any, mesh: Mesh) -> Any:
    """Choose a sharding for each leaf of a training state.

    Args:
      abstract: tree of shapes and dtypes.
      mesh: the mesh.

    Returns:
      Tree of shardings: the longest axis that the size of "fsdp" divides is split, if there is one.
    """
    size = mesh.shape["fsdp"]

    def sharding(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        fits = [axis for axis, n in enumerate(leaf.shape) if size > 1 and n % size == 0]
        if not fits:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(fits, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(sharding, abstract)


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put a batch on the devices of a mesh.

    Args:
      batch: arrays whose first axis is B.
      mesh: the mesh.

    Returns:
      The same batch, split over "data" and "fsdp".
    """
    return jax.device_put(dict(batch), batch_sharding(mesh))


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
