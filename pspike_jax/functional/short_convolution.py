"""A causal convolution over a few steps, one kernel a channel, whole or as a stream."""

import jax
import jax.numpy as jnp
import numpy as np


def short_convolution(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    initial_state: jax.Array | None = None,
    resets: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return y_t = bias + sum_k kernel_k x_{t - (K - 1) + k}: the last tap meets the current step.

    Args:
      x: (B, L, D).
      kernel: (K, D).
      bias: (D,), or None.
      initial_state: (B, K, D), the last K inputs before x, the newest last; zero if None.
      resets: (B, L) bool; inputs before a step with a reset count as zero from there on.

    Returns:
      y: (B, L, D), float32 or wider.
      final_state: (B, K, D) of y's type, the last K inputs, the newest last.

    Raises:
      ValueError: shapes that do not fit.
    """
    (batch, length, channels), taps = x.shape, len(kernel)
    if kernel.shape != (taps, channels):
        raise ValueError(f"kernel has shape {kernel.shape}; x {x.shape} expects (K, {channels})")
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    x, kernel = x.astype(dtype), kernel.astype(dtype)
    before = jnp.zeros((batch, taps, channels), dtype) if initial_state is None else initial_state
    if before.shape != (batch, taps, channels):
        raise ValueError(
            f"initial_state has shape {before.shape}; expected {(batch, taps, channels)}"
        )
    padded = jnp.concatenate([before.astype(dtype), x], axis=1)
    y = x * kernel[-1:][None]
    seen = jnp.ones((batch, length), bool)
    for lag in range(1, taps):
        past = padded[:, taps - lag : taps - lag + length]
        if resets is not None:
            # The input lag steps ago counts where none of the steps after it has a reset.
            later = jnp.pad(resets, ((0, 0), (lag - 1, 0)))[:, :length]
            seen = seen & ~later
            past = jnp.where(seen[..., None], past, 0)
        y = y + past * kernel[-1 - lag][None, None]
    if bias is not None:
        y = y + bias.astype(dtype)[None, None]
    final = padded[:, length:]
    if resets is not None:
        # What a later step's reset cuts off is forgotten.
        behind = jnp.cumsum(resets[:, ::-1], axis=1, dtype=jnp.int32)[:, ::-1]
        behind = jnp.pad(behind, ((0, 0), (0, 1)))
        following = np.clip(np.arange(length - taps, length) + 1, 0, length)
        final = jnp.where((behind[:, following] > 0)[..., None], 0, final)
    return y, final
