"""What is added to the loss of an objective: a penalty on activity."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp


def firing_rate_penalty(sites: Mapping[str, Mapping[str, jax.Array]], target: float) -> jax.Array:
    """Punish layers whose expected firing rate is above a target.

    The mean over sites and layers of max(0, rate - target)^2, where rate is the mean spike
    probability: the expectation of the firing rate, without the noise of the draw.

    Args:
      sites: counts of a model, `aux["sites"]`; {} for one without spikes.
      target: rate that costs nothing, in [0, 1].

    Returns:
      Scalar float32; 0 without spikes.
    """
    if not sites:
        return jnp.float32(0.0)
    # Float32 before the product: integers of 32 bits overflow at 2^31 neuron-steps.
    size = lambda site: site["steps"].astype(jnp.float32) * site["neurons"].astype(jnp.float32)
    rates = [site["probability"] / size(site) for site in sites.values()]
    return jnp.mean(jnp.maximum(jnp.concatenate(rates) - target, 0.0) ** 2)
