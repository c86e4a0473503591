"""Where activations lie on a mesh: an example stays with its devices, a feature with its own.

Without a word from the model, the compiler may split activations as it finds parameters split, and
send them around at every layer. Outside a mesh, and inside `shard_map`, nothing happens.
"""

import functools
import math
from typing import Any, Callable

import jax
from jax.sharding import AxisType, PartitionSpec

BATCH_AXES = ("data", "fsdp")
FEATURE_AXIS = "model"
TIME_AXIS = "sequence"

Run = Callable[..., tuple[jax.Array, jax.Array]]


def place(x: jax.Array) -> jax.Array:
    """Keep the batch split over "data" and "fsdp", time over "sequence", features over "model".

    Args:
      x: (B, L, H).

    Returns:
      x; an axis that the mesh cannot split evenly is on every device, but time, which then is as
      it was.
    """
    sizes = _mesh_shape()
    if not sizes:
        return x
    batch, features = _split(x, sizes)
    parts, time = time_parts(), PartitionSpec.UNCONSTRAINED
    if parts > 1 and x.shape[1] % parts == 0:
        time = TIME_AXIS
    return jax.lax.with_sharding_constraint(x, PartitionSpec(batch, time, features))


def over_time(
    run: Run, u: Any, system: Any, state: jax.Array | None, mixes: bool = False
):
    """Run a state space model, in `shard_map` where the mesh splits time.

    Args:
      run: maps u (b, l, h), a system of h features, a state, and the keyword axis_name, the mesh
        axis that splits time or None, to an output (b, l, h) and a final state.
      u: (B, L, H), or a pytree of arrays (B, L, H, ...).
      system: pytree of arrays that lead with features.
      state: (B, H, ...), or None.
      mixes: features meet in the system, whose arrays need not lead with them: each device then
        has all of it, and of the features.

    Returns:
      y: (B, L, H); final_state: (B, H, ...).

    Raises:
      ValueError: the mesh's "sequence" axis does not divide L.
    """
    if time_parts() == 1:
        return run(u, system, state, axis_name=None)
    first = jax.tree.leaves(u)[0]
    check_steps(first.shape[1], time_parts())
    batch, features = _split(first, _mesh_shape())
    features = None if mixes else features
    x, of_state = PartitionSpec(batch, TIME_AXIS, features), PartitionSpec(batch, features)
    split = jax.shard_map(
        functools.partial(run, axis_name=TIME_AXIS),
        in_specs=(x, PartitionSpec(features), of_state),
        out_specs=(x, of_state),
        check_vma=False,
    )
    return split(u, system, state)


def check_steps(length: int, parts: int) -> None:
    """Refuse sequences that the mesh cannot split evenly in time.

    Args:
      length: L.
      parts: size of the "sequence" axis.

    Raises:
      ValueError: L is no multiple; the message proposes sizes that fit.
    """
    if length % parts:
        raise ValueError(
            f"mesh axis sequence is {parts}, expected a divisor of the {length} steps of a "
            f"sequence; for example sequence={math.gcd(length, parts)}, or inputs padded to "
            f"{-(-length // parts) * parts} steps"
        )


def refuse_split_time(what: str) -> None:
    """Raise where the mesh splits time and what is run cannot be.

    Args:
      what: runs step by step, for the message.

    Raises:
      ValueError: the mesh's "sequence" axis is not 1.
    """
    if time_parts() > 1:
        raise ValueError(
            f"mesh axis sequence is {time_parts()}, expected 1: {what} run step by step, so that "
            "time cannot be split; give these devices to data, for example"
        )


def time_parts() -> int:
    """Return into how many parts the mesh splits time."""
    return _mesh_shape().get(TIME_AXIS, 1)


def _mesh_shape() -> dict[str, int]:
    """Return the sizes of the mesh that the compiler splits programs over; empty without one."""
    mesh = jax.sharding.get_abstract_mesh()
    named = {*BATCH_AXES, FEATURE_AXIS} <= set(mesh.axis_names)
    if not named or any(kind != AxisType.Auto for kind in mesh.axis_types):
        return {}
    return dict(mesh.shape)


def _split(x, sizes):
    """Return the axes that split the batch, and those that split the features, of x (B, L, H)."""
    batch = BATCH_AXES if x.shape[0] % (sizes["data"] * sizes["fsdp"]) == 0 else None
    features = FEATURE_AXIS if x.shape[2] % sizes[FEATURE_AXIS] == 0 else None
    return batch, features
