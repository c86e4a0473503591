"""From x' = A x + B u in continuous time to x_t = A_bar x_{t-1} + B_bar u_t.

Both rules work on the eigenvalues of a diagonal A, with z = dt Lambda:

  zero-order hold   Lambda_bar = exp(z)                   gain = (exp(z) - 1) / Lambda
  bilinear          Lambda_bar = (1 + z/2) / (1 - z/2)    gain = dt / (1 - z/2)

and B_bar = gain B. Zero-order hold is exact for inputs that are constant over a step. Poles, step
sizes and results are complex64 and float32 whatever comes in: a decay of 0.999 is 1 in bfloat16.

Samples that come at irregular times have a step size each. With the time since the last sample,
elapsed (B, L), the sizes elapsed[..., None] * dt (B, L, H) give a Lambda_bar and a gain for each
step, (B, L, H, N), with which `linear_recurrence` runs

    x_t = Lambda_bar_t x_{t-1} + gain_t B u_t,

where u_t is held over the step that ends at sample t.
"""

import jax
import jax.numpy as jnp
from jax.lax import broadcast_to_rank


def discretize_zoh(Lambda: jax.Array, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Step x' = Lambda x + u exactly, holding u constant over the step.

    Args:
      Lambda: (H, N) or (N,) complex, diagonal of A; 0 is allowed.
      dt: (..., H) real, time between samples, 0 or more; leading axes where it differs from step
        to step.

    Returns:
      Lambda_bar: (..., H, N) complex64, what the state is multiplied by in one step.
      gain: (..., H, N) complex64, state reached from rest under unit input; dt where Lambda is 0.

    Raises:
      ValueError: shapes that do not fit together.
      TypeError: dt is complex.
    """
    Lambda, dt = _poles_and_steps(Lambda, dt)
    z = Lambda * dt
    return jnp.exp(z), dt * _expm1_ratio(z)


def discretize_bilinear(Lambda: jax.Array, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Step x' = Lambda x + u by the trapezoidal rule (Tustin); stable poles stay stable.

    Args:
      Lambda: (H, N) or (N,) complex, diagonal of A.
      dt: (..., H) real, as in `discretize_zoh`.

    Returns:
      Lambda_bar: (..., H, N) complex64, what the state is multiplied by in one step.
      gain: (..., H, N) complex64, what the input is multiplied by.

    Raises:
      ValueError: shapes that do not fit together.
      TypeError: dt is complex.
    """
    Lambda, dt = _poles_and_steps(Lambda, dt)
    half = 0.5 * Lambda * dt
    return (1 + half) / (1 - half), dt / (1 - half)


def discretize_bilinear_dplr(
    Lambda: jax.Array, P: jax.Array, Q: jax.Array, B: jax.Array, dt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Step x' = A x + B u by the bilinear rule for A = Lambda - P Q^T, as dense matrices.

    A_bar = (I - dt/2 A)^-1 (I + dt/2 A) and B_bar = (I - dt/2 A)^-1 dt B. The inverse is that of a
    diagonal and a rank-one matrix (Sherman-Morrison), so nothing is solved. With gain g and
    Lambda_bar of the diagonal part and s = 1 / (1 + Q^T (g P) / 2):
    A_bar = Lambda_bar - s (g P)(g Q)^T / dt, and B_bar = g B - s (g P) Q^T (g B) / 2.

    Lambda, P, Q and B hold one of each conjugate pair; the sums run over both.

    Args:
      Lambda: (H, N) or (N,) complex, diagonal part of A.
      P: (H, N) or (N,) complex, left factor.
      Q: (H, N) or (N,) complex, right factor, taken without conjugation; conj(P) in S4.
      B: (H, N) or (N,) complex, input map.
      dt: (H,) real and positive, time between samples.

    Returns:
      A_bar: (H, 2N, 2N) complex64; the stored modes come first, their conjugates after.
      B_bar: (H, 2N) complex64.

    Raises:
      ValueError: shapes that do not fit together.
      TypeError: dt is complex.
    """
    if jnp.ndim(dt) != 1:
        raise ValueError(f"dt must have shape (H,), got {jnp.shape(dt)}")
    Lambda, steps = _poles_and_steps(Lambda, dt)
    P, Q, B = (over_features(name, v, Lambda.shape) for name, v in (("P", P), ("Q", Q), ("B", B)))
    Lambda_bar, gain = discretize_bilinear(Lambda, dt)
    Lambda_bar, gain, P, Q, B = map(both_halves, (Lambda_bar, gain, P, Q, B))
    gP, gB = gain * P, gain * B
    scale = 1 / (1 + 0.5 * jnp.sum(Q * gP, axis=-1, keepdims=True))  # (H, 1)
    low_rank = (scale * gP)[:, :, None] * (gain * Q / steps)[:, None, :]
    A_bar = jax.vmap(jnp.diag)(Lambda_bar) - low_rank
    return A_bar, gB - 0.5 * scale * gP * jnp.sum(Q * gB, axis=-1, keepdims=True)


def both_halves(pairs: jax.Array) -> jax.Array:
    """Append to the stored half (..., N) of conjugate pairs the other half: (..., 2N)."""
    return jnp.concatenate([pairs, pairs.conj()], axis=-1)


def over_features(name: str, value: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Spread a complex parameter (N,) that features share, or (H, N), to complex64 (H, N).

    Args:
      name: what an error calls the parameter.
      value: (N,) or (H, N).
      shape: the two sizes (H, N).

    Returns:
      (H, N) complex64.

    Raises:
      ValueError: value has another shape.
    """
    value = jnp.asarray(value, jnp.complex64)
    if value.shape not in (shape, shape[1:]):
        raise ValueError(f"{name} must have shape {shape} or {shape[1:]}, got {value.shape}")
    return jnp.broadcast_to(value, shape)


def _poles_and_steps(Lambda: jax.Array, dt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return Lambda as complex64 (..., H, N) and dt as complex64 (..., H, 1)."""
    if jnp.iscomplexobj(dt):
        raise TypeError("dt must be real, got complex numbers")
    dt = jnp.asarray(dt, jnp.float32)
    if dt.ndim < 1:
        raise ValueError(f"dt must have shape (..., H), got {dt.shape}")
    if jnp.ndim(Lambda) not in (1, 2):
        raise ValueError(f"Lambda must have shape (H, N) or (N,), got {jnp.shape(Lambda)}")
    Lambda = over_features("Lambda", Lambda, (dt.shape[-1], jnp.shape(Lambda)[-1]))
    return broadcast_to_rank(Lambda, dt.ndim + 1), dt[..., None].astype(jnp.complex64)


def _expm1_ratio(z: jax.Array) -> jax.Array:
    """Return (exp(z) - 1) / z, which is 1 at z = 0, with full precision in value and gradient."""
    # The derivative of expm1(z) / z is a difference of two terms near 1/z, so near 0 a series takes
    # over: below 0.3, its next term, z^8 / 9!, is under 2e-10. Each branch sees only arguments
    # that are safe for it; otherwise the unused one would send NaN into the gradient.
    small = jnp.abs(z) < 0.3
    z_small, z_large = jnp.where(small, z, 0), jnp.where(small, 1, z)
    series = jnp.ones_like(z)
    for k in range(8, 1, -1):
        series = 1 + z_small * series / k
    return jnp.where(small, series, jnp.expm1(z_large) / z_large)
