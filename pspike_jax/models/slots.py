"""Many streams of different ages in one batch: slots that take a stream in, step, and let it go.

Each slot holds the state of a batch of one, so that it has its own count of steps: a stream that
is a thousand steps old stands beside one that begins. All functions are pure and have fixed shapes;
compiled once, they serve whatever comes and goes:

  slots = open_slots(model, 8)
  state, _ = prefill(model.initial_state(1), prompt[None])      # as in docs/streaming.md
  slots = insert(slots, 3, state, name=17)
  slots, (outputs, aux) = step_slots(model, variables, slots, inputs)
  slots = evict(slots, 3)
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pspike_jax.models.sequence import SequenceModel


class Slots(NamedTuple):
    """States of S streams.

    Attributes:
      states: as `initial_state(1)`, with an axis S in front of each array.
      names: (S,) int32, `example_ids` of the streams: their noise goes by these, not by the slot.
      used: (S,) bool, whether there is a stream.
    """

    states: Any
    names: jax.Array
    used: jax.Array


def open_slots(model: SequenceModel, count: int) -> Slots:
    """Return slots without streams.

    Args:
      model: streams.
      count: S.

    Raises:
      ValueError: the model does not stream.
    """
    state = model.initial_state(1)
    states = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), state)
    return Slots(states, jnp.zeros(count, jnp.int32), jnp.zeros(count, bool))


def insert(slots: Slots, place: int | jax.Array, state: Any, name: int | jax.Array = 0) -> Slots:
    """Put a stream into a slot, in place of what is there.

    Args:
      slots: of the model that the state is of.
      place: in [0, S); may be traced, so that one program serves all.
      state: of a batch of one, from `initial_state`, `prefill` or `step`.
      name: the example id of the stream, as it was given to `prefill`.

    Returns:
      The slots.
    """
    states = jax.tree.map(lambda all_, own: all_.at[place].set(own), slots.states, state)
    return Slots(states, slots.names.at[place].set(name), slots.used.at[place].set(True))


def evict(slots: Slots, place: int | jax.Array) -> tuple[Slots, Any]:
    """Take a stream out of a slot.

    Args:
      slots: any.
      place: in [0, S); may be traced.

    Returns:
      The slots, and the state, which `insert`, `prefill` and `step` take.
    """
    state = jax.tree.map(lambda leaf: leaf[place], slots.states)
    return slots._replace(used=slots.used.at[place].set(False)), state


def step_slots(
    model: SequenceModel,
    variables: Any,
    slots: Slots,
    inputs: jax.Array,
    dt: jax.Array | None = None,
    **options: Any,
) -> tuple[Slots, tuple[jax.Array, dict[str, Any]]]:
    """Step every stream once; slots without a stream stay as they are.

    Args:
      model: of the streams.
      variables: of the model.
      slots: any.
      inputs: (S,) or (S, F), the next step of each stream; anything where there is none.
      dt: (S,), as of `step`, or None.
      **options: of `apply` and of `step`: rngs, noise, sampling.

    Returns:
      slots: after the step.
      (outputs, aux): as `step` gives them for a batch of one, with an axis S in front of each array
        in place of the batch; meaningless where there is no stream.
    """

    def step(state, inputs, name, dt):
        state, (outputs, aux) = model.apply(
            variables, state, inputs[None], method="step", example_ids=name[None],
            dt=None if dt is None else dt[None], **options,
        )
        return state, (outputs[0], aux)

    stepped, found = jax.vmap(step)(slots.states, inputs, slots.names, dt)

    def keep(new, old):
        used = slots.used.reshape(slots.used.shape + (1,) * (old.ndim - 1))
        return jnp.where(used, new, old)

    return slots._replace(states=jax.tree.map(keep, stepped, slots.states)), found
