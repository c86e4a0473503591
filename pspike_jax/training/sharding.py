"""The device mesh, and where batches and training state live on it.

Axes: "data" splits the batch; "fsdp" splits the batch and the parameters; "model" splits features
and the parameters that belong to them; "sequence" splits time. Whatever the mesh, noise has the
same bits and batch statistics are those of the whole batch; sums differ by rounding.
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pspike_jax.data.packing import PackedSplit
from pspike_jax.data.split import Split
from pspike_jax.nn.placement import check_steps

AXES = ("data", "fsdp", "model", "sequence")
BATCH_AXES = ("data", "fsdp")
TIMED = ("inputs", "targets", "dt", "resets")  # arrays of a batch that may have an axis of steps

# (logical axis of a parameter, mesh axis), the first that fits wins: a mesh axis splits one axis of
# an array, and only where its size divides that axis.
RULES = (
    ("features", "model"),
    ("inputs", "fsdp"),
    ("tokens", "fsdp"),
    ("features", "fsdp"),
    ("state", "fsdp"),
)


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
        if isinstance(size, bool) or not isinstance(size, numbers.Integral):
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


def share_batches(*batch_sizes: int) -> Mesh:
    """Return the mesh that serves where nobody asked for one: of data alone.

    It has all devices; of the CPU devices of one process, the most that share every batch evenly.
    """
    devices = jax.devices()
    if devices[0].platform == "cpu" and jax.process_count() == 1:
        fits = [n for n in range(1, len(devices) + 1) if not any(b % n for b in batch_sizes)]
        devices = devices[: max(fits, default=1)]
    return make_mesh(devices=devices)


def describe_mesh(mesh: Mesh, batch_size: int) -> str:
    """Return a line for people: the devices, and what each gets of a batch."""
    kind = mesh.devices.flat[0].device_kind
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    each = f", {batch_size // parts} of {batch_size} examples each" if parts > 1 else ""
    return f"{mesh.size} {kind} device{'s' * (mesh.size > 1)}{each}"


def _proposal(sizes: tuple[int, ...], devices: int) -> str:
    """Return sizes near the given ones that use all devices; the data axis takes the rest."""
    proposed = {}
    for axis, size in list(zip(AXES, sizes))[1:]:
        proposed[axis] = math.gcd(size, devices)
        devices //= proposed[axis]
    return ", ".join(f"{axis}={size}" for axis, size in ({"data": devices} | proposed).items())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of targets and the like: "data" and "fsdp" split the first axis."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def partition(
    axes: Sequence[str | None], shape: Sequence[int], mesh_shape: Mapping[str, int]
) -> PartitionSpec:
    """Choose the mesh axes that split each axis of a parameter, by `RULES`.

    `axes` are its logical axes, as its role names them; what no rule splits is on every device.
    """
    split: list[tuple[str, ...]] = [()] * len(shape)
    left, used = list(shape), set()
    for logical, mesh_axis in RULES:
        size = mesh_shape[mesh_axis]
        if size == 1 or mesh_axis in used or logical not in axes:
            continue
        axis = list(axes).index(logical)
        if left[axis] % size == 0 and left[axis]:
            split[axis] += (mesh_axis,)
            left[axis] //= size
            used.add(mesh_axis)
    return _specification(split)


def parameter_shardings(params: Any, axes: Any, mesh: Mesh) -> Any:
    """Choose a sharding for each parameter, by `RULES`.

    `params` is a tree of shapes, `axes` one of their logical axes, from `nn.roles.axes`.
    """
    choose = lambda leaf, names: NamedSharding(mesh, partition(names, leaf.shape, mesh.shape))
    return jax.tree.map(choose, params, axes)


def like_parameters(tree: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Choose shardings for what an optimizer keeps.

    A leaf of `tree` lies like the parameter of its shape whose path its own path ends with; what
    belongs to none is on every device.
    """
    known = {
        (_names(path), leaf.shape): sharding
        for (path, leaf), sharding in zip(
            jax.tree.leaves_with_path(params), jax.tree.leaves(shardings), strict=True
        )
    }

    def choose(path, leaf):
        names = _names(path)
        for start in range(len(names)):
            if (names[start:], leaf.shape) in known:
                return known[names[start:], leaf.shape]
        return replicated(mesh)

    return jax.tree.map_with_path(choose, tree)


def statistics_shardings(statistics: Any, mesh: Mesh) -> Any:
    """Choose shardings for batch statistics, whose last axis is features."""
    axes = lambda leaf: (None,) * (len(leaf.shape) - 1) + ("features",) * min(1, len(leaf.shape))
    return parameter_shardings(statistics, jax.tree.map(axes, statistics), mesh)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def gathered_shardings(shardings: Any) -> Any | None:
    """Say where parameters are during a pass: what "fsdp" splits is brought together.

    Otherwise the compiler may send activations around, which are larger. None where nothing has to
    move.
    """
    leaves, structure = jax.tree.flatten(shardings)
    if not all(isinstance(leaf, NamedSharding) for leaf in leaves):
        return None
    moved = [NamedSharding(leaf.mesh, _without_fsdp(leaf.spec)) for leaf in leaves]
    return None if moved == leaves else structure.unflatten(moved)


def _without_fsdp(spec: PartitionSpec) -> PartitionSpec:
    axes = ((entry,) if isinstance(entry, str) else entry or () for entry in spec)
    return _specification([tuple(axis for axis in one if axis != "fsdp") for one in axes])


def _specification(split: Sequence[tuple[str, ...]]) -> PartitionSpec:
    """Return the shortest specification that splits each axis of an array over mesh axes."""
    entries = [one[0] if len(one) == 1 else one or None for one in split]
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def place_parameters(params: Any, shardings: Any | None) -> Any:
    """Bring parameters to `gathered_shardings`; their gradients are split again."""
    return params if shardings is None else jax.lax.with_sharding_constraint(params, shardings)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def local_rows(batch_size: int, mesh: Mesh) -> np.ndarray:
    """Return the ascending numbers (b,) of the rows of a batch that this process must read."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    pieces = sorted({index.indices(batch_size)[:2] for (index,) in indices})
    return np.concatenate([np.arange(*piece) for piece in pieces])


def array_shardings(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, NamedSharding]:
    """Return the sharding of each array of a batch, given arrays or shapes by name.

    All are split over examples; what has a step for each of the inputs, over "sequence" too.
    """
    examples = batch_sharding(mesh)
    if mesh.shape["sequence"] == 1 or "inputs" not in batch:
        return dict.fromkeys(batch, examples)
    documents = len(batch["lengths"].shape) - 1  # 1 for pairs, whose axis lies before time
    over_time = NamedSharding(
        mesh, PartitionSpec(BATCH_AXES, *[None] * documents, "sequence")
    )
    length = batch["inputs"].shape[1 + documents]

    def choose(name: str) -> NamedSharding:
        shape = batch[name].shape
        timed = len(shape) > 1 + documents and shape[1 + documents] == length
        return over_time if timed and name in TIMED else examples

    return {name: choose(name) for name in batch}


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Put a batch on the devices of a mesh.

    Args:
      batch: arrays whose first axis is the `local_rows` of the batch; where there is one process,
        the whole batch.
      mesh: the mesh; "data" and "fsdp" split examples, "sequence" what has steps.
    """
    shardings = array_shardings(batch, mesh)
    pieces = mesh.shape["data"] * mesh.shape["fsdp"]
    here = len(local_rows(pieces, mesh))
    return {
        name: jax.make_array_from_process_local_data(
            shardings[name],
            # Compiled programs are found by dtype, whatever the order of its bytes.
            array.astype(array.dtype.newbyteorder("="), copy=False),
            (len(array) * pieces // here, *array.shape[1:]),
        )
        for name, array in batch.items()
    }


def check_batch_size(batch_size: int, mesh: Mesh, name: str) -> None:
    """Refuse, by `name`, a batch that the mesh cannot split evenly, and propose one that it can."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % parts:
        raise ValueError(
            f"{name} is {batch_size}, expected a multiple of {parts}, the devices that share a "
            f"batch; for example {-(-batch_size // parts) * parts}"
        )


def check_length(split: Split | PackedSplit, mesh: Mesh) -> None:
    """Raise ValueError for sequences that the mesh cannot split evenly in time."""
    packed = isinstance(split, PackedSplit)
    # Time lies behind the examples, and behind the documents of an example.
    length = split.length if packed else split.inputs.shape[split.lengths.ndim]
    check_steps(length, mesh.shape["sequence"])
