"""Metrics as sums that merge: {"sum", "sum_sq", "count"}, over batches, devices and draws.

The mean of a metric is sum / count. Its standard error sqrt(var / count) takes the counted values
for independent: true of examples, a lower bound for spikes of one layer. An entry may hold an array
of sums, one for each layer or parameter.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

Sums = dict[str, jax.Array]
Metrics = dict[str, Sums]


def sums(values: jax.Array, valid: jax.Array) -> Sums:
    """Sum values where they count.

    Args:
      values: (B,) real.
      valid: (B,) bool, True where a value counts.

    Returns:
      Sums of the valid values.
    """
    values = jnp.where(valid, values, 0.0).astype(jnp.float32)
    return {
        "sum": jnp.sum(values),
        "sum_sq": jnp.sum(values**2),
        "count": jnp.sum(valid, dtype=jnp.float32),
    }


def share(hits: jax.Array, count: jax.Array) -> Sums:
    """Make the sums of indicators, which are their own squares.

    Args:
      hits: number of ones.
      count: number of zeros and ones.

    Returns:
      Sums whose mean is the share of ones.
    """
    hits = jnp.asarray(hits, jnp.float32)
    return {"sum": hits, "sum_sq": hits, "count": jnp.asarray(count, jnp.float32)}


def prediction_metrics(logits: jax.Array, labels: jax.Array, losses: jax.Array) -> Metrics:
    """Count loss and accuracy of one batch.

    Args:
      logits: (B, classes).
      labels: (B,) integers; -1 does not count.
      losses: (B,) loss of each example.

    Returns:
      "loss" and "accuracy".
    """
    valid = labels >= 0
    hits = jnp.argmax(logits, axis=-1) == labels
    return {"loss": sums(losses, valid), "accuracy": sums(hits, valid)}


def activity_metrics(aux: Mapping[str, Mapping[str, jax.Array]]) -> Metrics:
    """Count how much a spiking model fires, over all sites and layers.

    Args:
      aux: counts of a model; {} for one without spikes.

    Returns:
      "firing_rate"; "dead" and "saturated", shares of neurons that fired at no valid step and at
      every one; "surrogate", share of elements with a non-zero surrogate derivative. {} without
      spikes.
    """
    if not aux:
        return {}
    spikes = elements = neurons = dead = saturated = surrogate = 0.0
    for site in aux.values():
        spikes += jnp.sum(site["spikes"])
        surrogate += jnp.sum(site["surrogate"])
        elements += jnp.sum(site["steps"] * site["neurons"])
        neurons += site["neuron_spikes"].size
        dead += jnp.sum(site["neuron_spikes"] == 0)
        saturated += jnp.sum(site["neuron_spikes"] == site["steps"][:, None])
    return {
        "firing_rate": share(spikes, elements),
        "dead": share(dead, neurons),
        "saturated": share(saturated, neurons),
        "surrogate": share(surrogate, elements),
    }


def merge(first: Metrics | None, second: Metrics) -> Metrics:
    """Add two sets of sums, in float64 on the host.

    Args:
      first: metrics, or None for nothing yet.
      second: metrics with the same names.

    Returns:
      Metrics of both.
    """
    second = jax.tree.map(lambda x: np.asarray(x, np.float64), second)
    return second if first is None else jax.tree.map(np.add, first, second)


def mean(metric: Sums) -> np.ndarray:
    """Return the mean of what was counted.

    Args:
      metric: sums, on the host.

    Returns:
      Float64, of the sums' shape; NaN where nothing was counted.
    """
    with np.errstate(invalid="ignore"):
        return np.float64(metric["sum"]) / np.float64(metric["count"])


def standard_error(metric: Sums) -> np.ndarray:
    """Return the standard error of the mean, of independent values.

    Args:
      metric: sums, on the host.

    Returns:
      Float64, of the sums' shape; NaN where fewer than two values were counted.
    """
    count = np.float64(metric["count"])
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.float64(metric["sum_sq"]) / count - mean(metric) ** 2
        return np.where(count > 1, np.sqrt(np.maximum(variance, 0) / (count - 1)), np.nan)
