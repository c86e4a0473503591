"""Training a surrogate dynamic network on the true neuron, as its authors do.

While it trains, the network has 193 numbers: an encoder of one step to eight channels, a
convolution over eight steps of each channel by itself, and a batch norm behind this and behind the
product of channels; `fuse` folds them into the 153 of `sdn`. Currents are drawn from N(0, 1); the
target is what a hard reset leaves, tau u_{t-1}, before the current comes in.

The convolution is padded by eight zeros on both sides. The nine outputs beyond the sequence are
cut off, but only behind the batch norm, whose statistics see them.
"""

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.neuron import Params
from pspike_jax.functional.neurons.sdn import CHANNELS, TAPS, product

EPSILON, MOMENTUM = 1e-5, 0.1
Stats = dict[str, jax.Array]


def init_sdn(key: jax.Array) -> tuple[Params, Stats]:
    """Draw parameters from U(+-1 / sqrt(fan_in)), PyTorch's default; the key is consumed."""
    shapes = {
        "encoder": ((CHANNELS,), 1),
        "taps": ((CHANNELS, TAPS), TAPS),
        "taps_bias": ((CHANNELS,), TAPS),
        "channels": ((CHANNELS, CHANNELS), CHANNELS),
        "channels_bias": ((CHANNELS,), CHANNELS),
        "decoder": ((CHANNELS,), CHANNELS),
        "decoder_bias": ((), CHANNELS),
    }
    keys = jax.random.split(key, len(shapes))
    params = {
        name: jax.random.uniform(k, shape, jnp.float32, -1 / fan_in**0.5, 1 / fan_in**0.5)
        for k, (name, (shape, fan_in)) in zip(keys, shapes.items())
    }
    ones, zeros = jnp.ones(CHANNELS, jnp.float32), jnp.zeros(CHANNELS, jnp.float32)
    for norm in ("taps", "channels"):
        params |= {f"{norm}_scale": ones, f"{norm}_shift": zeros}
    return params, {f"{n}_{kind}": ones if kind == "var" else zeros
                    for n in ("taps", "channels") for kind in ("mean", "var")}


def lif_targets(currents: jax.Array, tau: float) -> tuple[jax.Array, jax.Array]:
    """Run the true neuron, hard reset and threshold 1.

    Args:
      currents: (rows, L).
      tau: the leak.

    Returns:
      (rows, L) each: tau u_{t-1}, and the spikes.
    """

    def step(u, current):
        kept = tau * u
        u = kept + current
        spike = u >= 1
        return jnp.where(spike, 0.0, u), (kept, spike.astype(jnp.float32))

    _, (kept, spikes) = jax.lax.scan(step, 0.0 * currents[:, 0], currents.T)
    return kept.T, spikes.T


def training_membrane(
    params: Params, stats: Stats, currents: jax.Array
) -> tuple[jax.Array, Stats]:
    """Run the network in training.

    Args:
      params, stats: as `init_sdn` gives them.
      currents: (rows, L) float32.

    Returns:
      The estimate (rows, L), and the running statistics after it.
    """
    length = currents.shape[1]
    padded = jnp.pad(currents, [(0, 0), (TAPS, TAPS)])
    outputs = length + TAPS + 1
    steps = jnp.stack([padded[:, j : j + outputs] for j in range(TAPS)], axis=-1)[:, :, None]
    hidden = product(steps, params["encoder"][:, None] * params["taps"])
    hidden = hidden + params["taps_bias"][None, None, None]
    hidden, stats = _batch_norm("taps", hidden, params, stats)
    hidden = jax.nn.relu(hidden[:, :length])
    mixed = product(hidden, params["channels"]) + params["channels_bias"][None, None, None]
    mixed, stats = _batch_norm("channels", mixed, params, stats)
    hidden = jax.nn.relu(mixed + hidden)
    found = product(hidden, params["decoder"][None])[..., 0, 0] + params["decoder_bias"]
    return found, stats


def _batch_norm(name, x, params, stats):
    """Normalize the last axis of x by this batch; the running variance is unbiased."""
    axes, count = (0, 1, 2), x.size // x.shape[-1]
    mean = jnp.mean(x, axis=axes)
    var = jnp.mean(jnp.square(x - mean[None, None, None]), axis=axes)
    gain = params[f"{name}_scale"] * jax.lax.rsqrt(var + EPSILON)
    shift = params[f"{name}_shift"] - mean * gain
    moments = {f"{name}_mean": mean, f"{name}_var": var * (count / (count - 1))}
    moved = {
        key: (1 - MOMENTUM) * stats[key] + MOMENTUM * jax.lax.stop_gradient(new)
        for key, new in moments.items()
    }
    return gain[None, None, None] * x + shift[None, None, None], stats | moved


def fuse(params: Params, stats: Stats) -> Params:
    """Fold encoder and batch norms, by their running statistics, into the 153 numbers of `sdn`."""
    gains = {
        name: params[f"{name}_scale"] * jax.lax.rsqrt(stats[f"{name}_var"] + EPSILON)
        for name in ("taps", "channels")
    }
    shifts = {
        name: params[f"{name}_shift"] + gain * (params[f"{name}_bias"] - stats[f"{name}_mean"])
        for name, gain in gains.items()
    }
    return {
        "taps": (gains["taps"] * params["encoder"])[:, None] * params["taps"],
        "taps_bias": shifts["taps"],
        "channels": gains["channels"][:, None] * params["channels"],
        "channels_bias": shifts["channels"],
        "decoder": params["decoder"],
        "decoder_bias": params["decoder_bias"],
    }


def sdn_loss(
    params: Params, stats: Stats, currents: jax.Array, targets: jax.Array
) -> tuple[jax.Array, tuple[Stats, jax.Array]]:
    """Return the mean smooth L1 distance (beta 1), then the statistics and the estimate."""
    found, stats = training_membrane(params, stats, currents)
    error = jnp.abs(found - targets)
    losses = jnp.where(error < 1, 0.5 * jnp.square(error), error - 0.5)
    return jnp.mean(losses), (stats, found)
