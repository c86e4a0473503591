"""Metrics as sums that merge over batches, devices and draws: {"sum", "sum_sq", "count"}.

The mean of a metric is sum / count. Its standard error sqrt(var / count) takes the counted values
for independent: true of examples, a lower bound for spikes of one layer. Steps of one example are
not independent: `ratio` also keeps what the error over examples needs. An entry may hold an array
of sums, one for each layer or parameter. All sums are float32: integers of 32 bits would overflow
at 2^31 neuron-steps.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

Sums = dict[str, jax.Array]
Metrics = dict[str, Sums]


def sums(values: jax.Array, valid: jax.Array) -> Sums:
    """Sum independent values where they count.

    Args:
      values: real, of any shape.
      valid: bool of that shape, True where a value counts.

    Returns:
      Sums of the valid values.
    """
    values = jnp.where(valid, values.astype(jnp.float32), 0.0)
    return {
        "sum": jnp.sum(values),
        "sum_sq": jnp.sum(values**2),
        "count": jnp.sum(valid, dtype=jnp.float32),
    }


def ratio(tops: jax.Array, bottoms: jax.Array, valid: jax.Array) -> Sums:
    """Make the sums of sum(tops) / sum(bottoms), with an error over examples.

    Args:
      tops: (n,) real, a sum for each example.
      bottoms: (n,) real, such as the number of values in that sum.
      valid: (n,) bool, True where an example counts.

    Returns:
      Sums whose mean is the ratio, and whose error is that of the linearised ratio.
    """
    tops, bottoms = (jnp.where(valid, x.astype(jnp.float32), 0.0) for x in (tops, bottoms))
    total, count = jnp.sum(tops), jnp.sum(bottoms)
    # Moments about this batch's own ratio: examples that hardly differ have squares of which
    # float32 would keep nothing. `merge` moves them to 0, in float64.
    center = total / jnp.where(count == 0, 1.0, count)
    apart = tops - center * bottoms
    return {
        "sum": total,
        "count": count,
        "center": center,
        "sum_sq": jnp.sum(apart**2),
        "cross": jnp.sum(apart * bottoms),
        "count_sq": jnp.sum(bottoms**2),
        "examples": jnp.sum(valid, dtype=jnp.float32),
    }


def mean_over_steps(values: jax.Array, valid: jax.Array) -> Sums:
    """Sum values of which those in one row belong to one example.

    Args:
      values: (n, ...) real.
      valid: bool of that shape, True where a value counts.

    Returns:
      Sums whose mean is that of all valid values, and whose error is over rows.
    """
    axes = tuple(range(1, values.ndim))
    tops = jnp.sum(jnp.where(valid, values.astype(jnp.float32), 0.0), axis=axes)
    bottoms = jnp.sum(valid, axis=axes, dtype=jnp.float32)
    return ratio(tops, bottoms, bottoms > 0)


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


def activity_metrics(sites: Mapping[str, Mapping[str, jax.Array]]) -> Metrics:
    """Count how much a spiking model fires, over all sites and layers.

    Args:
      sites: counts of each site of a model, `aux["sites"]`; {} for one without spikes.

    Returns:
      "firing_rate"; "dead" and "saturated", shares of neurons that fired at no valid step and at
      every one; "surrogate", share of elements with a non-zero surrogate derivative. {} without
      spikes.
    """
    if not sites:
        return {}
    spikes = elements = neurons = dead = saturated = surrogate = 0.0
    for site in sites.values():
        steps = jnp.asarray(site["steps"], jnp.float32)  # before the product: see above
        spikes += jnp.sum(site["spikes"], dtype=jnp.float32)
        surrogate += jnp.sum(site["surrogate"], dtype=jnp.float32)
        elements += jnp.sum(steps * jnp.asarray(site["neurons"], jnp.float32))
        neurons += site["neuron_spikes"].size
        dead += jnp.sum(site["neuron_spikes"] == 0, dtype=jnp.float32)
        always = site["neuron_spikes"] == steps[:, None]
        saturated += jnp.sum(always, dtype=jnp.float32)
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
    second = jax.tree.map(_wide, second, is_leaf=lambda tree: "sum" in tree)
    return second if first is None else jax.tree.map(np.add, first, second)


def _wide(metric: Sums) -> dict[str, np.ndarray]:
    """Float64 sums; the moments of a ratio about 0, so that they add up."""
    wide = {name: np.asarray(value, np.float64) for name, value in metric.items()}
    if "center" in wide:
        center = wide.pop("center")
        moved = 2 * center * wide["cross"] + center**2 * wide["count_sq"]
        wide["sum_sq"] = wide["sum_sq"] + moved
        wide["cross"] = wide["cross"] + center * wide["count_sq"]
    return wide


def mean(metric: Sums) -> np.ndarray:
    """Return the mean of what was counted.

    Args:
      metric: sums, on the host.

    Returns:
      Float64, of the sums' shape; NaN where nothing was counted.
    """
    total, count = np.float64(metric["sum"]), np.float64(metric["count"])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count == 0, np.nan, total / count)[()]


def standard_error(metric: Sums) -> np.ndarray:
    """Return the standard error of the mean, over values or, of a ratio, over examples.

    Args:
      metric: sums, on the host.

    Returns:
      Float64, of the sums' shape; NaN where fewer than two values or examples were counted.
    """
    wide = _wide(metric)
    center, count = mean(metric), wide["count"]
    with np.errstate(invalid="ignore", divide="ignore"):
        if "examples" not in wide:
            variance = wide["sum_sq"] / count - center**2
            return np.where(count > 1, np.sqrt(np.maximum(variance, 0) / (count - 1)), np.nan)
        examples = wide["examples"]
        squares = wide["sum_sq"] - 2 * center * wide["cross"] + center**2 * wide["count_sq"]
        scale = np.sqrt(examples / (examples - 1)) / np.abs(count)
        return np.where(examples > 1, np.sqrt(np.maximum(squares, 0)) * scale, np.nan)
