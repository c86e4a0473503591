"""Changing decays with time across devices: each runs its part, and states hop from part to part.

A part maps the state before it to the state behind it, S -> a S + b, with a the product of its
decays and b what it leaves from a zero state. The maps, not the steps, travel: their prefixes come
from ceil(log2(devices)) rounds, decays as sums of logarithms, and each part is then run from the
state that reaches it.
"""

import jax
import jax.numpy as jnp

from pspike_jax.functional.gated.plain import decayed
from pspike_jax.functional.gated.problem import Problem, gated_problem, selective_problem
from pspike_jax.functional.gated.segments import evaluate


def sequence_parallel_selective(
    x: jax.Array,
    dt: jax.Array,
    A: jax.Array,
    b: jax.Array,
    c: jax.Array,
    *,
    axis_name: str,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Run `selective_recurrence` over a sequence whose steps are split over a mesh axis.

    For use inside `jax.shard_map` over at least this axis. Each device runs its part twice with the
    chunked engine; what it sends does not grow with L.

    Args:
      x, dt, A, b, c, resets: as there, with this device's l steps; the same l on each.
      axis_name: of the mesh axis that splits time, parts in its order.
      initial_state: (B, D, N), the state before the whole sequence, the same on each device.

    Returns:
      y: (B, l, D) float32, this device's part.
      final_state: (B, D, N) float32, the state after the whole sequence, on each device.

    Raises:
      TypeError: resets are not boolean.
      ValueError: shapes that do not fit.
    """
    problem = selective_problem(x, dt, A, b, c, initial_state, resets)
    return _evaluate_part(problem, axis_name)


def sequence_parallel_gated(
    x: jax.Array,
    b: jax.Array,
    c: jax.Array,
    log_decay: jax.Array,
    *,
    axis_name: str,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Run `gated_recurrence` over a sequence whose steps are split over a mesh axis.

    Args:
      x, b, c, log_decay, resets: as there, with this device's l steps; the same l on each.
      axis_name: as in `sequence_parallel_selective`.
      initial_state: (B, H, N, P), the state before the whole sequence, the same on each device.

    Returns:
      y: (B, l, H, P) float32, this device's part.
      final_state: (B, H, N, P) float32, the state after the whole sequence, on each device.

    Raises:
      TypeError: resets are not boolean.
      ValueError: shapes that do not fit.
    """
    problem = gated_problem(x, b, c, log_decay, initial_state, resets)
    return _evaluate_part(problem, axis_name)


def _evaluate_part(problem: Problem, axis_name: str) -> tuple[jax.Array, jax.Array]:
    kind, inputs, shared, start, resets, shapes = problem
    devices = jax.lax.axis_size(axis_name)
    _, gain = evaluate(kind.form, inputs, shared, jnp.zeros_like(start), resets)
    logs = kind.equations(shared).log_decay(
        jax.tree.map(lambda array: jnp.sum(array.astype(start.dtype), axis=1), inputs)
    )
    logs = jnp.broadcast_to(logs, start.shape)
    if resets is not None:
        cut = jnp.any(resets, axis=1).reshape((-1,) + (1,) * (start.ndim - 1))
        logs = jnp.where(cut, -jnp.inf, logs)

    def from_earlier(values, parts):
        """Return what the device that is some parts earlier holds; zero, no decay, at the first."""
        pairs = [(i, i + parts) for i in range(devices - parts)]
        return jax.lax.ppermute(values, axis_name, pairs)

    since, gained = logs, gain
    for k in range((devices - 1).bit_length()):
        earlier_logs, earlier_gain = from_earlier((since, gained), 2**k)
        since, gained = earlier_logs + since, decayed(since, earlier_gain) + gained
    before_logs, before_gain = from_earlier((since, gained), 1)
    before = decayed(before_logs, start) + before_gain
    y, behind = evaluate(kind.form, inputs, shared, before, resets)
    is_last = jax.lax.axis_index(axis_name) == devices - 1
    final = jax.lax.psum(jnp.where(is_last, behind, 0), axis_name)
    return y.reshape(shapes[0]), final.reshape(shapes[1])
