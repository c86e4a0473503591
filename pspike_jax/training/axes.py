"""Logical axes of parameters, and the one table that says which mesh axes split them.

Modules know nothing of meshes: a parameter's name tells what its last axes are, as its name tells
its group to the optimizer. Axes in front of those (layers, directions) are never split.
"""

from collections.abc import Mapping

from jax.sharding import PartitionSpec

# Names of the last axes, of what is not one number per feature.
USUAL = ("features",)
AXES = {
    "kernel": ("inputs", "features"),
    "recurrent": ("inputs", "features"),
    "embedding": ("tokens", "features"),
    "A_real": ("features", "state"),
    "A_imag": ("features", "state"),
    "Lambda_re": ("features", "state"),
    "Lambda_im": ("features", "state"),
    "P": ("features", "state", "parts"),
    "B": ("features", "state", "parts"),
    "C": ("features", "state", "parts"),
}

# (logical axis, mesh axis), the first that fits wins: a mesh axis splits one axis of an array, and
# only where its size divides that axis.
RULES = (
    ("features", "model"),
    ("inputs", "fsdp"),
    ("tokens", "fsdp"),
    ("features", "fsdp"),
    ("state", "fsdp"),
)


def logical_axes(name: str, rank: int) -> tuple[str | None, ...]:
    """Name the axes of a parameter, or of what an optimizer keeps for it.

    Args:
      name: the parameter's own name, the last of its path.
      rank: number of its axes.

    Returns:
      A name for each axis; None for those that are never split.
    """
    named = AXES.get(name, USUAL)
    named = named[max(0, len(named) - rank) :]
    return (None,) * (rank - len(named)) + named


def partition(name: str, shape: tuple[int, ...], mesh_shape: Mapping[str, int]) -> PartitionSpec:
    """Choose the mesh axes that split each axis of a parameter.

    Args:
      name: the parameter's own name.
      shape: its shape.
      mesh_shape: sizes of the mesh axes by name.

    Returns:
      The specification; what no rule splits is on every device.
    """
    axes = logical_axes(name, len(shape))
    split: list[tuple[str, ...]] = [()] * len(shape)
    left = list(shape)
    used = set()
    for logical, mesh_axis in RULES:
        size = mesh_shape[mesh_axis]
        if size == 1 or mesh_axis in used or logical not in axes:
            continue
        axis = axes.index(logical)
        if left[axis] % size == 0 and left[axis]:
            split[axis] += (mesh_axis,)
            left[axis] //= size
            used.add(mesh_axis)
    entries = [one[0] if len(one) == 1 else one or None for one in split]
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)
