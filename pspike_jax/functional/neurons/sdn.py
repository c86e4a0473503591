"""The surrogate dynamic network: a small causal net that guesses the membrane of a reset neuron.

SpikingSSM (Shen et al. 2024, arXiv 2408.14909) replaces the sequential hard-reset neuron by

  m = SDN(I),    s_t = 1[m_t + I_t >= V],

where m_t estimates tau u_{t-1}, what the last step leaves, from the eight currents before step t.
No gradient goes into the network or through it: d s / d I is the surrogate's. Its 153 numbers are
a convolution over eight steps with eight channels, a product of channels with a skip around it,
and a weighted sum. It is never exact: see `agreement`, and beside it what firing without any
membrane, m = 0, gives.
"""

import jax
import jax.numpy as jnp

from pspike_jax.functional.neurons.firing import fire
from pspike_jax.functional.neurons.neuron import Params
from pspike_jax.functional.surrogates import Surrogate, triangular

TAPS = CHANNELS = 8
SHAPES = {
    "taps": (CHANNELS, TAPS),
    "taps_bias": (CHANNELS,),
    "channels": (CHANNELS, CHANNELS),
    "channels_bias": (CHANNELS,),
    "decoder": (CHANNELS,),
    "decoder_bias": (),
}


def sdn_membrane(
    params: Params, currents: jax.Array, history: jax.Array | None = None
) -> jax.Array:
    """Estimate the membranes before each step's current comes in.

    Args:
      params: arrays of `SHAPES`; "taps" (channels, steps), the oldest step first, and "channels"
        (out, in).
      currents: (B, L, H).
      history: (B, 8, H), the currents before the first step; zeros if None.

    Returns:
      (B, L, H) float32.
    """
    seen, length = _with_history(currents, history), currents.shape[1]
    steps = jnp.stack([seen[:, j : j + length] for j in range(TAPS)], axis=-1)
    return decode(params, jax.nn.relu(product(steps, params["taps"]) + _along(params["taps_bias"])))


def product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Return x (B, L, H, in) times matrix (out, in); a spike may hang on the last digits."""
    return jnp.einsum("blhi,oi->blho", x, matrix, precision=jax.lax.Precision.HIGHEST)


def decode(params: Params, hidden: jax.Array) -> jax.Array:
    """Mix channels (B, L, H, 8) with a skip, and sum them: (B, L, H)."""
    mixed = product(hidden, params["channels"]) + _along(params["channels_bias"])
    hidden = jax.nn.relu(mixed + hidden)
    return product(hidden, params["decoder"][None])[..., 0] + params["decoder_bias"]


def _along(bias):
    return bias[None, None, None]


def sdn_history(currents: jax.Array, history: jax.Array | None = None) -> jax.Array:
    """Return the history (B, 8, H) that the next chunk of a stream needs."""
    return _with_history(currents, history)[:, -TAPS:]


def _with_history(currents, history):
    currents = currents.astype(jnp.float32)
    if history is None:
        return jnp.pad(currents, [(0, 0), (TAPS, 0), (0, 0)])
    return jnp.concatenate([history, currents], axis=1)


def sdn_spikes(
    params: Params,
    currents: jax.Array,
    history: jax.Array | None = None,
    *,
    threshold: float = 1.0,
    surrogate: Surrogate = triangular,
) -> tuple[jax.Array, jax.Array]:
    """Fire by the estimate of the membrane.

    Args:
      params: of the network; they take no gradient.
      currents: (B, L, H).
      history: (B, 8, H), the currents before the first step; zeros if None.
      threshold: V. The network was trained for 1: other thresholds divide the currents.
      surrogate: function (drive, 0.0) -> d spike / d drive.

    Returns:
      spikes (B, L, H) float32 in {0, 1}, and the drives m + I - V.
    """
    membrane = jax.lax.stop_gradient(sdn_membrane(params, currents, history))
    drive = membrane + currents.astype(jnp.float32) - threshold
    return fire(surrogate, True, drive), drive


def agreement(spikes: jax.Array, true_spikes: jax.Array) -> dict[str, jax.Array]:
    """Compare spikes (B, L, H) with the true neuron's.

    Judge by what is wrong: without any membrane 98.4 % of all spikes are right at tau 0.125.

    Returns:
      {"wrong": share of steps that differ, "whole": share of sequences without a wrong step,
      "rate": mean, "true_rate": mean of the true neuron}.
    """
    wrong = spikes != true_spikes
    return {
        "wrong": jnp.mean(wrong.astype(jnp.float32)),
        "whole": jnp.mean((~jnp.any(wrong, axis=1)).astype(jnp.float32)),
        "rate": jnp.mean(spikes, dtype=jnp.float32),
        "true_rate": jnp.mean(true_spikes, dtype=jnp.float32),
    }
