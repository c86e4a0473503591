"""Where activations lie on a mesh, and state spaces that run there.

An example stays with its devices, a feature with its own.

Without a word from the model, the compiler may split activations as it finds parameters split, and
send them around at every layer. Outside a mesh, and inside `shard_map`, nothing happens.
"""

import functools
import math
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.linear_ssm import linear_ssm
from pspike_jax.functional.packed_spikes import with_packed_spikes
from pspike_jax.functional.sequence_parallel import sequence_parallel_ssm

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


class System(NamedTuple):
    """A discretised diagonal system of H features.

    Attributes:
      Lambda_bar: (H, N) complex.
      B_bar: (H, N) complex.
      C: (H, N) complex, or (H, 2, N) with a second readout that looks ahead.
      D: (H,) real, or None.
    """

    Lambda_bar: jax.Array
    B_bar: jax.Array
    C: jax.Array
    D: jax.Array | None = None


def placed_ssm(
    u: jax.Array,
    system: System,
    state: jax.Array | None = None,
    *,
    resets: jax.Array | None = None,
    engine: Engine | str = Engine.AUTO,
    reverse: bool = False,
    spiking: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Run `linear_ssm`, over parts of the sequence where the mesh splits time.

    Args:
      u: (B, L, H) real.
      system: what is run.
      state: (B, H, N) complex64, zero if None.
      resets: (B, L) bool, see `linear_ssm`.
      engine: how the recurrence is evaluated; chunked where the mesh splits time.
      reverse: run from the last step to the first.
      spiking: inputs are spikes, kept as bits for the backward pass.

    Returns:
      y: (B, L, H) float32; state: (B, H, N) complex64, after the last step, or None if none was
        given.
    """

    def run(u, given, state, *, axis_name):
        (Lambda_bar, B_bar, C, D), resets = given
        arrays = Lambda_bar, B_bar, jnp.moveaxis(C, 1, 0) if C.ndim == 3 else C, D
        if axis_name is not None:
            return sequence_parallel_ssm(
                u, *arrays, axis_name=axis_name, initial_state=state, reverse=reverse
            )
        u = turned(u, reverse)
        y, state = linear_ssm(u, *arrays, initial_state=state, resets=resets, engine=engine)
        return turned(y, reverse), state

    function = lambda u, given: over_time(run, u, *given)
    return of_spikes(function, spiking)(u, ((system, resets), state))


def of_spikes(function, spiking):
    """Return a function of inputs and (..., state), which keeps inputs that are spikes as bits.

    It returns no state where it was given none: nobody reads the last state of a whole sequence,
    but a backward pass of its own would take the zeros that come back to it for numbers.
    """

    def run(u, given):
        y, state = function(u, given)
        return y, None if given[-1] is None else state

    return functools.partial(with_packed_spikes, run) if spiking else run


def turned(x, reverse):
    """Return x (B, L, H), its steps in opposite order if `reverse`."""
    return x[:, ::-1] if reverse else x
