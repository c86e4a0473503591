"""Delays that are learnt: each feature arrives some steps late, by a number of its own.

    y_t = (1 - f) x_{t-k} + f x_{t-k-1},    lag = k + f,  k whole,  0 <= f <= 1

Between whole steps the derivative for the lag is x_{t-k-1} - x_{t-k}; a whole lag only moves what
it delays, so that spikes stay spikes. Delays of synapses, one for each pair of neurons, and kernels
that narrow while they learn are what arXiv 2306.17670 trains; here a neuron has one.
"""

import jax
import jax.numpy as jnp

from pspike_jax.functional.short_convolution import short_convolution


def delay(
    x: jax.Array,
    lags: jax.Array,
    longest: int,
    *,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Delay each feature.

    Args:
      x: (B, L, H).
      lags: (H,) in [0, longest] steps; fractions interpolate between neighbouring steps.
      longest: D, at least 1.
      initial_state: (B, D + 1, H), the last inputs before x, the newest last; zero if None.
      resets: (B, L) bool; inputs before a step with a reset count as zero from there on.

    Returns:
      y: (B, L, H), float32 or wider.
      final_state: (B, D + 1, H), the last inputs, the newest last.

    Raises:
      ValueError: `longest` is below 1, or shapes do not fit.
    """
    if longest < 1:
        raise ValueError(f"longest is {longest}, expected 1 step or more")
    if lags.shape != x.shape[2:]:
        raise ValueError(f"lags have shape {lags.shape}; x {x.shape} expects {x.shape[2:]}")
    # The step before the last one at most, so that the longest lag has a derivative, too.
    whole = jnp.clip(jnp.floor(jax.lax.stop_gradient(lags)), 0, longest - 1)
    fraction = lags - whole
    back = jnp.arange(longest, -1, -1, dtype=lags.dtype)[:, None]  # steps, the newest last
    nearer, further = back == whole[None], back == whole[None] + 1
    kernel = jnp.where(nearer, 1 - fraction[None], jnp.where(further, fraction[None], 0))
    return short_convolution(x, kernel, initial_state=initial_state, resets=resets)
