"""Windows of events become one, from layer to layer (Event-SSM, Schoene et al. 2024)."""

import jax
import jax.numpy as jnp

_TINY = 1e-6  # what the program adds to times, so that simultaneous events have a mean


def subsample(x: jax.Array, stride: int) -> jax.Array:
    """Keep the first of every whole window of `stride` steps.

    Args:
      x: (B, L, ...).
      stride: s.

    Returns:
      (B, floor(L / s), ...).
    """
    return _windows(x, stride)[:, :, 0]


def pool_events(x: jax.Array, dt: jax.Array, stride: int, mode: str) -> jax.Array:
    """Join windows of events.

    Args:
      x: (B, L, H).
      dt: (B, L), the time since the event before.
      stride: s.
      mode: `timepool`, the mean weighted by dt; `avgpool`, the mean; `last`, which despite the
        name it has in the program takes the first event.

    Returns:
      (B, floor(L / s), H).

    Raises:
      ValueError: another mode.
    """
    if mode == "last":
        return subsample(x, stride)
    windows = _windows(x, stride)
    if mode == "avgpool":
        return jnp.mean(windows, axis=2)
    if mode != "timepool":
        raise ValueError(f"unknown pooling {mode!r}; expected timepool, avgpool, last")
    weights = _windows(dt, stride)[..., None] + _TINY
    return jnp.sum(weights * windows, axis=2) / jnp.sum(weights, axis=2)


def pool_times(dt: jax.Array, stride: int) -> jax.Array:
    """Sum the times of windows.

    Args:
      dt: (B, L).
      stride: s.

    Returns:
      (B, floor(L / s)).
    """
    return jnp.sum(_windows(dt, stride), axis=2)


def mean_over_time(
    x: jax.Array, dt: jax.Array, lengths: jax.Array, whole: bool = False
) -> jax.Array:
    """Average over the time that passed: the readout of Event-SSM's `timepool`.

    Args:
      x: (B, L, H).
      dt: (B, L), the time since the event before.
      lengths: (B,) int, how many steps count.
      whole: divide by the time of all steps, those that do not count included, as the program
        does. A last window that is not full does not count, but its time is in dt.

    Returns:
      (B, H); 0 where no time passes.
    """
    counts = jnp.arange(x.shape[1], dtype=lengths.dtype)[None] < lengths[:, None]
    total = jnp.sum(dt if whole else jnp.where(counts, dt, 0), axis=1)
    weights = jnp.where(counts, dt + _TINY, 0)
    pooled = jnp.sum(weights[..., None] * jnp.where(counts[..., None], x, 0), axis=1)
    return pooled / jnp.where(total > 0, total, 1)[:, None]


def _windows(x, stride):
    count = x.shape[1] // stride
    return x[:, : count * stride].reshape(x.shape[0], count, stride, *x.shape[2:])
