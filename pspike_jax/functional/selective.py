"""The scans of Mamba and Mamba-2 around their recurrence: step sizes, skip and gate.

S6 (arXiv:2312.00752): h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, y_t = <C_t, h_t> + D u_t.
SSD (arXiv:2405.21060): the same with one rate for all states of a head, whose state is a matrix.
Both have an exponential for A and an Euler step for B, and y silu(z) where there is a gate z.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pspike_jax.functional.engine import Engine
from pspike_jax.functional.gated import gated_recurrence, selective_recurrence

Recurrence = Callable[..., tuple[jax.Array, jax.Array]]


def selective_scan(
    u: jax.Array,
    dt: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    *,
    D: jax.Array | None = None,
    z: jax.Array | None = None,
    initial_state: jax.Array | None = None,
    recurrence: Recurrence = selective_recurrence,
    **how: jax.Array | Engine | str | None,
) -> tuple[jax.Array, jax.Array]:
    """Run S6 over a sequence.

    Args:
      u: (B, L, E), inputs.
      dt: (B, L, E), step sizes, at least 0; see `step_sizes`.
      A: (E, N), rates, negative where states decay.
      B: (B, L, N), or (B, L, G, N) where each of G groups serves E / G channels.
      C: as B.
      D: (E,), the skip, or None.
      z: (B, L, E), the gate before its silu, or None.
      initial_state: (B, E, N), zero if None.
      recurrence: `selective_recurrence`, or what runs it over devices.
      **how: keyword arguments of the recurrence, as resets and engine.

    Returns:
      y: (B, L, E) float32; final_state: (B, E, N) float32.
    """
    u = u.astype(jnp.promote_types(u.dtype, jnp.float32))
    y, state = recurrence(dt * u, dt, A, B, C, initial_state=initial_state, **how)
    y = y if D is None else y + D[None, None] * u
    return y if z is None else y * jax.nn.silu(z.astype(y.dtype)), state


def ssd_scan(
    x: jax.Array,
    dt: jax.Array,
    A: jax.Array,
    B: jax.Array,
    C: jax.Array,
    *,
    D: jax.Array | None = None,
    z: jax.Array | None = None,
    initial_state: jax.Array | None = None,
    recurrence: Recurrence = gated_recurrence,
    **how: jax.Array | Engine | str | None,
) -> tuple[jax.Array, jax.Array]:
    """Run SSD over a sequence: S_t = exp(dt_t A) S_{t-1} + dt_t B_t x_t^T for each head.

    Args:
      x: (B, L, H, P), inputs of H heads.
      dt: (B, L, H), step sizes, at least 0; see `step_sizes`.
      A: (H,), rates, negative where states decay.
      B: (B, L, G, N), where each of G groups serves H / G heads.
      C: as B.
      D: (H,), the skip, or None.
      z: (B, L, H, P), the gate before its silu, or None.
      initial_state: (B, H, N, P), zero if None.
      recurrence: `gated_recurrence`, or what runs it over devices.
      **how: keyword arguments of the recurrence, as resets and engine.

    Returns:
      y: (B, L, H, P) float32; final_state: (B, H, N, P) float32.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    start = initial_state
    y, state = recurrence(dt[..., None] * x, B, C, dt * A[None, None], initial_state=start, **how)
    y = y if D is None else y + D[None, None, :, None] * x
    return y if z is None else y * jax.nn.silu(z.astype(y.dtype)), state


def step_sizes(raw: jax.Array, bias: jax.Array) -> jax.Array:
    """Return softplus(raw + bias) of raw (B, L, E) and bias (E,), float32 or wider."""
    return jax.nn.softplus(raw.astype(jnp.promote_types(raw.dtype, jnp.float32)) + bias[None, None])


def inverse_softplus(y: jax.Array) -> jax.Array:
    """Return x with softplus(x) = y > 0."""
    return y + jnp.log(-jnp.expm1(-y))
