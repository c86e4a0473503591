"""Losses on logits and on activity."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Compute the cross-entropy of each example.

    Args:
      logits: (B, classes).
      labels: (B,) integers; the loss of label -1 is 0.

    Returns:
      (B,) float32, in nats.
    """
    valid = labels >= 0
    # Masked on both sides: logits of what is not an example may be NaN, and so would a gradient be.
    logits = jnp.where(valid[:, None], logits.astype(jnp.float32), 0.0)
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(valid, labels, 0)
    )
    return jnp.where(valid, losses, 0.0)


def firing_rate_penalty(aux: Mapping[str, Mapping[str, jax.Array]], target: float) -> jax.Array:
    """Punish layers whose expected firing rate is above a target.

    The mean over sites and layers of max(0, rate - target)^2, where rate is the mean spike
    probability: the expectation of the firing rate, without the noise of the draw.

    Args:
      aux: counts of a model; {} for one without spikes.
      target: rate that costs nothing, in [0, 1].

    Returns:
      Scalar float32; 0 without spikes.
    """
    if not aux:
        return jnp.float32(0.0)
    rates = [site["probability"] / (site["steps"] * site["neurons"]) for site in aux.values()]
    return jnp.mean(jnp.maximum(jnp.concatenate(rates) - target, 0.0) ** 2)
