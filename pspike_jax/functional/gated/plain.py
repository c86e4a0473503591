"""Recurrences with changing decays one step at a time, or as one scan of all their states."""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp


class Equations(NamedTuple):
    """A recurrence, state_t = decay_t state_{t-1} + drive_t; inputs may lead with any axes.

    Attributes:
      log_decay: of inputs, broadcastable to states.
      drive: of inputs, what is added to states.
      read: of states and inputs, outputs.
    """

    log_decay: Callable[[Any], jax.Array]
    drive: Callable[[Any], jax.Array]
    read: Callable[[jax.Array, Any], jax.Array]


def step_by_step(
    equations: Equations,
    inputs: Any,
    start: jax.Array,
    resets: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Run a recurrence with `lax.scan`, which JAX differentiates in both directions.

    Args:
      equations: of the recurrence.
      inputs: pytree of (B, L, ...).
      start: (B, ...), the state before the first step.
      resets: (B, L) bool or None.

    Returns:
      y: (B, L, ...); final_state: of start's shape.
    """
    convert = lambda array: jnp.moveaxis(array.astype(start.dtype), 1, 0)
    cuts = None if resets is None else resets.T

    def step(state, own_and_cut):
        own, cut = own_and_cut
        if cut is not None:
            state = jnp.where(cut.reshape(cut.shape + (1,) * (state.ndim - 1)), 0, state)
        state = decayed(equations.log_decay(own), state) + equations.drive(own)
        return state, equations.read(state, own)

    final, y = jax.lax.scan(step, start, (jax.tree.map(convert, inputs), cuts))
    return jnp.moveaxis(y, 0, 1), final


def all_at_once(
    equations: Equations,
    inputs: Any,
    start: jax.Array,
    resets: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    """Run a recurrence with `lax.associative_scan`, a state at each step; as `step_by_step`."""
    inputs = jax.tree.map(lambda array: array.astype(start.dtype), inputs)
    entering = equations.drive(inputs)
    logs = jnp.broadcast_to(equations.log_decay(inputs), entering.shape)
    if resets is not None:
        logs = jnp.where(resets.reshape(resets.shape + (1,) * (logs.ndim - 2)), -jnp.inf, logs)
    entering = entering.at[:, 0].add(decayed(logs[:, 0], start))

    def compose(earlier, later):
        # Sums of logarithms, not products: what rounding takes from a decay would add up.
        return earlier[0] + later[0], decayed(later[0], earlier[1]) + later[1]

    states = jax.lax.associative_scan(compose, (logs, entering), axis=1)[1]
    return equations.read(states, inputs), states[:, -1]


def decayed(log_decay: jax.Array, state: jax.Array) -> jax.Array:
    """Return exp(log_decay) state, without the rounding of decays near 1."""
    return state + jnp.expm1(log_decay) * state
