"""Sparse activation: some steps of a sequence are packed into slots, worked on, and put back.

Slots are in the order of time, of a static number, and chosen for each example by itself: what an
example is packed into does not depend on the other examples of its batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Slots(NamedTuple):
    """Where active steps are packed.

    Attributes:
      kept: (B, L) bool, the active steps that found a slot.
      source: (B, C) int32, the step in each slot; any step in one that is empty.
      filled: (B, C) bool, whether a slot holds a step.
      slot: (B, L) int32, the slot of each step that is kept; any slot for the others.
    """

    kept: jax.Array
    source: jax.Array
    filled: jax.Array
    slot: jax.Array


def choose_slots(
    active: jax.Array,
    count: int,
    *,
    capacity: int | None = None,
    used: jax.Array | None = None,
    resets: jax.Array | None = None,
    priority: jax.Array | None = None,
) -> Slots:
    """Choose slots for active steps.

    Args:
      active: (B, L) bool.
      count: C, number of slots; where the steps that are kept may be more, L.
      capacity: how many steps of an example are kept; all if None.
      used: (B,) int32, how many were kept before the first step, in a stream.
      resets: (B, L) bool, steps at which another example begins.
      priority: (B, L); beyond the capacity the highest are kept. The first ones if None, which is
        the only choice that looks back alone.

    Returns:
      The slots.
    """
    active = active.astype(jnp.int32)
    before = jnp.cumsum(active, axis=1, dtype=jnp.int32) - active
    kept = active > 0
    if capacity is not None:
        rank = before if used is None else before + used[:, None]
        if resets is not None:
            start = jax.lax.cummax(jnp.where(resets, before, jnp.int32(0)), axis=1)
            rank = before - start
        elif priority is not None:
            order = jnp.argsort(jnp.where(kept, -priority, jnp.inf), axis=1, stable=True)
            rank = jnp.argsort(order, axis=1).astype(jnp.int32)
        kept = kept & (rank < capacity)
    ones = kept.astype(jnp.int32)
    slot = jnp.cumsum(ones, axis=1, dtype=jnp.int32) - ones
    # Kept steps first, each part in the order of time.
    source = jnp.argsort(~kept, axis=1, stable=True).astype(jnp.int32)[:, :count]
    filled = jnp.arange(count, dtype=jnp.int32)[None] < jnp.sum(
        ones, 1, keepdims=True, dtype="int32"
    )
    return Slots(kept, source, filled, jnp.minimum(slot, jnp.int32(count - 1)))


def in_place(slots: Slots, active: jax.Array, where: jax.Array) -> Slots:
    """Return slots that are the steps themselves where a condition () holds, else those given.

    The SeqBoat program does not pack a batch in which one example is active throughout.
    """
    steps = jnp.broadcast_to(jnp.arange(active.shape[1], dtype=jnp.int32)[None], active.shape)
    unpacked = Slots(active, steps, active, steps)
    return jax.tree.map(lambda a, b: jnp.where(where, a, b), unpacked, slots)


def pack(x: jax.Array, slots: Slots) -> jax.Array:
    """Return what is in the slots, (B, C, H), of x (B, L, H)."""
    return jnp.take_along_axis(x, slots.source[..., None], axis=1)


def unpack(packed: jax.Array, slots: Slots) -> jax.Array:
    """Return (B, L, H) of packed (B, C, H): zero at steps that have no slot."""
    found = jnp.take_along_axis(packed, slots.slot[..., None], axis=1)
    return jnp.where(slots.kept[..., None], found, 0)
