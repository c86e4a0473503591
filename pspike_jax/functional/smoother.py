"""States behind observations, where dynamics are linear and change with time: a smoother."""

import jax
import jax.numpy as jnp


def smooth_states(
    observed: jax.Array,
    readout: jax.Array,
    transitions: jax.Array,
    *,
    dynamics_weight: float,
    ridge: float,
) -> jax.Array:
    """Minimise sum_t |y_t - D x_t|^2 + w |x_{t+1} - A_t x_t|^2 + r |x_t|^2 over all states at once.

    The normal equations are block tridiagonal: one pass forwards eliminates, one backwards solves,
    so that a trial costs L times p^3.

    Args:
      observed: (L, q), y.
      readout: (q, p), D.
      transitions: (L - 1, p, p), A.
      dynamics_weight: w.
      ridge: r, above 0 where D has no full rank.

    Returns:
      (L, p) states.
    """
    p, dtype = readout.shape[1], observed.dtype
    w, eye = dynamics_weight, jnp.eye(readout.shape[1], dtype=observed.dtype)
    none = jnp.zeros((1, p, p), dtype)
    leaving = jnp.einsum("tji,tjk->tik", transitions, transitions)
    entering = jnp.broadcast_to(eye[None], transitions.shape)
    around = jnp.concatenate([leaving, none]) + jnp.concatenate([none, entering])
    diagonal = (readout.T @ readout + ridge * eye)[None] + w * around
    # Block (t, t + 1); the block below the diagonal is its transpose.
    upper = -w * jnp.swapaxes(jnp.concatenate([transitions, none]), 1, 2)
    right = observed @ readout

    def eliminate(carry, row):
        ratio_before, value_before, upper_before = carry
        block, above, target = row
        block = block - upper_before.T @ ratio_before
        target = target - upper_before.T @ value_before
        solved = jnp.linalg.solve(block, jnp.concatenate([above, target[:, None]], axis=1))
        ratio, value = solved[:, :p], solved[:, p]
        return (ratio, value, above), (ratio, value)

    start = none[0], jnp.zeros(p, dtype), none[0]
    _, (ratios, values) = jax.lax.scan(eliminate, start, (diagonal, upper, right))

    def solve(later, row):
        ratio, value = row
        state = value - ratio @ later
        return state, state

    _, states = jax.lax.scan(solve, jnp.zeros(p, dtype), (ratios, values), reverse=True)
    return states


def fit_readout(observed: jax.Array, states: jax.Array, unit: bool = False) -> jax.Array:
    """Return the map D of least |Y - X D^T|^2.

    Args:
      observed: (n, q), Y.
      states: (n, p), X.
      unit: scale the columns of D to unit length.

    Returns:
      (q, p).
    """
    readout = observed.T @ states @ jnp.linalg.pinv(states.T @ states)
    if not unit:
        return readout
    length = jnp.linalg.norm(readout, axis=0, keepdims=True)
    return readout / jnp.where(length > 0, length, 1)
