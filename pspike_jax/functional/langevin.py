"""Latent positions and velocities under a force, friction and noise: one splitting step.

    z_t = z_{t-1} + s v_{t-1}
    v_t = (1 - g)(v_{t-1} + s f(z_{t-1})) + sqrt(2 g) e_t

with step s, friction g in [0, 1] and standard normal e_t, given as an argument. The force is that
of a potential that couples C channels of width W = H / C by short kernels, quadratic in z: with
k_i = sum_o K[o, i] and z = (z_1 .. z_C),

    U(z) = sum_i <k_i * z_i, sum_o z_o>,    f = -grad U(z), linear in z

where * is cross-correlation with zeros beyond the ends.
"""

import jax
import jax.numpy as jnp

FLOOR = 1e-12  # of the length that a kernel is divided by


def unit_kernels(kernel: jax.Array) -> jax.Array:
    """Scale each row of a kernel to unit length.

    At 0 the result is 0, and the gradient is that of a division by `FLOOR`: of size 1e12, as in
    the published program. Adam does not mind it; clipping by the global norm would stop all else.

    Args:
      kernel: (C, C, W), rows along the last axis.

    Returns:
      An array of the same shape.
    """
    squares = jnp.sum(kernel**2, axis=-1, keepdims=True)
    above = squares > FLOOR**2
    # Masked before the root, whose derivative at 0 is infinite.
    length = jnp.where(above, jnp.sqrt(jnp.where(above, squares, 1)), FLOOR)
    return kernel / length


def potential(z: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return U(z).

    Args:
      z: (..., H).
      kernel: (C, C, 3): outputs, inputs, positions; used as it is.

    Returns:
      (...) of the type of z.
    """
    channels = _channels(z, kernel)
    total = jnp.sum(channels, axis=-2, keepdims=True)
    taps = jnp.sum(kernel, axis=0)
    return jnp.sum(_correlate(channels, taps) * total, axis=(-2, -1))


def force(z: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return f(z) = -grad U(z), by its formula.

    Args:
      z: (..., H).
      kernel: as in `potential`.

    Returns:
      (..., H).
    """
    channels = _channels(z, kernel)
    taps = jnp.sum(kernel, axis=0)
    total = jnp.sum(channels, axis=-2, keepdims=True)
    to_all = jnp.sum(_correlate(channels, taps), axis=-2, keepdims=True)
    return -(to_all + _correlate(total, taps[:, ::-1])).reshape(z.shape)


def langevin_step(
    z: jax.Array, v: jax.Array, pull: jax.Array, noise: jax.Array, friction: float, step: float
) -> tuple[jax.Array, jax.Array]:
    """Advance positions and velocities by one step.

    Args:
      z: positions, of any shape.
      v: velocities.
      pull: the force at z.
      noise: standard normal; 0 for the mean.
      friction: g, in [0, 1].
      step: s.

    Returns:
      Positions and velocities.
    """
    spread = (2 * friction) ** 0.5
    return z + step * v, (1 - friction) * (v + step * pull) + spread * noise


def langevin_path(
    z: jax.Array,
    v: jax.Array,
    kernel: jax.Array,
    noise: jax.Array,
    friction: float,
    step: float,
) -> tuple[jax.Array, jax.Array]:
    """Run all steps from a start.

    Args:
      z: (B, H) positions at step 0.
      v: (B, H) velocities at step 0.
      kernel: (C, C, 3), used as it is.
      noise: (B, L - 1, H) standard normal, that of steps 1 .. L - 1.
      friction: g.
      step: s.

    Returns:
      Positions and velocities (B, L, H), those of step 0 first.
    """

    def advance(carry, draw):
        carry = langevin_step(*carry, force(carry[0], kernel), draw, friction, step)
        return carry, carry

    _, path = jax.lax.scan(advance, (z, v), jnp.moveaxis(noise, 1, 0))
    return tuple(
        jnp.concatenate([first[:, None], jnp.moveaxis(rest, 0, 1)], axis=1)
        for first, rest in zip((z, v), path)
    )


def normal_divergence(
    mean: jax.Array, log_variance: jax.Array | float, prior_variance: float = 1.0
) -> jax.Array:
    """Return KL(N(mean, exp(log_variance)) || N(0, prior_variance)), elementwise, in nats.

    Args:
      mean: of any shape.
      log_variance: of a shape that broadcasts with it.
      prior_variance: above 0.
    """
    log_variance = jnp.asarray(log_variance, mean.dtype)
    ratio = (mean**2 + jnp.exp(log_variance)) / prior_variance
    return 0.5 * (ratio - 1 - log_variance + jnp.log(jnp.asarray(prior_variance, mean.dtype)))


def _channels(z, kernel):
    return z.reshape(*z.shape[:-1], kernel.shape[1], -1)


def _correlate(x, taps):
    """Cross-correlate x (..., C, W) with taps (C, 3), zeros beyond the ends."""
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(1, 1)])
    taps = taps.reshape((1,) * (x.ndim - 2) + taps.shape)
    left, middle, right = x[..., :-2], x[..., 1:-1], x[..., 2:]
    return taps[..., :1] * left + taps[..., 1:2] * middle + taps[..., 2:] * right
